"""What befalls batches in the tests of the stages that buy and read them."""

import asyncio
from pathlib import Path
from typing import Any

from tests.support.pipeline import A, Job
from watcher.sandbox.ledger import Booking

ALL = {"CCO": 1, "CCN": 1, "c1ccccc1": 1}
"""How often each compound is to be bought."""
CREATE = r"batch-search$"


async def states(job: Job) -> list[str]:
    return [one.state for one in await job.batches()]


def another(job: Job, *smiles: str, name: str | None = None, version: str = "v1") -> str:
    """A batch that somebody buys with the same account."""
    server = job.sandbox.molecule_one
    batch = server.batches.create(smiles, version=version, name=name, metadata={}, settings={}, detailed=False)
    server.ledger.book(Booking(batch.id, name, version, batch.created_at, batch.targets))
    return batch.id


def lose_answer(job: Job, **more: Any) -> None:
    job.fault("molecule_one", "close_after", CREATE, method="POST", **more)


def restore(file: Path, backup: bytes) -> None:
    for left in file.parent.glob("watcher.db*"):
        left.unlink()
    file.write_bytes(backup)


async def restored(job: Job) -> None:
    """Buy a second batch and forget it, as after going back to a copy."""
    job.set("fragalysis", targets=["A71*"])
    await job.once()
    copy = await asyncio.to_thread(Path(job.file).read_bytes)
    job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9"), ("A0401a", "CCCC", "Z10")])
    await job.once()
    await asyncio.to_thread(restore, Path(job.file), copy)
