"""Brings a record up to date, after a backup; refuses one from a newer program, untouched.

Alembic is imported inside: the daemon needs it for a moment and would keep it for months.
"""

import asyncio
import os
import sqlite3
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, select, text

from watcher.errors import Ours, WatcherError
from watcher.points import reach
from watcher.store.connections import sqlite_uri
from watcher.store.engine import Store
from watcher.store.schema import Base, Instance

if TYPE_CHECKING:
    from alembic.config import Config

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


async def upgrade(store: Store, *, name: str, now: datetime) -> Upgrade:
    """Bring an empty or older record up to date.

    `name` names a new record at the vendor; an existing one keeps its name. SQLite is copied beside itself first.
    Raises NewerRecord without touching anything, Ours when the database fails.
    """
    before = await revision(store)
    if before == HEAD:
        return Upgrade(before, HEAD, None)
    if before is not None and before not in _known_revisions():
        raise NewerRecord(
            f"the record {store.label} has schema {before}, newer than this program's {HEAD}; it is left as it is. "
            "Install the newer program again, or restore a backup of the record"
        )
    backup_file = None
    if before is not None and store.sqlite_file is not None:
        await asyncio.to_thread(_sweep, store.sqlite_file)
        backup_file = store.sqlite_file.with_name(f"{store.sqlite_file.name}.before-{HEAD}-{now:%Y%m%dT%H%M%S}")
        await backup(store, backup_file)
    async with store.for_upgrade() as opened, opened.write() as session:
        connection = await session.connection()
        # Looked at again: another process may have been faster. An empty record is made from the models, which equal
        # the sum of the migrations: without Alembic, whose memory the daemon would keep for months.
        empty = await connection.run_sync(_revision) is None
        await connection.run_sync(_create if empty else _upgrade)
        if await session.scalar(select(Instance)) is None:
            session.add(Instance(id=1, name=name, created_at=now))
        reach("migrate.changing")
    reach("migrate.changed")
    return Upgrade(before, HEAD, backup_file)


async def backup(store: Store, destination: Path) -> None:
    """Copy a SQLite record while it is in use; the copy is whole, readable by its owner only, and never overwrites.

    Raises Ours when it cannot be written, WatcherError for PostgreSQL, which has its own tools.
    """
    if store.sqlite_file is None:
        raise WatcherError("a backup by this command is for SQLite; use pg_dump for PostgreSQL")
    try:
        await asyncio.to_thread(_copy, store.sqlite_file, destination)
    except (OSError, sqlite3.Error) as error:
        raise Ours(
            f"the backup {destination} could not be written: {error}", action="name a new file in a writable folder"
        ) from error


def _copy(source: Path, destination: Path) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{destination.name}.", suffix=".part", dir=destination.parent)
    os.close(handle)
    part = Path(name)
    try:
        old, new = sqlite3.connect(sqlite_uri(source, "ro"), uri=True), sqlite3.connect(part)
        try:
            old.backup(new)
        finally:
            old.close()
            new.close()
        reach("backup.written")
        try:
            destination.hardlink_to(part)  # fails when the name is taken
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            destination.touch(mode=0o600, exist_ok=False)
            part.replace(destination)
        reach("backup.named")
    finally:
        part.unlink(missing_ok=True)


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


def _known_revisions() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


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
