"""The record as a person looks at it: where each target and upload stands, and what has happened to a target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store.conditions import all_open
from watcher.store.overview import targets_with_current
from watcher.store.schema import Alias, Batch, BatchItem, Claim, Condition, Observation, Target, Transition, Upload
from watcher.store.states import TO_FETCH


@dataclass(frozen=True, slots=True)
class TargetView:
    """A target, the upload of it that counts now, and when something is tried next for it."""

    target: str
    target_access_string: str
    stack: str
    open_to_public: bool | None
    followed: bool
    listed: bool
    remote_index: int | None
    recorded_index: int | None
    archive: str | None
    scoring: str | None
    observations: int
    first_seen_at: datetime
    recorded_at: datetime | None
    """When the upload was recorded."""
    last_success_at: datetime | None
    next_try_at: datetime | None
    """When the next try of a leg is due, pauses taken into account; in the past: as soon as there is room."""
    error: str | None


async def target_views(session: AsyncSession, *, archives: bool) -> list[TargetView]:
    """Return every target by name; without `archives` nothing is tried for them."""
    pauses = {c.subject: c.retry_at for c in await all_open(session) if c.retry_at is not None}
    observations = dict(
        (
            await session.execute(
                select(Observation.upload_id, func.count())
                .where(Observation.upload_id.in_(select(Target.current_upload_id)))
                .group_by(Observation.upload_id)
            )
        ).all()
    )
    return [
        TargetView(
            target=target.name,
            target_access_string=target.target_access_string,
            stack=target.stack,
            open_to_public=target.open_to_public,
            followed=target.followed,
            listed=target.listed,
            remote_index=target.remote_index,
            recorded_index=upload.upload_index if upload else None,
            archive=upload.archive_state if upload else None,
            scoring=upload.scoring_state if upload else None,
            observations=observations.get(upload.id, 0) if upload else 0,
            first_seen_at=target.first_seen_at,
            recorded_at=upload.seen_at if upload else None,
            last_success_at=target.last_success_at,
            next_try_at=next_try(upload, pauses, archives=archives) if upload and target.followed else None,
            error=(upload.scoring_error or upload.archive_error) if upload else None,
        )
        for target, upload in await targets_with_current(session)
    ]


def next_try(upload: Upload, pauses: Mapping[str, datetime], *, archives: bool) -> datetime | None:
    """Return when a leg of an upload is worked on next; None when nothing is to be done."""
    times: list[tuple[datetime | None, tuple[str, ...]]] = []
    if archives and upload.archive_state in TO_FETCH:
        times.append((upload.archive_due_at, ("fragalysis", "download")))
    if archives and upload.archive_state == "stored":
        times.append((upload.archive_due_at, ("verify",)))
    if upload.scoring_state == "detected":
        times.append((upload.scoring_due_at, ("fragalysis", "extract")))
    times.append((upload.settle_due_at, ("fragalysis", "extract")))
    return min(
        (max(due, *(pauses.get(gate, due) for gate in gates)) for due, gates in times if due is not None), default=None
    )


@dataclass(frozen=True, slots=True)
class UploadView:
    """An upload and where its two legs stand."""

    target: str
    target_access_string: str
    upload_index: int
    counts_now: bool
    committed_at: datetime
    recorded_at: datetime
    archive: str
    archive_path: str | None
    archive_bytes: int | None
    scoring: str
    observations: int
    extracted_at: datetime | None
    scored_at: datetime | None
    archive_error: str | None
    scoring_error: str | None


async def upload_views(session: AsyncSession, target_ids: Sequence[int] | None) -> list[UploadView]:
    """Return the uploads of these targets, or of all, by target and time."""
    counted = select(func.count()).where(Observation.upload_id == Upload.id).correlate(Upload).scalar_subquery()
    query = (
        select(Upload, Target, counted)
        .join(Target, Target.id == Upload.target_id)
        .order_by(Target.name, Target.target_access_string, Target.id, Upload.committed_at, Upload.id)
    )
    if target_ids is not None:
        query = query.where(Target.id.in_(target_ids))
    return [
        UploadView(
            target=target.name,
            target_access_string=target.target_access_string,
            upload_index=upload.upload_index,
            counts_now=target.current_upload_id == upload.id,
            committed_at=upload.committed_at,
            recorded_at=upload.seen_at,
            archive=upload.archive_state,
            archive_path=upload.archive_path,
            archive_bytes=upload.archive_size,
            scoring=upload.scoring_state,
            observations=observations,
            extracted_at=upload.extracted_at,
            scored_at=upload.scored_at,
            archive_error=upload.archive_error,
            scoring_error=upload.scoring_error,
        )
        for upload, target, observations in await session.execute(query)
    ]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: to the target, to an upload (by its index) or to a batch (by its number)."""

    at: datetime
    subject: str
    field: str
    old: str | None
    new: str | None
    who: str
    why: str


