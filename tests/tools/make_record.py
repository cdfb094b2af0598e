"""Writes the record of a small real run as SQL, for the tests of the upgrade from each schema there ever was.

python -m tests.tools.make_record

It writes the file of the newest revision, `tests/data/records/<revision>.sql`. Once a version with that revision is
released its file is never written again.
"""

import asyncio
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.pipeline import PRIVATE, ROWS_A, A, Job, world
from watcher.store import batches
from watcher.store.migrate import HEAD
from watcher.store.schema import Batch, Outbox

RECORDS = Path(__file__).parents[1] / "data" / "records"


async def live(job: Job) -> None:
    """Let everything happen to the record that leaves a trace of its own in some table."""
    sandbox = job.sandbox
    job.set("fragalysis", token=sandbox.fragalysis.session_token)
    job.set("molecule_one", batch_size=2)
    job.set("download", keep_uploads=1)
    sandbox.fragalysis.add_target(*PRIVATE, public=False)
    sandbox.fragalysis.add_upload(*PRIVATE, [("S0001a", "CCCl", "Z7")])
    await job.once()
    sandbox.fragalysis.add_upload(*A, [*ROWS_A, ("A0400a", "CCC", "Z9"), ("A0401a", "nonsense", "Z10")])
    sandbox.molecule_one.listing.limit = 0  # so that the next purchase stays in doubt
    job.fault("molecule_one", "close_after", "batch-search", method="POST", times=1)
    await job.once()
    async with job.run() as runner:
        await runner.keep_house()
        await job.later(runner, seconds=1)
        await _by_hand(job)


async def _by_hand(job: Job) -> None:
    """Leave the traces that this run has no cause for."""
    assert job.program is not None
    now = job.clock.now()
    async with job.program.context.store.write() as session:
        await batches.mark_foreign(session, ["somebody-else"], now)
        session.add(Outbox(address=1, event="upload", subject="s", body="b", created_at=now, sent_at=now))


def dumped(file: Path) -> str:
    """Return the record as SQL, without the address of this run's stand-ins."""
    with closing(sqlite3.connect(file)) as connection:
        text = "\n".join(connection.iterdump())
    return re.sub(r"http://127\.0\.0\.1:\d+", "https://stack.example", text) + "\n"


async def make(folder: Path) -> str:
    """Live, and return what is left of it."""
    async with world(folder) as job:
        await live(job)
        assert {one.state for one in await job.all(Batch)} == {"collected", "unconfirmed"}
    return await asyncio.to_thread(dumped, folder / "watcher.db")


def main() -> None:
    """Write the file."""
    with TemporaryDirectory() as folder:
        text = asyncio.run(make(Path(folder)))
    file = RECORDS / f"{HEAD}.sql"
    file.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{file}: {len(text)} bytes\n")


if __name__ == "__main__":
    main()
