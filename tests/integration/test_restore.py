"""Going back to a copy: checked first, in one piece, and never together with the log of the record it replaces."""

import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster

from tests.support.clock import START
from tests.support.record import settings_for_file
from watcher import __version__, points
from watcher.errors import Ours
from watcher.settings import DatabaseSettings
from watcher.store import migrate
from watcher.store.engine import Store
from watcher.store.restore import NotARecord, restore

pytest_plugins = ("tests.support.store",)
ASIDE = "watcher.db.replaced-20260301T120000Z"


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def _the_tests_look_at_files(blockbuster: BlockBuster) -> None:
    blockbuster.deactivate()


@pytest.fixture(autouse=True)
def _no_hook_is_left() -> Iterator[None]:
    yield
    points.hook = None


def write(file: Path, name: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE instance SET name = ?", [name])


def named(file: Path) -> Any:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT name FROM instance").fetchone()[0]


@pytest.fixture
def copy(tmp_path: Path, sqlite_settings: DatabaseSettings) -> Path:
    """A copy of the record, whose name in it is `copy`."""
    file = tmp_path / "copy of 50%?.db"
    shutil.copy(tmp_path / "watcher.db", file)
    write(file, "copy")
    return file


@pytest.fixture
def record(tmp_path: Path, copy: Path) -> Path:
    """A record that was killed: its name in it is `log`, which stands in its log alone."""
    file, other = tmp_path / "watcher.db", tmp_path / "other"
    write(file, "record")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("UPDATE instance SET name = 'log'")
        connection.commit()
        other.mkdir()
        for path in (file, Path(f"{file}-wal")):
            shutil.copy(path, other)
    for path in other.iterdir():
        shutil.move(path, tmp_path / path.name)
    other.rmdir()
    return file


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(("-shm", ".lock"))}


def test_the_copy_takes_the_place_and_the_record_is_kept_with_its_log(record: Path, copy: Path) -> None:
    assert Path(f"{record}-wal").stat().st_size
    before = copy.read_bytes()
    done = restore(copy, record, START)
    assert (done.copy.name, done.copy.revision, done.copy.batches) == ("copy", migrate.HEAD, 0)
    assert (done.copy.program_version, done.copy.last_scan_at) == (__version__, None)
    assert (done.earlier, done.earlier_copy and done.earlier_copy.name) == (record.with_name(ASIDE), "log")
    assert not Path(f"{record}-wal").exists()
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert named(record) == "copy"
    assert copy.read_bytes() == before
    assert named(record.with_name(ASIDE)) == "log", "nothing of the record that was there is lost"
    assert left(record.parent) == {"watcher.db", copy.name, ASIDE}
    assert done.earlier is not None
    back = restore(done.earlier, record, START.replace(hour=13))
    assert back.copy.name == named(record) == "log"


def test_the_log_of_a_copy_belongs_to_it(record: Path, copy: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.mkdir()
    for path in (record, Path(f"{record}-wal")):
        shutil.move(path, away / path.name)
    away.chmod(0o500)
    done = restore(away / record.name, record, START)
    away.chmod(0o700)
    assert (done.copy.name, done.earlier) == ("log", None)
    assert named(record) == "log"


async def test_an_older_copy_is_brought_up_to_date_by_the_next_start(record: Path, copy: Path) -> None:
    restore(copy, record, START)
    async with Store(settings_for_file(record)) as store:
        assert (await migrate.upgrade(store, name="n", now=START)).after == migrate.HEAD


def spoil(file: Path, how: str) -> None:
    match how:
        case "text":
            file.write_text("this is no database, but a text that is long enough to be taken for one " * 10)
        case "empty":
            file.write_bytes(b"")
        case "cut":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        case "damaged":
            content = bytearray(file.read_bytes())
            content[8 * 4096 : 9 * 4096] = b"\xff" * 4096
            file.write_bytes(content)
        case "newer":
            with closing(sqlite3.connect(file)) as connection, connection:
                connection.execute("UPDATE alembic_version SET version_num = '9999'")
                connection.execute("UPDATE instance SET program_version = '7.8.9'")
        case "orphan":
            with closing(sqlite3.connect(file)) as connection, connection:
                connection.execute("INSERT INTO claim SELECT 1, 7, 7, 1, 'wanted', NULL, 1, NULL, 0, NULL, NULL, NULL,"
                                   " NULL, NULL, '2020-01-01', '2020-01-01'")  # fmt: skip
        case _:
            file.unlink()
            with closing(sqlite3.connect(file)) as connection, connection:
                connection.execute("CREATE TABLE something (else_ TEXT)")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("text", "no sound SQLite file"),
        ("empty", "no record of this program"),
        ("cut", "no sound SQLite file"),
        ("damaged", "no sound SQLite file"),
        ("newer", "schema 9999, newer than this program's .* version 7.8.9"),
        ("orphan", "a row of claim points at nothing"),
        ("another program's", "no record of this program"),
    ],
)
def test_what_is_no_sound_record_is_refused_and_nothing_is_touched(
    record: Path, copy: Path, how: str, words: str
) -> None:
    spoil(copy, how)
    before = {path.name: path.read_bytes() for path in record.parent.iterdir()}
    with pytest.raises(NotARecord, match=words):
        restore(copy, record, START)
    after = {path.name: path.read_bytes() for path in record.parent.iterdir() if not path.name.endswith("-shm")}
    assert after == before


