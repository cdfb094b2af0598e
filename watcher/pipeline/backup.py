"""Backup: a SQLite record is copied once a day, and the oldest copies make room. Trouble with it stops nothing else."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import structlog

from watcher.errors import Failure, Ours, Service
from watcher.pipeline.stage import Context
from watcher.store import backups
from watcher.store.conditions import close_condition, find, open_condition
from watcher.store.engine import RecordUnavailable, Session

_log = structlog.get_logger(__name__)
SUBJECT, KIND = "backup", "backup_failed"


class Backup:
    """The stage. Its one unit is the record."""

    name = "backup"
    service: Service | None = None
    width = 1
    finishes_on_stop = False

    def __init__(self, context: Context) -> None:
        self._context = context
        self._keep = context.settings.database.backup_keep
        self._asked = False

    def ask(self) -> None:
        """Let the next turn look whether a copy is due."""
        self._asked = self._context.store.is_sqlite

    async def due(self, session: Session) -> Sequence[int]:  # noqa: ARG002 - the files are looked at
        """Return the unit if it was asked for."""
        return [1] if self._asked else []

    async def step(self, unit: int) -> None:  # noqa: ARG002 - there is one
        """Make the copy of the day if it is due. What goes wrong is said, and tried again when it is asked for."""
        self._asked = False
        record = self._context.store.sqlite_file
        try:
            if self._keep and record is not None:
                await self._copy(record)
        except RecordUnavailable:
            raise
        except (Ours, OSError) as failure:
            await self._say(failure)
        else:
            await self._is_well()

    async def put_off(self, unit: int, failure: Failure) -> None:
        """Nothing: it is looked at again when it is asked for the next time."""

    async def _copy(self, record: Path) -> None:
        store, now = self._context.store, self._context.clock.now()
        directory = backups.directory_of(self._context.settings.database, record)
        made = await asyncio.to_thread(backups.copies, directory, record)
        if not backups.is_due(made, await backups.born_at(store), now):
            return
        copy = await backups.make(store, record, directory, now)
        gone = backups.too_many({**made, copy: now}, self._keep, now)
        for path in gone:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        _log.info("record_backed_up", file=str(copy), removed=[path.name for path in gone])

    async def _is_well(self) -> None:
        async with self._context.store.read() as session:
            if await find(session, SUBJECT, KIND) is None:
                return
        async with self._context.store.write() as session:
            await close_condition(session, SUBJECT, KIND, now=self._context.clock.now())

    async def _say(self, failure: Exception) -> None:
        async with self._context.store.write() as session:
            await open_condition(
                session,
                SUBJECT,
                KIND,
                reason=str(failure),
                action="make room, let the program write there, or set database.backup_directory; `watcher db check` "
                "tells whether the record is sound; it is tried again every hour, and everything else goes on",
                now=self._context.clock.now(),
            )
