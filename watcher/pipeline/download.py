"""Download: the archive of each current upload on the disk, whole, checked, unpacked, with `current` pointing at it.

The build at the server is remembered, so that a restart waits for it rather than asking for another. What is stored is
checked against its digest before it is trusted again.
"""

import asyncio
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession
from structlog.contextvars import bind_contextvars

from watcher.archives import (
    Undecodable,
    archive_name,
    digest,
    point_current,
    receive,
    target_directory,
    unpack,
    upload_directory,
)
from watcher.errors import Failure, Invalid, Ours, Service, Transient
from watcher.fragalysis import BuildTask, CannotBuild, FileLink, NoObservations, NotAMember
from watcher.pipeline.failures import (
    BUILDS_BEFORE_UNAVAILABLE,
    LONGEST_MACHINE_PAUSE,
    MACHINE_PAUSE,
    SLOW_WAIT,
    UNDECODABLE_BEFORE_QUARANTINE,
    backoff,
    wait_after,
)
from watcher.pipeline.stage import Context
from watcher.store import targets
from watcher.store.conditions import close_condition, open_condition
from watcher.store.schema import Target, Upload

FILES = "files"
"""Folder of the unpacked files, beside the archive."""
REVERIFY_AFTER = timedelta(days=7)


def subject_of(target: Target, upload: Upload) -> str:
    """Name an upload the way people do."""
    return f"{target.name}@{target.target_access_string} upload {upload.upload_index}"


