"""Puts a copy in the place of a SQLite record, after it is checked; the record that was there is moved aside.

Its log is moved with it, so that it is never applied to the copy. While the two change places, the copy bears a name
that keeps every program from starting on what is there: neither on an older record whose log is gone, nor on none.
"""

import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from watcher.errors import Ours, WatcherError
from watcher.fsync import sync_directory
from watcher.points import reach
from watcher.store.backups import stamp
from watcher.store.copying import copy_pages, part_beside
from watcher.store.migrate import HEAD, is_known
from watcher.store.sqlite_files import RESTORING, interrupted_restore, sqlite_uri

_SIDE_FILES = ("-wal", "-shm", "-journal")


class NotARecord(WatcherError):
    """The file is no sound copy of a record that this program can use; nothing was touched."""


@dataclass(frozen=True, slots=True)
class Copy:
    """What a copy says of itself."""

    revision: str
    name: str
    """The record's own name at the vendor."""
    program_version: str | None
    last_scan_at: str | None
    batches: int


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done."""

    copy: Copy
    earlier: Path | None
    """Where the record lies that was there before."""
    earlier_copy: Copy | None
    """What that says of itself, if it can be read."""


def restore(file: Path, record: Path, now: datetime) -> Restored:
    """Check a copy and put it in the place of the record; nobody else may use the record meanwhile. Blocks.

    Raises NotARecord without touching anything, Ours when the disk fails.
    """
    part = _copied(file, record)
    try:
        copy = _verified(part, file)
        earlier_copy = _look(record) if interrupted_restore(record) is None else None
        earlier = _change_places(part, record, now)
    finally:
        part.unlink(missing_ok=True)
    return Restored(copy, earlier, earlier_copy)


def _copied(file: Path, record: Path) -> Path:
    """Copy the file, with what its log holds, beside the record. Whoever reads it may be no SQLite file."""
    try:
        part = part_beside(record)
    except OSError as error:
        raise Ours(f"nothing can be written beside the record {record}: {error.strerror}") from error
    # A file that nobody has open needs no side files, which could not be made where it may lie.
    source = sqlite_uri(file.absolute(), "ro") + ("" if Path(f"{file}-wal").exists() else "&immutable=1")
    try:
        copy_pages(source, part)
        reach("restore.copied")
    except sqlite3.DatabaseError as error:
        part.unlink()
        if isinstance(error, sqlite3.OperationalError):
            raise Ours(f"{file} could not be copied beside the record: {error}") from error
        raise NotARecord(f"{file} is no sound SQLite file ({error}); the record is left as it is") from error
    except BaseException:
        part.unlink()
        raise
    return part


def _verified(part: Path, file: Path) -> Copy:
    """Make sure that the copy is a record, sound, and not newer than this program."""
    try:
        with closing(sqlite3.connect(sqlite_uri(part, "ro") + "&immutable=1", uri=True)) as connection:
            found = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
            orphan = connection.execute("PRAGMA foreign_key_check").fetchone()
            copy = _read(connection)
    except sqlite3.DatabaseError as error:
        raise NotARecord(f"{file} is no record of this program ({error}); the record is left as it is") from error
    if found != ["ok"] or orphan is not None:
        what = f"a row of {orphan[0]} points at nothing" if found == ["ok"] else found[0]
        raise NotARecord(f"{file} is damaged ({what}); the record is left as it is. Use another copy")
    if not is_known(copy.revision):
        raise NotARecord(
            f"{file} has schema {copy.revision}, newer than this program's {HEAD}"
            f"{f', and was written by version {copy.program_version}' if copy.program_version else ''}; "
            "the record is left as it is. Install the newer program, or use an older copy"
        )
    return copy


def _read(connection: sqlite3.Connection) -> Copy:
    (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone() or ("none",)
    row = connection.execute("SELECT name, last_scan_at FROM instance").fetchone()
    if row is None:
        raise sqlite3.DatabaseError("it has no name of its own")
    version = None
    with suppress(sqlite3.OperationalError):
        (version,) = connection.execute("SELECT program_version FROM instance").fetchone()
    (batches,) = connection.execute("SELECT count(*) FROM batch").fetchone()
    return Copy(revision, row[0], version, row[1], batches)


def _look(record: Path) -> Copy | None:
    """Read what the present record says of itself; it may be why there is a restore."""
    with suppress(sqlite3.Error):
        if record.exists():
            with closing(sqlite3.connect(sqlite_uri(record.absolute(), "ro"), uri=True)) as connection:
                return _read(connection)
    return None


def _change_places(part: Path, record: Path, now: datetime) -> Path | None:
    begun = interrupted_restore(record)  # what it has moved aside already stays with what it would have moved
    ready = begun or record.with_name(f"{record.name}{RESTORING}{stamp(now)}")
    aside = record.with_name(f"{record.name}.replaced-{ready.name.rpartition('-')[2]}")
    if begun is None and aside.exists():
        raise Ours(f"{aside} is there already", action="try again in a second")
    try:
        _sync(part)
        part.replace(ready)
        sync_directory(record.parent)
        reach("restore.begun")
        for ending in (*_SIDE_FILES, ""):
            old, kept = Path(f"{record}{ending}"), Path(f"{aside}{ending}")
            if old.exists() and not kept.exists():
                old.rename(kept)
            elif ending:
                old.unlink(missing_ok=True)  # made since by a reader; the one that counts is kept already
            if ending == "-wal":
                reach("restore.log-aside")
        reach("restore.aside")
        ready.replace(record)
        sync_directory(record.parent)
    except OSError as error:
        raise Ours(
            f"the copy could not take the place of the record {record}: {error}",
            action="look at the disk, then call `watcher db restore` again: until then nothing starts on this record",
        ) from error
    reach("restore.done")
    return aside if aside.exists() else None


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
