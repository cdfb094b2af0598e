"""How far the work is, and what was done since a moment: for the bars and the summary of a pass."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store.schema import Batch, Claim, Target, Transition, Upload

_DONE = ("scored", "no_route", "failed")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work on the current uploads is."""

    archived: int
    archives: int
    scored: int
    compounds: int


async def progress(session: AsyncSession) -> Progress:
    """Count archives and compounds that are done, and those that are done or on their way."""
    legs = await session.execute(
        select(Upload.archive_state, func.count())
        .join(Target, Target.current_upload_id == Upload.id)
        .where(Target.followed)
        .group_by(Upload.archive_state)
    )
    archives = dict(legs.all())
    claims = dict((await session.execute(select(Claim.state, func.count()).group_by(Claim.state))).all())
    scored = sum(claims.get(state, 0) for state in _DONE)
    return Progress(
        archived=archives.get("stored", 0),
        archives=archives.get("stored", 0) + archives.get("wanted", 0),
        scored=scored,
        compounds=scored + claims.get("wanted", 0) + claims.get("reserved", 0),
    )


@dataclass(frozen=True, slots=True)
class Happened:
    """What was done since a moment."""

    uploads: int
    archives: int
    batches: int
    compounds_sent: int
    results: dict[str, int]
    """Compounds that ended, by how."""


async def happened_since(session: AsyncSession, since: datetime) -> Happened:
    """Count what was recorded, stored, sent and scored since a moment."""
    stored = select(func.count()).where(
        Transition.at >= since, Transition.entity == "upload", Transition.field == "archive", Transition.new == "stored"
    )
    sent = (
        await session.execute(
            select(func.count(), func.coalesce(func.sum(Batch.size), 0)).where(
                Batch.sent_at >= since, Batch.state != "closed"
            )
        )
    ).one()
    results = await session.execute(
        select(Claim.state, func.count())
        .where(Claim.changed_at >= since, Claim.state.in_(_DONE))
        .group_by(Claim.state)
        .order_by(Claim.state.desc())
    )
    return Happened(
        uploads=await session.scalar(select(func.count()).where(Upload.seen_at >= since)) or 0,
        archives=await session.scalar(stored) or 0,
        batches=sent[0],
        compounds_sent=int(sent[1]),
        results=dict(results.all()),
    )
