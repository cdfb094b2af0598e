"""Scan: reads the uploads of every target and records each change of index or timestamp, in either direction.

The index moves when an upload is recorded, never when it is finished.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

from structlog.contextvars import bound_contextvars

from watcher.errors import Failure, Service
from watcher.fragalysis import TargetUploads
from watcher.pipeline.failures import wait_after
from watcher.pipeline.profile import ask_for_approval, profile_in_force
from watcher.pipeline.stage import Context
from watcher.pipeline.uploads import ask_for_scan, forget_troubles, label_of, leave_alone, rename_troubles, take_up
from watcher.points import reach
from watcher.settings import FragalysisSettings
from watcher.store import claims, legs, targets
from watcher.store.conditions import close_condition, open_condition
from watcher.store.engine import Session
from watcher.store.instance import instance
from watcher.store.schema import Target
from watcher.store.targets import UploadKey
from watcher.store.transitions import note, say_after_commit


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a listing says against the record, for one target."""

    new: tuple[UploadKey, ...]
    """Uploads that the record does not know, oldest first."""
    current: UploadKey | None
    """The upload that counts now."""
    why: str
    """How the current upload came to be it, empty when it was so already."""


def compare(known: Collection[UploadKey], current: UploadKey | None, remote: TargetUploads) -> Comparison:
    """Compare a target's listing with the record: a pure function.

    The newest upload by commit time counts, unless it is marked as failed; its index may be lower than before, and
    the same index may come back with another time. Whether it is marked as loaded does not matter: the server leaves
    finished uploads at `LOADING` forever (capture `target_experiment_uploads_target2`).
    """
    listed = [(upload.upload_index, upload.committed_at) for upload in remote.uploads if not upload.failed]
    newest = max(listed, key=lambda key: (key[1], key[0]), default=None)
    new = sorted({key for key in listed if key not in known}, key=lambda key: (key[1], key[0]))
    return Comparison(tuple(new), newest, _why(current, newest, is_first=not known))


def _why(current: UploadKey | None, newest: UploadKey | None, *, is_first: bool) -> str:
    if newest == current:
        return ""
    if newest is None:
        return "no upload is listed any more"
    if current is None:
        return "first upload seen" if is_first else "an upload is listed again"
    if newest[0] == current[0]:
        return "the same index came with another time"
    return "the index went up" if newest[0] > current[0] else "the index went down"


def is_followed(settings: FragalysisSettings, name: str, tas: str) -> bool:
    """Say whether the settings ask for a target: a glob matches its NAME or NAME@TAS, and none excludes it."""

    def matches(patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(name, pattern) or fnmatchcase(f"{name}@{tas}", pattern) for pattern in patterns)

    return matches(settings.targets) and not matches(settings.exclude)


