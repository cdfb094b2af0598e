"""Brings a record up to date, after a backup; refuses one from a newer program, untouched.

Alembic is imported inside: the daemon needs it for a moment and would keep it for months.
"""

import asyncio
import filecmp
import os
import re
import sqlite3
import tempfile
import threading
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    insert,
    inspect,
    select,
    text,
    update,
)

from watcher import __version__
from watcher.errors import Ours, WatcherError
from watcher.points import reach
from watcher.store.engine import Session, Store
from watcher.store.schema import Base, Instance
from watcher.store.sqlite_files import sqlite_uri

if TYPE_CHECKING:
    from alembic.config import Config

_PAGES = 4096  # 16 MB are copied between two looks whether to go on
HEAD = "0001"
"""The revision this program writes; a test says that it is the newest of the migrations."""


class NewerRecord(WatcherError):
    """The record was written by a newer program; it is left untouched."""


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What was done: revisions before and after, and the backup made first."""

    before: str | None
    after: str
    backup: Path | None


def migrations_directory() -> Path:
    """Return the folder of the revisions: inside the installed package, or beside it in a checkout."""
    packaged = Path(str(files("watcher"))) / "migrations"
    return packaged if packaged.is_dir() else packaged.parent.parent / "migrations"


async def revision(store: Store) -> str | None:
    """Return the revision of the record; None when it is empty."""
    async with store.read() as session:
        return await (await session.connection()).run_sync(_revision)


async def is_current(session: Session) -> bool:
    """Say whether the record has the schema of this program."""
    return bool(await session.scalar(text("SELECT version_num FROM alembic_version")) == HEAD)


async def upgrade(store: Store, *, name: str, now: datetime) -> Upgrade:
    """Bring an empty or older record up to date.

    `name` names a new record at the vendor; an existing one keeps its name. SQLite is copied beside itself first.
    Raises NewerRecord without touching anything, Ours when the database fails.
    """
    before = await revision(store)
    if before == HEAD:
        await _sign(store)
        return Upgrade(before, HEAD, None)
    await refuse_newer(store, before)
    backup_file = None
    if before is not None and store.sqlite_file is not None:
        await asyncio.to_thread(_sweep, store.sqlite_file)
        backup_file = store.sqlite_file.with_name(f"{store.sqlite_file.name}.before-{HEAD}-{now:%Y%m%dT%H%M%S}")
        await backup(store, backup_file)
        await asyncio.to_thread(_drop_equal, backup_file)
    async with store.for_upgrade() as opened, opened.write() as session:
        connection = await session.connection()
        # Looked at again: another process may have been faster. An empty record is made from the models, which equal
        # the sum of the migrations: without Alembic, whose memory the daemon would keep for months.
        empty = await connection.run_sync(_revision) is None
        await connection.run_sync(_create if empty else _upgrade)
        own = await session.scalar(select(Instance))
        if own is None:
            session.add(Instance(id=1, name=name, created_at=now, program_version=__version__))
        else:
            own.program_version = __version__
        reach("migrate.changing")
    reach("migrate.changed")
    return Upgrade(before, HEAD, backup_file)


async def refuse_newer(store: Store, found: str | None) -> None:
    """Raise NewerRecord for a revision that this program does not know."""
    if found is None or is_known(found):
        return
    version = await written_by(store)
    raise NewerRecord(
        f"the record {store.label} has schema {found}, newer than this program's {HEAD}"
        f"{f', and was written by version {version}' if version else ''}; it is left as it is. "
        f"Install {f'version {version}' if version else 'the newer program'} again, or restore a backup of the record"
    )


async def written_by(store: Store) -> str | None:
    """Return the program version that worked on the record last, if that can be read; its schema may be another."""
    with suppress(Ours):
        async with store.read() as session:
            found: Any = await session.scalar(text("SELECT program_version FROM instance"))
            return None if found is None else str(found)
    return None


async def _sign(store: Store) -> None:
    """Note that this version works on the record from now on."""
    if await written_by(store) != __version__:
        async with store.write() as session:
            await session.execute(update(Instance).values(program_version=__version__))


@dataclass(frozen=True, slots=True)
class Planned:
    """What an upgrade would do: revisions before and after, the steps in words, and the size of the copy it makes."""

    before: str | None
    after: str
    steps: list[str]
    copy_bytes: int | None


async def planned(store: Store) -> Planned:
    """Return what `upgrade` would do to the record; changes nothing. Raises NewerRecord, Ours."""
    before = await revision(store)
    if before is None or before == HEAD:
        return Planned(before, HEAD, [], None)
    await refuse_newer(store, before)
    size = None
    if store.is_sqlite:
        pages = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        async with store.read() as session:
            size = int(await session.scalar(text(pages)) or 0)
    return Planned(before, HEAD, _steps(before), size)


async def backup(store: Store, destination: Path) -> None:
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


def _copy(source: Path, destination: Path, stop: threading.Event) -> None:
    _sweep_parts(destination)
    prefix = f".{destination.name}.{os.getpid()}-"
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=destination.parent)
    os.close(handle)
    part = Path(name)
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
        sync_folder(destination.parent)
    finally:
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make what got its name in a folder last."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep_parts(destination: Path) -> None:
    """Remove what was left of copies to this file by processes that are gone; their number is part of the name."""
    named = re.compile(rf"\.{re.escape(destination.name)}\.(\d{{1,9}})-\w+\.part(-journal)?")
    for path in destination.parent.iterdir():
        if (found := named.fullmatch(path.name)) and not _is_at_work(int(found[1])):
            path.unlink(missing_ok=True)


def _is_at_work(process: int) -> bool:
    """Say whether another process of this number is there; this one, of the same number in a container, just began."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return process != os.getpid()


def _drop_equal(copy: Path) -> None:
    """Remove earlier copies before the same upgrade that are the same: starts that are killed leave one, not many."""
    named = re.compile(re.escape(copy.name.rpartition("-")[0]) + r"-\d{8}T\d{6}")
    with suppress(OSError):  # no reason not to upgrade
        for path in copy.parent.iterdir():
            if path != copy and named.fullmatch(path.name) and filecmp.cmp(path, copy, shallow=False):
                path.unlink()


def _sweep(record: Path) -> None:
    """Remove copies that earlier upgrades began and did not finish, so that many such starts do not fill the disk."""
    with suppress(OSError):  # no reason not to upgrade
        for path in record.parent.iterdir():
            if path.name.startswith(f".{record.name}.before-") and ".part" in path.name:
                path.unlink(missing_ok=True)


def _config(connection: Connection | None = None) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_directory()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def is_known(found: str) -> bool:
    """Say whether this program can bring a record of a revision up to date."""
    return found in _known_revisions()


def _known_revisions() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _steps(before: str) -> list[str]:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config()).iterate_revisions(HEAD, before)
    return [f"{script.revision}: {(script.doc or '').strip()}" for script in reversed(list(scripts))]


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: Any = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return None if found is None else str(found)


def _create(connection: Connection) -> None:
    Base.metadata.create_all(connection)
    key = PrimaryKeyConstraint("version_num", name="alembic_version_pkc")
    versions = Table("alembic_version", MetaData(), Column("version_num", String(32), nullable=False), key)
    versions.create(connection)
    connection.execute(insert(versions).values(version_num=HEAD))


def _upgrade(connection: Connection) -> None:
    from alembic import command

    command.upgrade(_config(connection), "head")
    if connection.dialect.name == "sqlite" and (broken := connection.execute(text("PRAGMA foreign_key_check")).first()):
        raise WatcherError(f"after the upgrade a row of {broken[0]} would point at nothing; nothing was changed")
