"""Prune: archives that newer ones have superseded, and rows of the history that are old, are let go of.

An archive is first noted as pruned, then set aside, then removed, then noted as removed; a crash in between is taken up
from there. Setting aside happens within a transaction, so that its upload cannot be made current at that moment.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import structlog
from structlog.contextvars import bind_contextvars

from watcher.archives import FILES, removal
from watcher.errors import Failure, Invalid, Service
from watcher.pipeline.stage import Context
from watcher.points import reach
from watcher.settings import Settings
from watcher.store import retention
from watcher.store.engine import Session, Store
from watcher.store.retention import Superseded
from watcher.store.transitions import PROGRAM

_log = structlog.get_logger(__name__)
HISTORY = 0
"""The unit that stands for the old rows; ids of uploads begin at 1."""


class Prune:
    """The stage. A unit is an upload, or HISTORY. Each is looked at once when it is asked for."""

    name = "prune"
    service: Service | None = None
    width = 1
    finishes_on_stop = False

    def __init__(self, context: Context) -> None:
        self._context = context
        self._asked = False
        self._left: dict[int, Superseded | None] = {}

    def ask(self) -> None:
        """Let the next turn look for what is to be let go of."""
        self._asked = True

    async def due(self, session: Session) -> Sequence[int]:
        """Return what is left to do of what was found when it was asked for."""
        if self._asked:
            found = await superseded(session, self._context.settings)
            self._left = {HISTORY: None, **{one.upload_id: one for one in found}}
            self._asked = False
        return list(self._left)

    async def step(self, unit: int) -> None:
        """Remove one archive, or all old rows."""
        store, settings, now = self._context.store, self._context.settings, self._context.clock.now()
        if unit == HISTORY:
            gone = await forget_history(store, settings, now)
            if any(gone.values()):
                _log.info("history_forgotten", **gone)
        elif archive := self._left.get(unit):
            bind_contextvars(
                target=archive.target,
                target_access_string=archive.target_access_string,
                upload_index=archive.upload_index,
            )
            await remove(store, settings, archive, now=now)
        self._left.pop(unit, None)

    async def put_off(self, unit: int, failure: Failure) -> None:
        """Leave what is no place of ours until it is asked for again; after trouble with the disk it is still due."""
        if isinstance(failure, Invalid):
            self._left.pop(unit, None)


async def superseded(session: Session, settings: Settings) -> list[Superseded]:
    """Return the archives that are not to be kept, the oldest first."""
    if not settings.download.enabled:
        return []
    return await retention.superseded(session, settings.download.keep_uploads)


async def remove(store: Store, settings: Settings, archive: Superseded, *, now: datetime, who: str = PROGRAM) -> bool:
    """Remove one archive with its unpacked files; returns False when it is used again, or `current` points at it.

    Raises Invalid when it is not where archives are, Ours when it cannot be removed.
    """
    file, files = await asyncio.to_thread(places, settings, archive)
    folder = files.parent
    why = f"download.keep_uploads is {settings.download.keep_uploads}"
    async with store.write() as session:
        if await asyncio.to_thread(removal.is_pointed_at, folder):
            return False
        if not await retention.begin_removal(session, archive.upload_id, now=now, why=why, who=who):
            return False
    reach("prune.intended")
    async with store.write() as session:
        if not await retention.is_to_be_removed(session, archive.upload_id):
            return False
        await asyncio.to_thread(removal.set_aside, file, files)
    reach("prune.set-aside")
    await asyncio.to_thread(removal.remove_set_aside, folder)
    reach("prune.removed")
    async with store.write() as session:
        if await retention.end_removal(session, archive.upload_id):
            await asyncio.to_thread(removal.remove_empty, folder)
    return True


def places(settings: Settings, archive: Superseded) -> tuple[Path, Path]:
    """Return where an archive and its unpacked files are. Raises Invalid when that is no place of an archive."""
    root = settings.download.directory.absolute()
    folder = removal.folder_of(root, archive.path)
    return root / archive.path, folder / FILES


async def forget_history(store: Store, settings: Settings, now: datetime) -> dict[str, int]:
    """Delete rows of the history that are older than the settings keep, a few at a time; returns how many."""
    keep = settings.database.keep_transitions
    async with store.read() as session:
        old = await retention.count_history(session, now - keep) if keep else {}
    gone = dict.fromkeys(old, 0)
    while gone != old:
        async with store.write() as session:
            deleted = await retention.forget_history(session, now - keep)
        if not any(deleted.values()):
            break
        gone = {name: gone[name] + number for name, number in deleted.items()}
    return gone