class Download:
    """The stage. A unit is an upload."""

    name = "download"
    service: Service | None = "fragalysis"
    finishes_on_stop = False

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings.download
        self.width = context.settings.fragalysis.max_concurrent_downloads

    async def due(self) -> Sequence[int]:
        """Return the current uploads whose archive is wanted, or is to be verified."""
        if not self._settings.enabled:
            return []
        async with self._context.store.read() as session:
            return await targets.due_archives(session, self._context.clock.now())

    async def step(self, unit: int) -> None:
        """Fetch, check, unpack and store the archive; or verify the stored one."""
        async with self._context.store.read() as session:
            upload, target = await targets.upload_with_target(session, unit)
            folder = await self._folder(session, target, upload)
        bind_contextvars(
            target=target.name, target_access_string=target.target_access_string, upload_index=upload.upload_index
        )
        if upload.archive_state == "stored":
            await self._verify(upload)
            return
        link = await self._context.fragalysis.download_target(
            target.name,
            target.target_access_string,
            self._settings,
            resume=self._task_of(upload),
            on_task=lambda task: self._remember(unit, task),
        )
        try:
            await self._fetch(link, target, upload, folder)
        except Transient:
            await self._remember(unit, None)  # the link may have expired: another build gives another one
            raise

    async def put_off(self, unit: int, failure: Failure) -> None:
        """Decide about the archive leg; scoring goes on whatever happens here."""
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            upload, target = await targets.upload_with_target(session, unit)
            if target.current_upload_id != upload.id:
                return
            upload.archive_attempts += 1
            upload.archive_error = failure.message
            if isinstance(failure, NoObservations):
                targets.set_archive_state(session, upload, "skipped", now=now, why="the target has no observations yet")
            elif isinstance(failure, Undecodable):
                upload.archive_task = upload.archive_task_at = None
                upload.archive_undecodable += 1
                if upload.archive_undecodable >= UNDECODABLE_BEFORE_QUARANTINE:
                    await self._quarantine(session, target, upload, failure, now)
                else:
                    upload.archive_due_at = now + backoff(1, self._context.random)
            elif isinstance(failure, Invalid):
                await self._quarantine(session, target, upload, failure, now)
            elif isinstance(failure, CannotBuild | NotAMember):
                upload.archive_task = upload.archive_task_at = None
                await self._cannot_build(session, target, upload, failure, now)
            elif isinstance(failure, Ours):
                wait = backoff(
                    upload.archive_attempts, self._context.random, first=MACHINE_PAUSE, longest=LONGEST_MACHINE_PAUSE
                )
                upload.archive_due_at = now + wait
            else:
                upload.archive_due_at = now + wait_after(failure, upload.archive_attempts, self._context.random)

    async def verify_all(self, *, everything: bool) -> None:
        """Make stored archives due for a check of their digests: all of them, or those not checked for a week."""
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            await targets.verify_stored(session, now, now if everything else now - REVERIFY_AFTER)

    async def _cannot_build(
        self, session: AsyncSession, target: Target, upload: Upload, failure: Failure, now: datetime
    ) -> None:
        if upload.archive_attempts < BUILDS_BEFORE_UNAVAILABLE and upload.archive_state == "wanted":
            upload.archive_due_at = now + wait_after(failure, upload.archive_attempts, self._context.random)
            return
        due_at = now + backoff(1, self._context.random, first=SLOW_WAIT, longest=SLOW_WAIT)
        if upload.archive_state != "unavailable":
            targets.set_archive_state(
                session, upload, "unavailable", now=now, due_at=due_at, error=failure.message, why=failure.message
            )
        upload.archive_due_at = due_at
        await open_condition(
            session,
            subject_of(target, upload),
            "archive_unavailable",
            reason=failure.message,
            action="nothing: scoring goes on and the archive is tried again every few hours; "
            "`watcher retry` tries at once, the Fragalysis team can tell why it cannot be built",
            now=now,
        )

    async def _quarantine(
        self, session: AsyncSession, target: Target, upload: Upload, failure: Failure, now: datetime
    ) -> None:
        targets.set_archive_state(session, upload, "quarantined", now=now, error=failure.message, why=failure.message)
        await open_condition(
            session,
            subject_of(target, upload),
            "archive_quarantined",
            reason=failure.message,
            action=failure.action or "look at the reason, change [download] if it is a limit, then `watcher retry`",
            now=now,
        )

    async def _folder(self, session: AsyncSession, target: Target, upload: Upload) -> Path:
        """Return where the upload lies; no two uploads share a folder, whatever their names and indexes."""
        twins = await targets.find_by_name(session, target.name, target.target_access_string)
        name = target.name if twins[0].id == target.id else f"{target.name}~{target.remote_id}"
        root = target_directory(
            self._settings.directory.absolute(), target.target_access_string, name, target.remote_id
        )
        others = await targets.uploads_of(session, target.id)
        reused = any(
            index == upload.upload_index and committed_at < upload.committed_at for index, committed_at in others
        )
        return upload_directory(root, upload.upload_index, upload.committed_at, reused=reused)

    def _task_of(self, upload: Upload) -> BuildTask | None:
        if upload.archive_task is None or upload.archive_task_at is None:
            return None
        return BuildTask(upload.archive_task, upload.archive_task_at)

    async def _remember(self, upload_id: int, task: BuildTask | None) -> None:
        async with self._context.store.write() as session:
            upload, _ = await targets.upload_with_target(session, upload_id)
            upload.archive_task = task.path if task else None
            upload.archive_task_at = task.requested_at if task else None

    async def _fetch(self, link: FileLink, target: Target, upload: Upload, folder: Path) -> None:
        path = folder / archive_name(folder.parent, link.format)
        async with self._context.fragalysis.fetch(link) as (length, chunks):
            received = await receive(chunks, path, expected_length=length, max_size=self._settings.max_archive_size)
        if received.format != link.format:  # the bytes decide, whatever the label
            path = path.replace(folder / archive_name(folder.parent, received.format))
        if self._settings.extract:
            await self._unpack(path, folder / FILES)
        await asyncio.to_thread(point_current, folder.parent, folder)
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            stored, _ = await targets.upload_with_target(session, upload.id)
            if stored.archive_state not in ("wanted", "unavailable"):
                return  # passed over meanwhile
            targets.set_archive_state(session, stored, "stored", now=now, why="downloaded, checked and unpacked")
            stored.archive_path = str(path.relative_to(self._settings.directory.absolute()))
            stored.archive_sha256 = received.sha256
            stored.archive_size = received.size
            stored.archive_verified_at = now
            await close_condition(
                session, subject_of(target, upload), "archive_unavailable", "archive_quarantined", now=now
            )

    async def _unpack(self, archive: Path, destination: Path) -> None:
        """Unpack in a thread that ends soon after this task is cancelled."""
        stop = threading.Event()
        try:
            await asyncio.to_thread(
                unpack,
                archive,
                destination,
                max_unpacked_size=self._settings.max_unpacked_size,
                max_members=self._settings.max_members,
                stop=stop.is_set,
            )
        finally:
            stop.set()

    async def _verify(self, upload: Upload) -> None:
        """Trust the stored archive only if its digest agrees; fetch it again otherwise."""
        path = self._settings.directory.absolute() / (upload.archive_path or "")
        problem = await asyncio.to_thread(_damage, path, upload.archive_sha256, files=self._settings.extract)
        if not problem:
            await asyncio.to_thread(point_current, path.parent.parent, path.parent)
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            stored, _ = await targets.upload_with_target(session, upload.id)
            if problem:
                targets.set_archive_state(session, stored, "wanted", now=now, why=problem)
            else:
                stored.archive_due_at = None
                stored.archive_verified_at = now
                stored.archive_attempts = 0


def _damage(path: Path, sha256: str | None, *, files: bool) -> str:
    """Say what is wrong with a stored archive; empty when nothing is."""
    if not path.is_file():
        return "the stored archive is gone"
    if digest(path) != sha256:
        return "the stored archive does not agree with its digest"
    if files and not (path.parent / FILES).is_dir():
        return "the unpacked files are gone"
    return ""