class Scan:
    """The stage. Its only unit is the whole stack."""

    name = "scan"
    service: Service | None = "fragalysis"
    width = 1
    finishes_on_stop = False

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings.fragalysis
        self.has_told = False
        """Whether a scan since the start has told which targets are public."""

    async def request(self) -> None:
        """Ask for a scan as soon as may be."""
        async with self._context.store.write() as session:
            await ask_for_scan(session, self._context.clock.now())

    async def due(self, session: Session) -> Sequence[int]:
        """Return the one unit when a scan is due."""
        due_at = (await instance(session)).scan_due_at
        return [0] if due_at is not None and due_at <= self._context.clock.now() else []

    async def step(self, unit: int) -> None:  # noqa: ARG002 - there is one unit only
        """Read the listing and record what changed, in one transaction."""
        listing = await self._context.fragalysis.target_uploads()
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            own = await instance(session)
            own.scan_no += 1
            changed = await self._record(session, listing, own.scan_no, now)
            own.last_scan_at = now
            own.scan_due_at = None
            own.scan_attempts = 0
            profile = await profile_in_force(session, self._context)
            await claims.review(session, profile, self._context.policy, now=now)
            await ask_for_approval(session, profile, now)
            say_after_commit(session, "scan_finished", targets=len(listing), changed=changed, scan_no=own.scan_no)
            reach("scan.recording")
        self.has_told = True
        reach("scan.recorded")

    async def put_off(self, unit: int, failure: Failure) -> None:  # noqa: ARG002 - there is one unit only
        """Scan again after a while."""
        async with self._context.store.write() as session:
            own = await instance(session)
            own.scan_attempts += 1
            wait = wait_after(failure, own.scan_attempts, self._context.random)
            own.scan_due_at = self._context.clock.now() + wait

    async def _record(self, session: Session, listing: Mapping[int, TargetUploads], scan_no: int, now: datetime) -> int:
        stack = self._settings.url
        recorded = await targets.of_stack(session, stack)
        changed = 0
        for remote_id, remote in sorted(listing.items()):
            name, tas = remote.target.name, remote.target.target_access_string
            followed = is_followed(self._settings, name, tas)
            target = recorded.get(remote_id)
            if target is None and not followed:
                continue
            with bound_contextvars(target=name, target_access_string=tas):
                first_seen = target is None
                if target is None:
                    target = await targets.add_target(
                        session,
                        stack=stack,
                        remote_id=remote_id,
                        name=name,
                        tas=tas,
                        open_to_public=remote.target.open_to_public,
                        now=now,
                    )
                await self._update(session, target, remote, followed=followed, now=now)
                if followed:
                    changed += await self._move(session, target, remote, scan_no, first_seen=first_seen, now=now)
        there = {(one.target.name, one.target.target_access_string) for one in listing.values()}
        for remote_id, target in recorded.items():
            if target.followed and remote_id not in listing:
                if is_followed(self._settings, target.name, target.target_access_string):
                    made_anew = (target.name, target.target_access_string) in there
                    await self._vanished(session, target, now, told=not made_anew)
                else:
                    await self._follow(session, target, False, now=now)
        return changed

    async def _update(
        self, session: Session, target: Target, remote: TargetUploads, *, followed: bool, now: datetime
    ) -> None:
        """Follow what may change about a target: name, access string, openness, whether we follow it."""
        old_label = label_of(target)
        for field, new in (
            ("name", remote.target.name),
            ("target_access_string", remote.target.target_access_string),
            ("open_to_public", remote.target.open_to_public),
            ("listed", True),
        ):
            old = getattr(target, field)
            if old != new:
                note(session, "target", target.id, field, old, new, at=now, why="the listing says so")
                setattr(target, field, new)
        if label_of(target) != old_label:
            await rename_troubles(session, old_label, label_of(target), now)
        await close_condition(session, f"target {label_of(target)}", "vanished", now=now)
        await self._follow(session, target, followed, now=now)

    async def _follow(self, session: Session, target: Target, followed: bool, *, now: datetime) -> None:
        """Follow a target, or leave it alone."""
        if target.followed == followed:
            return
        if not followed:
            await leave_alone(session, target, now=now, why="the settings say so")
            return
        note(session, "target", target.id, "followed", False, True, at=now, why="the settings say so")
        target.followed = True
        if target.current_upload_id is not None:
            upload, _ = await targets.upload_with_target(session, target.current_upload_id)
            await take_up(session, self._context, upload, now=now, why="followed again")

    async def _move(
        self,
        session: Session,
        target: Target,
        remote: TargetUploads,
        scan_no: int,
        *,
        first_seen: bool,
        now: datetime,
    ) -> int:
        known = await targets.uploads_of(session, target.id)
        current = next((key for key, upload in known.items() if upload.id == target.current_upload_id), None)
        comparison = compare(known, current, remote)
        for key in comparison.new:
            known[key] = await targets.add_upload(session, target, key, scan_no=scan_no, now=now)
        target.remote_index = comparison.current[0] if comparison.current else None
        upload = known[comparison.current] if comparison.current else None
        if comparison.why:
            if current is not None:
                await forget_troubles(session, target, known[current], now)
            await legs.make_current(
                session,
                target,
                upload,
                keep_archive=self._context.settings.download.enabled,
                now=now,
                why=comparison.why,
            )
            if first_seen and upload is not None and self._settings.first_seen == "baseline":
                target.baseline_upload_id = upload.id
        if upload is not None and upload.scoring_state == "scored":
            target.last_success_at = now
        return bool(comparison.why)

    async def _vanished(self, session: Session, target: Target, now: datetime, *, told: bool) -> None:
        """Keep everything of a target that is not listed any more, and let a person know.

        Unless it was created again at the server, under another id: to people it is there.
        """
        if target.listed:
            note(session, "target", target.id, "listed", True, False, at=now, why="the listing left it out")
            target.listed = False
            # It may have vanished because its project turned private, so it does not count as public any more.
            target.open_to_public = None
        if not told:
            return
        await open_condition(
            session,
            f"target {label_of(target)}",
            "vanished",
            reason="Fragalysis does not list this target any more; nothing recorded of it is touched",
            action="sign in again and renew fragalysis.token if it is private and should be visible; "
            "else nothing, or leave it out with fragalysis.exclude",
            now=now,
        )
