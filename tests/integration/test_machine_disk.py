"""The machine fails: a full disk, a read-only folder, a record that another program keeps locked.

Each time the program pauses, stays alive, says so once, resumes by itself, loses nothing and pays for nothing twice.
"""

import asyncio
import errno
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import event

from tests.support.pipeline import A, Job, world
from watcher.archives import sweep
from watcher.errors import Ours
from watcher.pipeline.inventory import inventory
from watcher.pipeline.settle import settle
from watcher.sandbox import archives
from watcher.store.copying import copy_record
from watcher.store.engine import RecordUnavailable, Store

pytestmark = pytest.mark.slow

ALL = {"CCO": 1, "CCN": 1, "c1ccccc1": 1}
FILE = "download_structures/?file_url"


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[Job]:
    async with world(tmp_path) as job:
        yield job


def told(logs: list[Any], name: str, **values: str) -> int:
    return sum(one["event"] == name and values.items() <= one.items() for one in logs)


class Disk:
    """Lets system calls of one module fail while `broken` holds a number of errno."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broken = 0
        self._patch = monkeypatch

    def breaks(self, module: str, name: str) -> None:
        original = getattr(sys.modules[module], name)

        def call(*arguments: Any, **more: Any) -> Any:
            if self.broken:
                raise OSError(self.broken, os.strerror(self.broken))
            return original(*arguments, **more)

        self._patch.setattr(sys.modules[module], name, call)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.mark.parametrize(
    ("module", "call", "code"),
    [
        ("watcher.archives.receive", "write_all", errno.ENOSPC),
        ("watcher.archives.receive", "make_directory", errno.EROFS),
        ("watcher.archives.unpack", "write_all", errno.ENOSPC),
        pytest.param("watcher.archives.unpack", "write_all", errno.EDQUOT, marks=pytest.mark.slow),
        pytest.param("watcher.archives.unpack", "_swap", errno.EIO, marks=pytest.mark.slow),
    ],
)
async def test_archives_wait_for_the_disk_and_nothing_else_does(
    job: Job, disk: Disk, module: str, call: str, code: int
) -> None:
    disk.breaks(module, call)
    disk.broken = code
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            await job.again(runner)
            assert job.bought == ALL
            assert [*await job.conditions()] == ["download: machine"]
            await job.later(runner, minutes=15)
            assert [one.archive_state for one in await job.uploads()] == ["wanted", "wanted"]
            assert not list(job.downloads.glob("**/.*.part"))
            disk.broken = 0
            for _ in range(2):
                await job.later(runner, minutes=15)
    assert [one.archive_state for one in await job.uploads()] == ["stored", "stored"]
    assert await job.conditions() == {}
    assert told(logs, "condition_opened") == told(logs, "condition_closed") == 1
    assert not [one for one in logs if "unexpected" in one["event"]]
    assert job.bought == ALL


async def test_what_does_not_fit_is_fetched_ever_more_rarely(job: Job, disk: Disk) -> None:
    """Its bytes have come over the network by then, and come again with each try."""
    disk.breaks("watcher.archives.unpack", "write_all")
    disk.broken = errno.ENOSPC
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            await job.again(runner)
            for _ in range(24):
                await job.later(runner, minutes=10)
            fetched = job.asked(FILE)
            for _ in range(30):
                await job.later(runner, minutes=10)
            # Each about once in an hour; half of the requests may find that their link has expired.
            assert 2 * 3 <= job.asked(FILE) - fetched <= 2 * 2 * 5
            disk.broken = 0
            for _ in range(8):
                await job.later(runner, minutes=10)
    assert [one.archive_state for one in await job.uploads()] == ["stored", "stored"]
    assert told(logs, "condition_opened") == told(logs, "condition_closed") == 1


async def test_a_link_that_has_expired_does_not_end_what_is_told_of_the_disk(job: Job, disk: Disk) -> None:
    job.set("fragalysis", targets=(A[0],))
    disk.breaks("watcher.archives.unpack", "write_all")
    disk.broken = errno.ENOSPC
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            await job.again(runner)
            for _ in range(24):
                await job.later(runner, minutes=10)
            assert (told(logs, "condition_opened"), told(logs, "condition_closed")) == (1, 0)
            assert told(logs, "stage_run", outcome="deferred"), "else it shows nothing"
            disk.broken = 0
            for _ in range(8):
                await job.later(runner, minutes=10)
    assert await job.conditions() == {}


async def test_an_archive_does_not_come_again_because_nothing_can_point_at_it(job: Job) -> None:
    current = job.downloads / A[1] / A[0] / "current"
    current.mkdir(parents=True)
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            await job.again(runner)
            asked = job.asked("download_structures")
            for _ in range(3):
                await job.later(runner, minutes=15)
            assert [one.archive_state for one in await job.uploads()] == ["stored", "stored"]
            assert job.asked("download_structures") == asked
            (condition,) = await job.open_conditions()
            assert (condition.subject, condition.kind) == ("verify", "machine")
            assert condition.action == f"move {current} elsewhere"
            current.rmdir()
            await job.later(runner, minutes=15)
    assert current.readlink() == Path("1")
    assert await job.conditions() == {}
    assert told(logs, "condition_opened") == told(logs, "condition_closed") == 1
    async with Store(job.settings.database, read_only=True) as store:
        assert await inventory(store, job.settings.download) == []


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What this process writes beyond so many bytes of a file is refused."""
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))


