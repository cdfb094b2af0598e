"""What several stages say and ask of an upload: its name for people, its conditions, whether it still counts."""

import hashlib
from datetime import datetime

from watcher.errors import Invalid, Transient
from watcher.pipeline.failures import LONGEST_SERVICE_PAUSE
from watcher.pipeline.stage import Context
from watcher.store import compounds, legs, outbox, targets, upload_queues
from watcher.store.conditions import all_open, close_condition, find
from watcher.store.engine import Session
from watcher.store.instance import instance
from watcher.store.schema import Target, Upload
from watcher.store.transitions import note, say_after_commit

_LONGEST_NAME = 100
_OF_ARCHIVES = ("archive_unavailable", "archive_quarantined")
_KINDS = (*_OF_ARCHIVES, "scoring_quarantined")


def label_of(target: Target) -> str:
    """Name a target the way people do; what no person would name is cut, for an index cannot hold it (PostgreSQL)."""
    return f"{_short(target.name)}@{_short(target.target_access_string)}"


def _short(name: str) -> str:
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"


def subject_of(target: Target, upload: Upload) -> str:
    """Name an upload the way people do."""
    return f"{label_of(target)} upload {upload.upload_index}"


async def forget_troubles(session: Session, target: Target, upload: Upload, now: datetime) -> None:
    """Close what was open about an upload that does not count any more: nobody can do anything about it."""
    await close_condition(session, subject_of(target, upload), *_KINDS, now=now)


async def forget_archive_troubles(session: Session, target: Target, upload: Upload, now: datetime) -> None:
    """Close what was open about an archive that there is, or that nobody asks for."""
    await close_condition(session, subject_of(target, upload), *_OF_ARCHIVES, now=now)


async def leave_alone(session: Session, target: Target, *, now: datetime, why: str) -> None:
    """Stop following a target, and close what is open about it and its current upload."""
    note(session, "target", target.id, "followed", True, False, at=now, why=why)
    target.followed = False
    await close_condition(session, f"target {label_of(target)}", "vanished", now=now)
    if target.current_upload_id is not None:
        upload, _ = await targets.upload_with_target(session, target.current_upload_id)
        await forget_troubles(session, target, upload, now)


async def rename_troubles(session: Session, old: str, new: str, now: datetime) -> None:
    """Let what is open about a target and its uploads follow the target to its new name."""
    for condition in await all_open(session):
        subject = condition.subject
        if subject == f"target {old}":
            renamed = f"target {new}"
        elif subject.startswith(f"{old} upload "):
            renamed = new + subject.removeprefix(old)
        else:
            continue
        if await find(session, renamed, condition.kind) is None:
            condition.subject = renamed
        else:
            condition.until = now  # another target of that name has the same trouble
            await outbox.forget(session, condition)
    await session.flush()


async def ask_for_scan(session: Session, now: datetime) -> None:
    """Let the next scan come at once."""
    (await instance(session)).scan_due_at = now


async def ask_whether_let_in(session: Session, now: datetime) -> None:
    """Let a scan say whether a refusal is the service's or this one target's, where scans are rare."""
    record = await instance(session)
    is_recent = record.last_scan_at is not None and now - record.last_scan_at < LONGEST_SERVICE_PAUSE
    if record.scan_due_at is None and not is_recent:
        record.scan_due_at = now


async def is_still_current(context: Context, target: Target, upload: Upload) -> bool | None:
    """Ask the server whether this upload is what it holds of the target now; None when it does not list the target.

    Archives and observations are those of the newest upload whatever was asked for, so what came may be of another.
    Nor does a target count as it did whose openness is another now: what came must not be sold as public before a scan
    has recorded it. A listing that cannot be read raises Transient: it is no fault of this upload.
    """
    try:
        listing = await context.fragalysis.target_uploads()
    except Invalid as failure:
        raise Transient(failure.message, action=failure.action) from None
    remote = listing.get(target.remote_id)
    if remote is None:
        return None
    newest = remote.last_upload
    return (
        newest is not None
        and (newest.upload_index, newest.committed_at) == (upload.upload_index, upload.committed_at)
        and (remote.target.name, remote.target.target_access_string) == (target.name, target.target_access_string)
        and remote.target.open_to_public == target.open_to_public
    )


async def take_up_quarantined(context: Context) -> None:
    """Try again what another version of the program has set aside."""
    now = context.clock.now()
    why = "another version of the program tries again"
    async with context.store.write() as session:
        for upload in await upload_queues.quarantined_by_another_version(session):
            await take_up(session, context, upload, now=now, why=why)


async def take_up_rejected(context: Context) -> None:
    """Read the uploads again that hold what another chemistry than today's has rejected: it may be a compound now."""
    version = await context.chemistry.version()
    async with context.store.read() as session:
        if not await compounds.rejected_by_another(session, version):
            return
    async with context.store.write() as session:
        found = await compounds.rejected_by_another(session, version)
        for upload in found:
            upload.settle_due_at = upload.extracted_at  # all that it held was read then: no late rows are waited for
        say_after_commit(session, "rejected_compounds_reconsidered", uploads=len(found), chemistry=version)


async def take_up(session: Session, context: Context, upload: Upload, *, now: datetime, why: str) -> None:
    """Let what is set aside of an upload be due again."""
    if upload.archive_state == "quarantined" and context.settings.download.enabled:
        legs.set_archive_state(session, upload, "wanted", now=now, why=why)
    if upload.scoring_state == "quarantined":
        legs.set_scoring_state(session, upload, "detected", now=now, why=why)
