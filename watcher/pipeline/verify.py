"""Verify: an archive is checked against its digest before it is trusted again.

So is what a download that was superseded left on the disk: it counts as stored if it is whole, else `prune` takes it.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from structlog.contextvars import bind_contextvars

from watcher.archives import FILES, digest, point_current
from watcher.errors import Failure, Service
from watcher.pipeline.failures import LONGEST_MACHINE_PAUSE, MACHINE_PAUSE, backoff
from watcher.pipeline.stage import Context
from watcher.store import legs, targets, upload_queues
from watcher.store.engine import Session
from watcher.store.schema import Upload

REVERIFY_AFTER = timedelta(days=7)


class Verify:
    """The stage. A unit is an upload. It asks no service, so that no pause keeps it from its work."""

    name = "verify"
    service: Service | None = None
    width = 1
    finishes_on_stop = False

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings.download

    async def due(self, session: Session) -> Sequence[int]:
        """Return the uploads whose archive is to be verified: current ones, and those that were superseded."""
        if not self._settings.enabled:
            return []
        now = self._context.clock.now()
        return [
            *await upload_queues.due_archives(session, now, "stored"),
            *await upload_queues.due_leftovers(session, now),
        ]

    async def step(self, unit: int) -> None:
        """Trust the stored archive only if its digest agrees; have it fetched again otherwise."""
        async with self._context.store.read() as session:
            upload, target = await targets.upload_with_target(session, unit)
        bind_contextvars(
            target=target.name, target_access_string=target.target_access_string, upload_index=upload.upload_index
        )
        path = self._settings.directory.absolute() / (upload.archive_path or "")
        # Nobody looks for the unpacked files of what was superseded, and its archive can never be had again.
        files = self._settings.extract and not upload_queues.is_left_over(upload, target)
        problem = await self._damage(path, upload.archive_sha256, files=files)
        # Nothing may point at what was superseded meanwhile; nor may a disk that hangs hold a transaction.
        if not problem and await self._counts(unit):
            await asyncio.to_thread(point_current, path.parent.parent, path.parent)
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            stored, target = await targets.upload_with_target(session, unit)
            if (stored.archive_path, stored.archive_sha256) != (upload.archive_path, upload.archive_sha256):
                return  # another archive by now
            if upload_queues.is_left_over(stored, target):
                self._conclude(session, stored, problem, now)
            elif stored.archive_state != "stored" or target.current_upload_id != unit:
                return  # superseded while its digest was taken: nothing may point at what is not kept
            elif problem:
                legs.set_archive_state(session, stored, "wanted", now=now, why=problem)
            else:
                stored.archive_due_at = None
                stored.archive_verified_at = now
                stored.archive_attempts = 0

    def _conclude(self, session: Session, upload: Upload, problem: str, now: datetime) -> None:
        """Take up what a download that was superseded left, or note that it is to be removed."""
        if problem:
            legs.set_archive_state(session, upload, "pruned", now=now, why=f"superseded, and {problem}")
        else:
            legs.set_archive_state(session, upload, "stored", now=now, why="superseded, but complete on the disk")
            upload.archive_verified_at = now

    async def _counts(self, unit: int) -> bool:
        async with self._context.store.read() as session:
            upload, target = await targets.upload_with_target(session, unit)
        return upload.archive_state == "stored" and target.current_upload_id == unit

    async def _damage(self, path: Path, sha256: str | None, *, files: bool) -> str:
        """Look for damage in a thread that ends soon after this task is cancelled."""
        stop = threading.Event()
        try:
            return await asyncio.to_thread(damage, path, sha256, files=files, stop=stop.is_set)
        finally:
            stop.set()

    async def put_off(self, unit: int, failure: Failure) -> None:  # noqa: ARG002 - all lead to the same wait
        """Look again after a while."""
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            upload, _ = await targets.upload_with_target(session, unit)
            upload.archive_attempts += 1
            upload.archive_due_at = now + backoff(
                upload.archive_attempts, self._context.random, first=MACHINE_PAUSE, longest=LONGEST_MACHINE_PAUSE
            )

    async def verify_all(self, *, everything: bool) -> None:
        """Make stored archives due for a check of their digests: all of them, or those not checked for a week.

        What downloads left that were superseded is always due: none of them is under way any more.
        """
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            await upload_queues.verify_stored(session, now, now if everything else now - REVERIFY_AFTER)
            await upload_queues.verify_leftovers(session, now)


def damage(path: Path, sha256: str | None, *, files: bool, stop: Callable[[], bool] = lambda: False) -> str:
    """Say what is wrong with a stored archive; empty when nothing is. Raises Transient when `stop` says so."""
    if not path.is_file():
        return "the stored archive is gone"
    if digest(path, stop=stop) != sha256:
        return "the stored archive does not agree with its digest"
    if files and not (path.parent / FILES).is_dir():
        return "the unpacked files are gone"
    return ""
