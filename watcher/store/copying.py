"""Copies of a SQLite record: written under a temporary name, checked, and named when they are whole.

The temporary name tells which process writes, so that what a killed one left can be told from what one is at work on.
"""

import asyncio
import os
import re
import sqlite3
import tempfile
import threading
from contextlib import closing, suppress
from pathlib import Path

from watcher.errors import Ours, WatcherError
from watcher.fsync import sync_directory
from watcher.points import reach
from watcher.store.engine import Store
from watcher.store.sqlite_files import sqlite_uri

_PAGES = 4096  # 16 MB are copied between two looks whether to go on


async def copy_record(store: Store, destination: Path) -> None:
    """Copy a SQLite record while it is in use; the copy is checked, readable by its owner only, and never overwrites.

    Raises Ours when it cannot be written, WatcherError for PostgreSQL, which has its own tools.
    """
    if store.sqlite_file is None:
        raise WatcherError("a backup by this command is for SQLite; use pg_dump for PostgreSQL")
    stop = threading.Event()
    try:
        await asyncio.to_thread(_copy, store.sqlite_file, destination, stop)
    except (OSError, sqlite3.Error) as error:
        raise Ours(
            f"the backup {destination} could not be written: {error}", action="name a new file in a writable folder"
        ) from error
    finally:
        stop.set()


def _copy(source: Path, destination: Path, stop: threading.Event) -> None:
    part = part_beside(destination)
    try:
        copy_pages(sqlite_uri(source, "ro"), part, stop)
        reach("backup.written")
        try:
            destination.hardlink_to(part)  # fails when the name is taken
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            destination.touch(mode=0o600, exist_ok=False)
            part.replace(destination)
        reach("backup.named")
        sync_directory(destination.parent)
    finally:
        part.unlink(missing_ok=True)


def copy_pages(source: str, destination: Path, stop: threading.Event | None = None) -> None:
    """Copy what is committed in a SQLite database (a URI), as it is at one moment, into a file, and check the copy.

    Raises OSError when it is stopped, sqlite3.Error when either is not well. Blocks.
    """

    def look(*_: int) -> None:
        if stop is not None and stop.is_set():
            raise InterruptedError("it was stopped")

    with closing(sqlite3.connect(source, uri=True)) as old, closing(sqlite3.connect(destination)) as new:
        old.execute("BEGIN")
        old.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # from here on it sees one moment
        old.backup(new, pages=_PAGES, progress=look)
        found = new.execute("PRAGMA quick_check(1)").fetchone()
        if found != ("ok",):
            raise sqlite3.DatabaseError(f"the copy is not sound: {found[0] if found else 'no answer'}")


def part_beside(path: Path) -> Path:
    """Make an empty file beside a path, for its owner only, to write a copy in; sweeps first. Raises OSError."""
    sweep(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.{os.getpid()}-", suffix=".part", dir=path.parent)
    os.close(handle)
    return Path(name)


def sweep(path: Path) -> None:
    """Remove what killed processes left of copies that were to get this path's name, or one that goes on with a dot.

    What cannot be removed stays: nothing hangs on it.
    """
    named = re.compile(rf"\.{re.escape(path.name)}(\..+)?\.(?P<process>\d{{1,9}})-\w+\.part(-journal|-wal|-shm)?")
    with suppress(OSError):
        for found in [named.fullmatch(one.name) for one in path.parent.iterdir()]:
            if found is not None and not _is_at_work(int(found["process"])):
                path.with_name(found.string).unlink(missing_ok=True)


def _is_at_work(process: int) -> bool:
    """Say whether another process of this number is there; this one, of the same number in a container, just began."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return process != os.getpid()