def test_a_record_that_cannot_be_read_is_kept_too(record: Path, copy: Path) -> None:
    record.write_bytes(b"broken" * 1000)
    done = restore(copy, record, START)
    assert done.earlier_copy is None
    assert record.with_name(ASIDE).read_bytes() == b"broken" * 1000
    assert Path(f"{record.with_name(ASIDE)}-wal").exists()
    assert named(record) == "copy"


@pytest.mark.parametrize("point", ["restore.begun", "restore.log-aside", "restore.aside", "restore.done"])
async def test_killed_in_the_middle(record: Path, copy: Path, point: str) -> None:
    def hook(reached: str) -> None:
        if reached == point:
            raise Killed

    points.hook = hook
    with pytest.raises(Killed):
        restore(copy, record, START)
    points.hook = None
    settings = settings_for_file(record)
    if point != "restore.done":
        with pytest.raises(Ours, match="interrupted") as refused:
            async with Store(settings, read_only=point == "restore.aside"):
                pytest.fail("a program that starts now would not know what was paid for")
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{record}?mode=ro", uri=True)) as reader:
            reader.execute("SELECT name FROM instance").fetchone()  # may leave a log of its own
        (begun,) = record.parent.glob("*.restoring-*")
        assert str(begun) in refused.value.action
        done = restore(begun, record, START.replace(hour=15))
        assert done.earlier == record.with_name(ASIDE)
    assert named(record) == "copy"
    assert named(record.with_name(ASIDE)) == "log"
    assert left(record.parent) == {"watcher.db", copy.name, ASIDE}
    async with Store(settings) as store:
        assert await migrate.revision(store) == migrate.HEAD


KILLED_RESTORE = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from watcher import points
from watcher.store.restore import restore
points.hook = lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == "restore.copied" else None
restore(Path(sys.argv[1]), Path(sys.argv[2]), datetime.now(UTC))
"""


def begin_and_kill(record: Path, copy: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_RESTORE, copy, record], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL


@pytest.mark.parametrize("what_is_next", ["start", "restore"])
async def test_what_a_killed_restore_left_is_gone_after_the_next(record: Path, copy: Path, what_is_next: str) -> None:
    begin_and_kill(record, copy)
    assert len([path for path in record.parent.iterdir() if ".part" in path.name]) == 1
    if what_is_next == "restore":
        restore(copy, record, START)
    else:
        async with Store(settings_for_file(record)) as store:
            await migrate.upgrade(store, name="n", now=START)
    assert [path for path in record.parent.iterdir() if ".part" in path.name] == []


def test_nothing_that_is_kept_is_overwritten(record: Path, copy: Path) -> None:
    record.with_name(ASIDE).write_text("precious")
    with pytest.raises(Ours, match="is there already"):
        restore(copy, record, START)
    assert record.with_name(ASIDE).read_text() == "precious"
