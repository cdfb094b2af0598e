"""Download: the archive of each current upload on the disk, whole, checked, unpacked, with `current` pointing at it.

The build at the server is remembered, so that a restart waits for it rather than asking for another.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from shutil import rmtree

import structlog
from structlog.contextvars import bind_contextvars

from watcher.archives import (
    FILES,
    NotAnArchive,
    Undecodable,
    archive_name,
    part_of,
    point_current,
    receive,
    removal,
    rename,
    target_directory,
    unpack,
    upload_directory,
)
from watcher.errors import AuthFailure, Failure, Invalid, Ours, Service, Transient
from watcher.fragalysis import BuildTask, CannotBuild, FileLink, LinkExpired, NoObservations, NotAMember
from watcher.pipeline.failures import (
    AFTER_SCAN,
    BUILDS_BEFORE_UNAVAILABLE,
    LONGEST_DISK_WAIT,
    LONGEST_WAIT,
    MACHINE_PAUSE,
    SLOW_WAIT,
    UNDECODABLE_BEFORE_QUARANTINE,
    backoff,
    believed,
    wait_after,
)
from watcher.pipeline.stage import Context, Deferred
from watcher.pipeline.uploads import (
    ask_for_scan,
    ask_whether_let_in,
    forget_archive_troubles,
    is_still_current,
    subject_of,
)
from watcher.points import reach
from watcher.store import legs, targets, upload_queues
from watcher.store.conditions import close_condition, open_condition
from watcher.store.engine import Session
from watcher.store.schema import Target, Upload
from watcher.store.states import TO_FETCH

_log = structlog.get_logger(__name__)
_CANNOT_BUILD = "it cannot be built: "
"""Begins the error of a leg whose last failure was a build; other failures in between restart the count."""


class Download:
    """The stage. A unit is an upload."""

    name = "download"
    service: Service | None = "fragalysis"
    finishes_on_stop = False

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings.download
        self.width = context.settings.fragalysis.max_concurrent_downloads

    async def due(self, session: Session) -> Sequence[int]:
        """Return the current uploads whose archive is to be fetched."""
        if not self._settings.enabled:
            return []
        return await upload_queues.due_archives(session, self._context.clock.now(), *TO_FETCH)

    async def passed_over(self, units: Sequence[int]) -> list[int]:
        """Return those of the uploads that do not count any more."""
        async with self._context.store.read() as session:
            counting = await targets.counting(session, units)
        return [unit for unit in units if unit not in counting]

    async def step(self, unit: int) -> None:
        """Fetch, check, unpack and store the archive."""
        async with self._context.store.read() as session:
            upload, target = await targets.upload_with_target(session, unit)
            if upload.archive_state not in TO_FETCH or target.current_upload_id != unit or not target.followed:
                return  # superseded since: no build is asked for
            folder = await self._folder(session, target, upload)
        bind_contextvars(
            target=target.name, target_access_string=target.target_access_string, upload_index=upload.upload_index
        )
        resume = self._task_of(upload)
        asked_at = resume.requested_at if resume else self._context.clock.now()
        try:
            link = await self._context.fragalysis.download_target(
                target.name,
                target.target_access_string,
                self._settings,
                resume=resume,
                on_task=lambda task: self._remember(unit, task),
            )
        except Invalid as failure:
            if (current := await is_still_current(self._context, target, upload)) is not True:
                await self._look_again(unit, listed=current is not None)
                return
            raise believed(failure, tries=upload.archive_attempts, before=upload.archive_error) from None
        if (current := await is_still_current(self._context, target, upload)) is not True:
            await self._look_again(unit, listed=current is not None)
            return
        try:
            await self._fetch(link, target, upload, folder, asked_at)
        except Transient as failure:
            if resume is not None and isinstance(failure, LinkExpired):  # no outage: nothing could be fetched for long
                await self._look_again(unit, listed=True)
                raise Deferred from None
            await self._remember(unit, None)  # the link may have expired: another build gives another one
            raise

    async def put_off(self, unit: int, failure: Failure) -> None:
        """Decide about the archive leg; scoring goes on whatever happens here."""
        now, random = self._context.clock.now(), self._context.random
        async with self._context.store.write() as session:
            upload, target = await targets.upload_with_target(session, unit)
            if target.current_upload_id != upload.id or upload.archive_state not in TO_FETCH:
                return
            earlier, upload.archive_error = upload.archive_error or "", failure.message
            upload.archive_attempts += 1
            if isinstance(failure, NoObservations):
                legs.set_archive_state(session, upload, "skipped", now=now, why="the target has no observations yet")
                await forget_archive_troubles(session, target, upload, now)
            elif isinstance(failure, Undecodable):
                upload.archive_task = upload.archive_task_at = None
                upload.archive_undecodable += 1
                if upload.archive_undecodable >= UNDECODABLE_BEFORE_QUARANTINE:
                    await self._quarantine(session, target, upload, failure, now)
                else:
                    upload.archive_due_at = now + backoff(1, random)
            elif isinstance(failure, Invalid):
                await self._quarantine(session, target, upload, failure, now)
            elif isinstance(failure, CannotBuild | NotAMember | NotAnArchive):
                upload.archive_task = upload.archive_task_at = None
                if not earlier.startswith(_CANNOT_BUILD):
                    upload.archive_attempts = 1
                upload.archive_error = _CANNOT_BUILD + failure.message
                await self._cannot_build(session, target, upload, failure, now)
            elif isinstance(failure, Ours):
                # Longer than the pause of the stage, so that an archive that does not fit lets smaller ones go first;
                # and ever longer, for what came over the network may have to come again.
                wait = backoff(upload.archive_attempts, random, first=2 * MACHINE_PAUSE, longest=LONGEST_DISK_WAIT)
                upload.archive_due_at = now + wait
            else:
                upload.archive_due_at = now + wait_after(failure, upload.archive_attempts, random)
                if isinstance(failure, AuthFailure):
                    await ask_whether_let_in(session, now)

    async def _cannot_build(
        self, session: Session, target: Target, upload: Upload, failure: Failure, now: datetime
    ) -> None:
        if upload.archive_attempts < BUILDS_BEFORE_UNAVAILABLE and upload.archive_state == "wanted":
            upload.archive_due_at = now + wait_after(failure, upload.archive_attempts, self._context.random)
            return
        due_at = now + backoff(1, self._context.random, first=SLOW_WAIT, longest=SLOW_WAIT)
        if upload.archive_state != "unavailable":
            legs.set_archive_state(
                session,
                upload,
                "unavailable",
                now=now,
                due_at=due_at,
                error=upload.archive_error,
                why=failure.message,
            )
        upload.archive_due_at = due_at
        await open_condition(
            session,
            subject_of(target, upload),
            "archive_unavailable",
            reason=failure.message,
            action=failure.action
            or "nothing: scoring goes on and the archive is tried again every few hours; "
            "`watcher retry` tries at once, the Fragalysis team can tell why it cannot be built",
            now=now,
        )

    async def _quarantine(
        self, session: Session, target: Target, upload: Upload, failure: Failure, now: datetime
    ) -> None:
        legs.set_archive_state(session, upload, "quarantined", now=now, error=failure.message, why=failure.message)
        await close_condition(session, subject_of(target, upload), "archive_unavailable", now=now)
        await open_condition(
            session,
            subject_of(target, upload),
            "archive_quarantined",
            reason=failure.message,
            action=failure.action or "look at the reason, change [download] if it is a limit, then `watcher retry`",
            now=now,
        )

    async def _look_again(self, unit: int, *, listed: bool) -> None:
        """Let a scan say what the server holds now: what it would give us is no archive of this upload."""
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            upload, _ = await targets.upload_with_target(session, unit)
            upload.archive_task = upload.archive_task_at = None
            upload.archive_due_at = now + (AFTER_SCAN if listed else LONGEST_WAIT)
            await ask_for_scan(session, now)

    async def _folder(self, session: Session, target: Target, upload: Upload) -> Path:
        """Return where the upload lies; no two uploads share a folder, whatever their names and indexes.

        What lies on the disk already keeps its place. The folder of a name belongs to the target whose archives lie
        there, also when it bears another name now; else to the first target of that name.
        """
        directory = self._settings.directory.absolute()
        if upload.archive_path is not None:
            return (directory / upload.archive_path).parent
        tas, remote_id = target.target_access_string, target.remote_id
        root = target_directory(directory, tas, target.name, remote_id)
        owners = await targets.with_archives_in(session, str(root.relative_to(directory)))
        twins = await targets.find_by_name(session, target.name, tas)
        if min(owners, default=twins[0].id) != target.id:
            root = target_directory(directory, tas, f"{target.name}~{remote_id}", remote_id)
        others = await targets.uploads_of(session, target.id)
        reused = any(one.upload_index == upload.upload_index and one.id < upload.id for one in others.values())
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
        reach("download.task-remembered")

    async def _fetch(self, link: FileLink, target: Target, upload: Upload, folder: Path, asked_at: datetime) -> None:
        making = part_of(folder / "archive")  # a good one stays in its place until this one has proved good too
        try:
            part, limit = making / archive_name(folder.parent, link.format), self._settings.max_archive_size
            async with self._in_time(), self._context.fragalysis.fetch(link) as (length, chunks):
                received = await receive(chunks, part, expected_length=length, max_size=limit)
            # The bytes decide about the name, whatever the label.
            path = folder / archive_name(folder.parent, received.format)
            # A good one of another format keeps its line in the record until this one has proved good too.
            announced = await self._announce(upload.id, path, beside_another=False)
            if self._settings.extract:
                await self._unpack(part, folder / FILES)
            if not announced:
                await self._announce(upload.id, path)
            await asyncio.to_thread(rename, part, path)
        finally:
            await asyncio.to_thread(rmtree, making, ignore_errors=True)
        await asyncio.to_thread(removal.remove_other_formats, path)
        is_pointed = True
        if not await self.passed_over([upload.id]):
            try:
                await asyncio.to_thread(point_current, folder.parent, folder)
            except Ours:  # the archive is whole; `verify` points at it, and says what stands in the way
                is_pointed = False
        reach("download.pointed")
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            # Also of an upload that was superseded meanwhile: it is whole, and can never be had again.
            stored, target = await targets.upload_with_target(session, upload.id)  # it may bear another name by now
            if stored.archive_state == "pruned":
                return  # what lay there was let go of
            legs.set_archive_state(session, stored, "stored", now=now, why="downloaded, checked and unpacked")
            stored.archive_path = self._relative(path)
            stored.archive_sha256 = received.sha256
            stored.archive_size = received.size
            stored.archive_verified_at = now
            stored.archive_due_at = None if is_pointed else now
            await forget_archive_troubles(session, target, upload, now)
            if target.current_upload_id == stored.id and await targets.has_late_rows(session, stored, since=asked_at):
                legs.set_archive_state(session, stored, "wanted", now=now, why="observations appeared meanwhile")
        reach("download.recorded")

    async def _announce(self, upload_id: int, path: Path, *, beside_another: bool = True) -> bool:
        """Let the record know of an archive before it has its name; returns whether it does.

        What lies there without its digest is not trusted; the digest of an earlier one speaks against the new one too.
        """
        async with self._context.store.write() as session:
            upload, _ = await targets.upload_with_target(session, upload_id)
            if upload.archive_path is None or (beside_another and upload.archive_path != self._relative(path)):
                upload.archive_path = self._relative(path)
                upload.archive_sha256 = upload.archive_size = None
            return upload.archive_path == self._relative(path)

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self._settings.directory.absolute()))

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Give up a file that trickles: it must not hold the only place forever."""
        longest = self._context.settings.fragalysis.build_timeout
        try:
            async with asyncio.timeout(longest.total_seconds()):
                yield
        except TimeoutError:
            raise Transient(f"an archive was not here after {longest}; it is asked for again") from None

    async def _unpack(self, archive: Path, destination: Path) -> None:
        """Unpack in a thread that ends soon after this task is cancelled."""
        stop = threading.Event()
        try:
            unpacked = await asyncio.to_thread(
                unpack,
                archive,
                destination,
                max_unpacked_size=self._settings.max_unpacked_size,
                max_members=self._settings.max_members,
                stop=stop.is_set,
            )
        finally:
            stop.set()
        if unpacked.replaced:
            _log.info("archive_members_replaced", folder=str(destination), members=unpacked.replaced)
