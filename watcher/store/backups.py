"""Copies of a SQLite record by the day: what they are called, which are there, which are one too many."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from watcher.errors import Ours
from watcher.settings import DatabaseSettings
from watcher.store.copying import copy_record, sweep
from watcher.store.engine import Store
from watcher.store.instance import instance

EVERY = timedelta(days=1)
_TIME = "%Y%m%dT%H%M%SZ"
_NAMED = r"\.\d{8}T\d{6}Z"


def directory_of(settings: DatabaseSettings, record: Path) -> Path:
    """Return the folder of the daily copies of a record."""
    return settings.backup_directory or record.parent / "backups"


def stamp(now: datetime) -> str:
    """Write a moment the way it stands in the name of a copy, in UTC."""
    return now.astimezone(UTC).strftime(_TIME)


def copies(directory: Path, record: Path) -> dict[Path, datetime]:
    """Return the daily copies of a record that are there, with the time of each. Raises OSError."""
    named = re.compile(re.escape(record.name) + _NAMED)
    if not directory.is_dir():
        return {}
    found = [path for path in directory.iterdir() if named.fullmatch(path.name) and not path.is_symlink()]
    return {path: datetime.strptime(path.name.rpartition(".")[2], _TIME).replace(tzinfo=UTC) for path in found}


def is_due(made: dict[Path, datetime], born: datetime, now: datetime) -> bool:
    """Say whether a day has passed since the last copy, or since the record was made.

    A copy from the future was made by a clock that was wrong, and does not count.
    """
    last = max((at for at in made.values() if at <= now), default=born)
    return now - last >= EVERY


def too_many(made: dict[Path, datetime], keep: int, now: datetime) -> list[Path]:
    """Return the copies beyond the newest `keep`; those from the future are the first to go."""
    newest_first = sorted(made, key=lambda path: (made[path] <= now, made[path]), reverse=True)
    return newest_first[keep:]


async def born_at(store: Store) -> datetime:
    """Return when the record was made."""
    async with store.read() as session:
        return (await instance(session)).created_at


async def make(store: Store, record: Path, directory: Path, now: datetime) -> Path:
    """Copy the record into the folder, which is made if it is missing. Raises Ours."""
    try:
        await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)
        await asyncio.to_thread(sweep, directory / record.name)
    except OSError as error:
        raise Ours(f"the folder {directory} cannot be used: {error.strerror}") from error
    destination = directory / f"{record.name}.{stamp(now)}"
    await copy_record(store, destination)
    return destination
