"""Copies of a SQLite record: whole, private, under no name that is taken, and without a trace of killed ones."""
# ruff: noqa: ASYNC240 - nothing else goes on in these tests

import os
import shutil
import stat
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from blockbuster import BlockBuster
from sqlalchemy import select, text

from tests.support.clock import START
from tests.support.record import World, settings_for_file
from watcher.errors import Ours, WatcherError
from watcher.settings import DatabaseSettings
from watcher.store import backups
from watcher.store.copying import copy_record
from watcher.store.engine import Store
from watcher.store.migrate import HEAD, revision, upgrade
from watcher.store.restore import restore
from watcher.store.schema import Instance, Upload

pytest_plugins = ("tests.support.store",)


@pytest.fixture(autouse=True)
def _the_tests_look_at_files(blockbuster: BlockBuster) -> None:
    blockbuster.deactivate()


async def filled(settings: DatabaseSettings) -> None:
    async with Store(settings) as store:
        world = await World.begin(store)
        await world.upload(await world.target(), ["C", "N"])


async def test_a_backup_is_whole_while_the_record_is_in_use(sqlite_settings: DatabaseSettings, tmp_path: Path) -> None:
    await filled(sqlite_settings)
    copy = tmp_path / "copy of 50%?.db"
    async with Store(sqlite_settings) as store, store.write() as session:
        session.add(Upload(target_id=1, upload_index=9, committed_at=START, seen_at=START, scan_no=1,
                           archive_state="skipped", scoring_state="history", program_version="1"))  # fmt: skip
        await session.flush()
        await copy_record(store, copy)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    shutil.copy(copy, tmp_path / "restored.db")
    async with Store(settings_for_file(tmp_path / "restored.db")) as store, store.read() as session:
        assert await session.scalar(text("PRAGMA integrity_check")) == "ok"
        assert len((await session.scalars(select(Upload))).all()) == 1  # what was committed, and no more
        assert (await session.scalars(select(Instance))).one().id == 1
    assert {one.name for one in tmp_path.iterdir() if ".part" in one.name} == set()


async def test_a_backup_takes_no_name_that_is_taken(sqlite_settings: DatabaseSettings, tmp_path: Path) -> None:
    taken = tmp_path / "taken.db"
    taken.write_text("precious")
    async with Store(sqlite_settings) as store:
        with pytest.raises(Ours, match="could not be written"):
            await copy_record(store, taken)
        with pytest.raises(Ours, match="could not be written"):
            await copy_record(store, tmp_path / "no such folder" / "copy.db")
    assert taken.read_text() == "precious"


def ended_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


async def by_hand(store: Store, record: Path) -> None:
    await copy_record(store, record.with_name("copy.db"))


async def by_the_day(store: Store, record: Path) -> None:
    await backups.make(store, record, record.parent, START)


async def at_a_start(store: Store, record: Path) -> None:
    await upgrade(store, name="n", now=START)


async def for_a_restore(store: Store, record: Path) -> None:
    await copy_record(store, record.parent / "sound")
    restore(record.parent / "sound", record, START)


@pytest.mark.parametrize(
    ("sweeping", "left"),
    [
        (by_hand, ["copy.db"]),
        (by_the_day, ["watcher.db.20260101T000000Z"]),
        (at_a_start, ["watcher.db", "watcher.db.before-0001-20260101T000000"]),
        (for_a_restore, ["watcher.db", "watcher.db.before-0001-20260101T000000"]),
    ],
)
async def test_what_killed_processes_left_of_copies_is_swept(
    sqlite_settings: DatabaseSettings,
    tmp_path: Path,
    sweeping: Callable[[Store, Path], Awaitable[None]],
    left: Sequence[str],
) -> None:
    await filled(sqlite_settings)
    gone, at_work = ended_process(), os.getppid()
    parts = [f".{name}.{gone}-ab_c1234.part{more}" for name in left for more in ("", "-journal", "-wal", "-shm")]
    others = [f".{name}.{at_work}-abcd1234.part" for name in left]
    others += [f".other.db.{gone}-abcd1234.part", *(f"{name}.{gone}-abcd1234.part" for name in left)]
    for name in (*parts, *others):
        (tmp_path / name).write_bytes(b"part")
    async with Store(sqlite_settings) as store:
        await sweeping(store, tmp_path / "watcher.db")
    assert [name for name in parts if (tmp_path / name).exists()] == []
    assert [name for name in others if not (tmp_path / name).exists()] == [], "somebody may be writing them"


async def test_a_backup_needs_no_hard_links(
    sqlite_settings: DatabaseSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    async with Store(sqlite_settings) as store:
        await copy_record(store, tmp_path / "copy.db")
        with pytest.raises(Ours, match="could not be written"):
            await copy_record(store, tmp_path / "copy.db")
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    async with Store(settings_for_file(tmp_path / "copy.db"), read_only=True) as copy:
        assert await revision(copy) == HEAD


@pytest.mark.postgres
async def test_postgres_has_its_own_backups(postgres_settings: DatabaseSettings, tmp_path: Path) -> None:
    async with Store(postgres_settings) as store:
        with pytest.raises(WatcherError, match="pg_dump"):
            await copy_record(store, tmp_path / "copy")
