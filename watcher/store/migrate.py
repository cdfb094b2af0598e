"""Brings a record up to date, after a backup; refuses one from a newer program, untouched.

Alembic is imported inside: the daemon needs it for a moment and would keep it for months.
"""

import asyncio
import filecmp
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from itertools import count
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
from watcher.store.copying import copy_record, sweep
from watcher.store.engine import Session, Store
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


async def is_current(session: Session) -> bool:
    """Say whether the record has the schema of this program."""
    return bool(await session.scalar(text("SELECT version_num FROM alembic_version")) == HEAD)


async def upgrade(store: Store, *, name: str, now: datetime) -> Upgrade:
    """Bring an empty or older record up to date.

    `name` names a new record at the vendor; an existing one keeps its name. SQLite is copied beside itself first, and
    what killed processes left of copies beside it is removed.
    Raises NewerRecord without touching anything, Ours when the database fails.
    """
    before = await revision(store)
    await refuse_newer(store, before)
    if store.sqlite_file is not None:
        await asyncio.to_thread(sweep, store.sqlite_file)
    if before == HEAD:
        await _sign(store)
        return Upgrade(before, HEAD, None)
    backup_file = None
    if before is not None and store.sqlite_file is not None:
        backup_file = await asyncio.to_thread(_free_name, store.sqlite_file, now)
        await copy_record(store, backup_file)
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


def _free_name(record: Path, now: datetime) -> Path:
    """Name the copy before an upgrade; a start that was killed in this very second may have taken the name."""
    name = f"{record.name}.before-{HEAD}-{now:%Y%m%dT%H%M%S}"
    names = (record.with_name(name if number == 1 else f"{name}.{number}") for number in count(1))
    return next(path for path in names if not path.exists())


def _drop_equal(copy: Path) -> None:
    """Remove earlier copies before the same upgrade that are the same: starts that are killed leave one, not many."""
    named = re.compile(re.escape(copy.name.rpartition("-")[0]) + r"-\d{8}T\d{6}(\.\d+)?")
    with suppress(OSError):  # no reason not to upgrade
        for path in copy.parent.iterdir():
            if path != copy and named.fullmatch(path.name) and filecmp.cmp(path, copy, shallow=False):
                path.unlink()


def _config(connection: Connection | None = None) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_directory()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def is_known(found: str) -> bool:
    """Say whether this program can bring a record of a revision up to date."""
    return found == HEAD or found in _known_revisions()


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
