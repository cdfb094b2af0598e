"""The record as people and dashboards see it: counts, waits, the budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from watcher.store.conditions import all_open
from watcher.store.schema import Batch, Claim, Condition, Instance, Target, Upload


@dataclass(frozen=True, slots=True)
class Waits:
    """When the next thing is due, and whether the service is at work on a batch without trouble."""

    next_at: datetime | None
    at_work: bool


async def waits(
    session: AsyncSession, *, archives: bool, first_look_at: datetime | None = None, after: datetime | None = None
) -> Waits:
    """Return when anything is due next, with the pauses of services and stages taken into account.

    `first_look_at` is when the service's list is to be read for the first time since the start. With `after`, only what
    comes due later than that counts.
    """
    paused = {c.subject: c.retry_at for c in await all_open(session) if c.retry_at is not None}

    def pause_of(*gates: str) -> datetime | None:
        return max((paused[gate] for gate in gates if gate in paused), default=None)

    async def earliest(
        column: InstrumentedAttribute[datetime | None], *where: ColumnElement[bool], gates: Sequence[str]
    ) -> datetime | None:
        pause = pause_of(*gates)
        if after is not None and (pause is None or pause <= after):
            where = (*where, column > after)
        found = await session.scalar(select(func.min(column)).where(*where))
        return None if found is None else max(found, pause or found)

    is_current = Upload.id.in_(select(Target.current_upload_id).where(Target.followed))
    fetched = Upload.archive_state.in_(("wanted", "unavailable", "stored"))
    read = or_(Upload.scoring_state == "detected", Upload.settle_due_at.is_not(None))
    polled = Batch.state.in_(("submitted", "finished", "collected"))
    times = [
        await earliest(Instance.scan_due_at, gates=("fragalysis", "scan")),
        await earliest(Upload.scoring_due_at, is_current, read, gates=("fragalysis", "extract")),
        await earliest(
            Upload.settle_due_at, is_current, Upload.scoring_due_at.is_(None), gates=("fragalysis", "extract")
        ),
        await earliest(Batch.due_at, polled, gates=("molecule_one", "collect")),
        await earliest(Batch.due_at, Batch.state == "unconfirmed", gates=("molecule_one", "reconcile")),
    ]
    if archives:
        times.append(await earliest(Upload.archive_due_at, is_current, fetched, gates=("fragalysis", "download")))
    if await session.scalar(select(select(Claim.id).where(Claim.state == "wanted").exists())):
        times.append(pause_of("molecule_one"))
    if first_look_at is not None:
        look_at = max(first_look_at, pause_of("molecule_one", "reconcile") or first_look_at)
        times.append(look_at if after is None or look_at > after else None)
    healthy = and_(Batch.state.in_(("submitted", "finished")), Batch.attempts == 0)
    at_work = bool(await session.scalar(select(select(Batch.id).where(healthy).exists())))
    return Waits(
        min((time for time in times if time is not None), default=None), at_work and "molecule_one" not in paused
    )


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows by state."""

    targets: dict[str, int]
    archives: dict[str, int]
    scorings: dict[str, int]
    batches: dict[str, int]
    claims: dict[str, int]
    withheld: dict[str, int]
    """Withheld claims by their reason."""


async def counts(session: AsyncSession) -> Counts:
    """Count targets, both legs of the current uploads and of history, batches and claims by state."""

    async def by(column: InstrumentedAttribute[Any], *where: ColumnElement[bool]) -> dict[str, int]:
        rows = await session.execute(select(column, func.count()).where(*where).group_by(column).order_by(column))
        return dict(rows.all())

    followed = dict((await session.execute(select(Target.followed, func.count()).group_by(Target.followed))).all())
    empty = await session.scalar(
        select(func.count()).select_from(Target).where(Target.followed, Target.current_upload_id.is_(None))
    )
    return Counts(
        targets={
            "followed": followed.get(True, 0),
            "without_upload": empty or 0,
            "not_followed": followed.get(False, 0),
        },
        archives=await by(Upload.archive_state),
        scorings=await by(Upload.scoring_state),
        batches=await by(Batch.state),
        claims=await by(Claim.state),
        withheld=await by(Claim.reason, Claim.state == "withheld"),
    )


async def needs_attention(session: AsyncSession) -> Sequence[Condition]:
    """Return what is not well, the oldest first."""
    return await all_open(session)


async def oldest_pending(session: AsyncSession) -> dict[str, datetime | None]:
    """Return, for each stage with a queue, when the oldest unit that waits for it was recorded."""
    is_current = Upload.id.in_(select(Target.current_upload_id).where(Target.followed))

    async def oldest(column: InstrumentedAttribute[datetime], *where: ColumnElement[bool]) -> datetime | None:
        return await session.scalar(select(func.min(column)).where(*where))

    return {
        "download": await oldest(Upload.seen_at, is_current, Upload.archive_state.in_(("wanted", "unavailable"))),
        "extract": await oldest(Upload.seen_at, is_current, Upload.scoring_state == "detected"),
        "submit": await oldest(Claim.created_at, Claim.state == "wanted"),
        "reconcile": await oldest(Batch.created_at, Batch.state.in_(("submitting", "unconfirmed"))),
        "collect": await oldest(Batch.created_at, Batch.state.in_(("submitted", "finished"))),
        "finish": await oldest(Upload.seen_at, is_current, Upload.scoring_state == "extracted"),
    }


async def targets_with_current(session: AsyncSession) -> Sequence[tuple[Target, Upload | None]]:
    """Return every target with the upload that counts now, by name."""
    rows = await session.execute(
        select(Target, Upload)
        .outerjoin(Upload, Upload.id == Target.current_upload_id)
        .order_by(Target.name, Target.target_access_string, Target.id)
    )
    return [(row[0], row[1]) for row in rows]