async def events(session: AsyncSession, target: Target, label: str) -> list[Event]:
    """Return what happened to a target, to its uploads and to the batches that hold its compounds, in time order.

    `label` is how the subjects of conditions name the target.
    """
    uploads = (await session.scalars(select(Upload).where(Upload.target_id == target.id))).all()
    shares = await _batches(session, target.id)
    names = {("target", target.id): "target", **{("upload", one.id): f"upload {one.upload_index}" for one in uploads}}
    names |= {("batch", batch_id): f"batch {batch_id}" for batch_id in shares}
    found = [Event(target.first_seen_at, "target", "seen", None, None, "watcher", "")]
    found += [
        Event(one.seen_at, f"upload {one.upload_index}", "seen", None, one.committed_at.isoformat(), "watcher", "")
        for one in uploads
    ]
    found += [
        Event(one.sent_at, f"batch {one.id}", "share", None, f"{shares[one.id]} of {one.size}", "watcher", "")
        for one in await session.scalars(select(Batch).where(Batch.id.in_(shares)))
    ]
    changes = await session.scalars(
        select(Transition)
        .where(
            or_(
                and_(Transition.entity == "target", Transition.entity_id == target.id),
                and_(
                    Transition.entity == "upload",
                    Transition.entity_id.in_(select(Upload.id).where(Upload.target_id == target.id)),
                ),
                and_(Transition.entity == "batch", Transition.entity_id.in_(shares)),
            )
        )
        .order_by(Transition.id)
    )
    found += [
        Event(one.at, names[one.entity, one.entity_id], one.field, one.old, one.new, one.who, one.why)
        for one in changes
    ]
    for one in await session.scalars(select(Condition).order_by(Condition.id)):
        if subject := _own_subject(one.subject, label, shares):
            found.append(Event(one.since, subject, "condition", None, one.kind, "watcher", one.reason))
            if one.until is not None:
                found.append(Event(one.until, subject, "condition", one.kind, None, "watcher", ""))
    return sorted(found, key=lambda event: event.at)  # stable: what happened at one moment stays in its order


async def _batches(session: AsyncSession, target_id: int) -> dict[int, int]:
    """Return the batches that hold compounds of a target, with how many."""
    own = (
        select(Alias.compound_id)
        .join(Observation, Observation.alias_id == Alias.id)
        .join(Upload, Upload.id == Observation.upload_id)
        .where(Upload.target_id == target_id)
    )
    rows = await session.execute(
        select(BatchItem.batch_id, func.count())
        .join(Claim, Claim.id == BatchItem.claim_id)
        .where(Claim.compound_id.in_(own))
        .group_by(BatchItem.batch_id)
    )
    return dict(rows.all())


def _own_subject(subject: str, label: str, batches: Mapping[int, int]) -> str:
    """Return what a condition is about, as the story names it; empty when it is about something else."""
    if subject == f"target {label}":
        return "target"
    if subject.startswith(f"{label} upload "):
        return subject.removeprefix(f"{label} ")
    kind, _, number = subject.partition(" ")
    return subject if kind == "batch" and number.isdecimal() and int(number) in batches else ""
