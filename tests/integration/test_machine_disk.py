"""The machine fails: a full disk, a read-only folder, a record that another program keeps locked.

Each time the program pauses, stays alive, says so once, resumes by itself, loses nothing and pays for nothing twice.
"""

import asyncio
import errno
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import event

from tests.support.pipeline import A, Job, world
from watcher.archives import sweep
from watcher.errors import Ours
from watcher.store import migrate
from watcher.store.engine import RecordUnavailable, Store

pytestmark = pytest.mark.slow

ALL = {"CCO": 1, "CCN": 1, "c1ccccc1": 1}


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
        pytest.param("watcher.pipeline.download", "point_current", errno.EACCES, marks=pytest.mark.slow),
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


class Fills:
    """A full disk under SQLite: what is read is read, what is written is refused, `times` times."""

    def __init__(self, job: Job) -> None:
        assert job.program is not None
        self.times = 0
        self.refused = 0
        event.listen(job.program.context.store.engine.sync_engine, "before_cursor_execute", self._execute)

    def _execute(self, _: Any, __: Any, statement: str, *___: Any) -> None:
        if self.refused < self.times and statement.lstrip().upper().startswith(("UPDATE", "INSERT", "DELETE")):
            self.refused += 1
            raise sqlite3.OperationalError("database or disk is full")


async def test_a_record_that_takes_no_change_is_told_once(job: Job) -> None:
    """Reading works on a full disk: the record counts as back only once it takes a change."""
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            await runner.scan.request()
            full = Fills(job)
            full.times = 10**6
            for _ in range(30):
                await runner.turn()
                await runner.idle()
                job.clock.advance(5)
            assert (told(logs, "record_unavailable"), told(logs, "record_available_again")) == (1, 0)
            assert 3 <= full.refused <= 12, "tried again, less and less often"
            assert job.bought == {}
            full.times = 0
            async with asyncio.timeout(20):
                await runner.settle()
    assert job.bought == ALL
    assert (told(logs, "record_unavailable"), told(logs, "record_available_again")) == (1, 1)
    assert await job.conditions() == {}


async def test_an_answer_of_the_service_waits_for_room_in_the_record(job: Job) -> None:
    """The disk fills up while the purchase is made: its answer is committed later, and nothing is bought again."""
    async with job.run() as runner:
        assert job.program is not None
        full, service = Fills(job), job.program.context.molecule_one
        create = service.create

        async def create_and_fill(payload: bytes) -> Any:
            outcome = await create(payload)
            full.times = 5
            return outcome

        service.create = create_and_fill  # type: ignore[method-assign, assignment]
        await job.again(runner)
    assert full.refused == 5
    assert job.bought == ALL
    assert job.posts() == 1
    assert [one.state for one in await job.batches()] == ["collected"]


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
                await migrate.backup(store, folder / "copy.db")
        assert list(folder.iterdir()) == []
        await migrate.backup(store, folder / "copy.db")
    assert [one.name for one in folder.iterdir()] == ["copy.db"]


# Locked


async def test_a_record_that_another_program_keeps_locked(job: Job) -> None:
    job.set("database", timeout="1s")
    other = sqlite3.connect(job.file, isolation_level=None, check_same_thread=False)
    try:
        with structlog.testing.capture_logs() as logs:
            async with job.run() as runner:
                await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
                await runner.request_scan()
                for _ in range(2):
                    job.clock.advance(40)
                    await runner.turn()
                    await runner.idle()
                assert told(logs, "record_unavailable") == 1
                assert job.asked("target_experiment_uploads") == 0
                assert job.program is not None
                job.program.context.store._deadline = 30.0  # a busy machine must not look like another lock
                await asyncio.to_thread(other.execute, "ROLLBACK")
                async with asyncio.timeout(30):
                    await runner.settle()
    finally:
        other.close()
    assert told(logs, "record_unavailable") == told(logs, "record_available_again") == 1
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
            await runner.settle()
    assert job.bought == ALL