async def test_an_archive_beyond_the_limit_of_file_sizes_waits_alone(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    members, noise = archives._members, {"aligned_files/noise.cif": os.urandom(2 << 20).hex()}

    def of_two_sizes(target: Any, *more: Any) -> dict[str, str]:
        return members(target, *more) | (noise if target.name == A[0] else {})

    monkeypatch.setattr(archives, "_members", of_two_sizes)
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            with files_of_at_most(1 << 20):  # the record stays below
                await job.again(runner)
                assert job.bought == ALL
                assert "File too large" in (await job.conditions())["download: machine"]
                await job.later(runner, minutes=15)
                assert [one.archive_state for one in await job.uploads()] == ["wanted", "stored"]
                assert not list(job.downloads.glob("**/.*.part"))
            for _ in range(2):
                await job.later(runner, minutes=15)
    assert [one.archive_state for one in await job.uploads()] == ["stored", "stored"]
    assert await job.conditions() == {}
    assert told(logs, "condition_opened") == told(logs, "condition_closed") == 1
    assert told(logs, "record_unavailable") == 0
    assert job.bought == ALL


async def test_a_start_does_not_hang_on_leftovers_that_cannot_be_removed(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = job.downloads / A[1] / A[0] / "7" / ".files.part"
    left.mkdir(parents=True)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", refuse)
        assert await asyncio.to_thread(sweep, job.downloads) == []
        async with job.run():
            pass
    assert await asyncio.to_thread(sweep, job.downloads) == [left]


# The record's own disk


FULL, READ_ONLY = "database or disk is full", "attempt to write a readonly database"


class Refuses:
    """SQLite without its disk: what is read is read; what is written, or only its commit, is refused `times` times."""

    def __init__(self, job: Job, what: str = "change", words: str = FULL) -> None:
        assert job.program is not None
        self.times = 0
        self.refused = 0
        self._words = words
        engine = job.program.context.store.engine.sync_engine
        if what == "change":
            event.listen(engine, "before_cursor_execute", self._execute)
        else:
            self._committed = engine.dialect.do_commit
            engine.dialect.do_commit = self._commit  # type: ignore[method-assign, assignment]

    def _execute(self, _: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.lstrip().upper().startswith(("UPDATE", "INSERT", "DELETE")):
            self._refuse()

    def _commit(self, connection: Any) -> None:
        try:
            self._refuse()
        except sqlite3.OperationalError:
            connection.rollback()  # as SQLite does with a transaction that it cannot commit
            raise
        self._committed(connection)

    def _refuse(self) -> None:
        if self.refused < self.times:
            self.refused += 1
            raise sqlite3.OperationalError(self._words)


@pytest.mark.parametrize(("what", "words"), [("change", FULL), ("change", READ_ONLY), ("commit", FULL)])
async def test_a_record_that_takes_no_change_is_told_once(job: Job, what: str, words: str) -> None:
    """Reading works on a full disk: the record counts as back only once it takes a change."""
    job.set("download", enabled=False)
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            await runner.scan.request()
            disk = Refuses(job, what, words)
            disk.times = 10**6
            for _ in range(30):
                await runner.turn()
                await runner.idle()
                job.clock.advance(5)
            assert (told(logs, "record_unavailable"), told(logs, "record_available_again")) == (1, 0)
            assert 3 <= disk.refused <= 12, "tried again, less and less often"
            assert job.bought == {}
            disk.times = 0
            async with asyncio.timeout(20):
                await settle(runner)
    assert job.bought == ALL
    assert (told(logs, "record_unavailable"), told(logs, "record_available_again")) == (1, 1)
    assert [one["reason"] for one in logs if one["event"] == "record_unavailable" and words in one["reason"]]
    assert await job.conditions() == {}


async def test_a_record_to_which_no_second_connection_can_be_made_is_told_once(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without file descriptors: that the one which is open works does not mean that it is over."""
    job.set("download", enabled=False)
    refused = 0

    def refuse(*_: Any, **__: Any) -> None:
        nonlocal refused
        refused += 1
        raise sqlite3.OperationalError("unable to open database file")

    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            assert job.program is not None
            await job.program.context.store.engine.dispose()
            await runner.scan.request()  # opens one
            with monkeypatch.context() as patch:
                patch.setattr(sqlite3, "connect", refuse)
                for _ in range(30):
                    await runner.turn()
                    await runner.idle()
                    job.clock.advance(5)
            assert (told(logs, "record_unavailable"), told(logs, "record_available_again")) == (1, 0)
            assert 3 <= refused <= 12, "tried again, less and less often"
            await job.later(runner, minutes=1)
    assert job.bought == ALL
    assert told(logs, "record_unavailable") == told(logs, "record_available_again") == 1
    assert await job.conditions() == {}


async def test_a_purchase_whose_intent_is_not_committed_is_not_made(job: Job) -> None:
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            disk = Refuses(job, "commit")
            submit = next(stage for stage in runner.stages if stage.name == "submit")
            reserve = submit._reserve  # type: ignore[attr-defined]

            async def reserve_on_a_full_disk(token: str) -> Any:
                disk.times = 10**6
                return await reserve(token)

            submit._reserve = reserve_on_a_full_disk  # type: ignore[attr-defined]
            await runner.scan.request()
            while not disk.refused:
                await runner.turn()
                await runner.idle()
            for _ in range(20):
                await runner.turn()
                await runner.idle()
                job.clock.advance(5)
            assert job.posts() == 0
            assert await job.batches() == []
            submit._reserve = reserve  # type: ignore[attr-defined]
            disk.times = 0
            await job.later(runner, minutes=1)
    assert job.bought == ALL
    assert job.posts() == 1
    assert [one.state for one in await job.batches()] == ["collected"]
    assert told(logs, "record_unavailable") == told(logs, "record_available_again") == 1


@pytest.mark.parametrize("what", ["change", "commit"])
async def test_an_answer_of_the_service_waits_for_room_in_the_record(job: Job, what: str) -> None:
    """The disk fills up while the purchase is made: its answer is committed later, and nothing is bought again."""
    job.set("download", enabled=False)  # nothing else has anything to write that would find it out
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            assert job.program is not None
            disk, service = Refuses(job, what), job.program.context.molecule_one
            create = service.create

            async def create_and_fill(payload: bytes) -> Any:
                outcome = await create(payload)
                disk.times = 5
                return outcome

            service.create = create_and_fill  # type: ignore[method-assign, assignment]
            await job.again(runner)
    assert disk.refused == 5
    assert job.bought == ALL
    assert job.posts() == 1
    assert [one.state for one in await job.batches()] == ["collected"]
    assert told(logs, "record_unavailable") == told(logs, "record_available_again") == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
async def test_a_backup_that_finds_no_room_leaves_nothing(
    job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    await job.once()
    folder = tmp_path / "copies"
    folder.mkdir()

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    async with Store(job.settings.database, read_only=True) as store:
        with monkeypatch.context() as patch:
            patch.setattr("tempfile.mkstemp" if code == errno.EROFS else "pathlib.Path.hardlink_to", refuse)
            patch.setattr("pathlib.Path.touch", refuse)
            with pytest.raises(Ours, match=os.strerror(code)):
                await copy_record(store, folder / "copy.db")
        assert list(folder.iterdir()) == []
        await copy_record(store, folder / "copy.db")
    assert [one.name for one in folder.iterdir()] == ["copy.db"]


# Locked


_LOCKS = """
import sqlite3, sys
record = sqlite3.connect(sys.argv[1], isolation_level=None)
record.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def locked_by_another_program(record: str) -> AsyncIterator[None]:
    """Keep the record locked while the block runs."""
    command = [sys.executable, "-S", "-E", "-c", _LOCKS, record]
    other = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert await other.stdout.readline() == b"locked\n"
    try:
        yield
    finally:
        await other.communicate(b"")
        assert other.returncode == 0


async def test_a_record_that_another_program_keeps_locked(job: Job) -> None:
    job.set("database", timeout="1s")
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            async with locked_by_another_program(job.file):
                await runner.request_scan()
                for _ in range(2):
                    job.clock.advance(40)
                    await runner.turn()
                    await runner.idle()
                assert told(logs, "record_unavailable") == 1
                assert told(logs, "record_available_again") == 0
                assert job.asked("target_experiment_uploads") == 0
            assert job.program is not None
            job.program.context.store._deadline = 30.0  # a busy machine must not look like another lock
            async with asyncio.timeout(30):
                await settle(runner)
    assert told(logs, "record_unavailable") == told(logs, "record_available_again") == 1
    assert "locked" in next(one["reason"] for one in logs if one["event"] == "record_unavailable")
    assert job.bought == ALL


async def test_a_scan_that_was_asked_for_in_an_outage_comes_after_it(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it lasts: whoever asks is not kept waiting."""
    async with job.run() as runner:
        with monkeypatch.context() as patch:

            async def gone(_: Store) -> None:
                raise RecordUnavailable("the database is gone")

            patch.setattr(Store, "probe", gone)
            runner._outage.note(RecordUnavailable("the database is gone"))
            async with asyncio.timeout(5):
                await runner.request_scan()
                for _ in range(10):
                    job.clock.advance(3600)
                    await runner.turn()
            assert job.asked("target_experiment_uploads") == 0
        job.clock.advance(60)
        async with asyncio.timeout(30):
            await settle(runner)
    assert job.bought == ALL
