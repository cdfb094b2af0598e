"""What the command line asks of the record beside `overview` and `export`; it only reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, insert, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store.schema import (
    Alias,
    Base,
    Batch,
    BatchItem,
    Claim,
    Compound,
    Condition,
    Instance,
    Observation,
    Profile,
    Score,
    Target,
    Transition,
    Upload,
)

_CHUNK = 500
DONE = ("scored", "no_route", "failed")


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
    scored = sum(claims.get(state, 0) for state in DONE)
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
        .where(Claim.changed_at >= since, Claim.state.in_(DONE))
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


async def withheld_of(session: AsyncSession, profile: Profile, target_ids: Sequence[int]) -> dict[str, int]:
    """Count the withheld compounds of these targets' current uploads by the reason."""
    rows = await session.execute(
        select(Claim.reason, func.count(Claim.id.distinct()))
        .join(Alias, Alias.compound_id == Claim.compound_id)
        .join(Observation, Observation.alias_id == Alias.id)
        .join(Target, Target.current_upload_id == Observation.upload_id)
        .where(Target.id.in_(target_ids), Claim.profile_id == profile.id, Claim.state == "withheld")
        .group_by(Claim.reason)
        .order_by(Claim.reason)
    )
    return {reason or "": number for reason, number in rows}


async def all_batches(session: AsyncSession, state: str | None = None) -> Sequence[Batch]:
    """Return the batches, or those in one state, the oldest first."""
    query = select(Batch).order_by(Batch.id)
    return (await session.scalars(query if state is None else query.where(Batch.state == state))).all()


async def find_batch(session: AsyncSession, batch_id: int) -> Batch | None:
    """Return a batch, if there is one of this number."""
    return await session.get(Batch, batch_id)


@dataclass(frozen=True, slots=True)
class Item:
    """One compound of a batch."""

    position: int
    smiles: str
    live: bool
    state: str
    reason: str | None
    score: float | None


async def items_of(session: AsyncSession, batch_id: int) -> list[Item]:
    """Return the compounds of a batch in the order of sending, with the score that this batch brought."""
    last = (
        select(func.max(Score.id))
        .where(Score.claim_id == Claim.id, Score.batch_id == batch_id)
        .correlate(Claim)
        .scalar_subquery()
    )
    rows = await session.execute(
        select(BatchItem.position, Compound.smiles, BatchItem.live, Claim.state, Claim.reason, Score.result)
        .join(Claim, Claim.id == BatchItem.claim_id)
        .join(Compound, Compound.id == Claim.compound_id)
        .outerjoin(Score, Score.id == last)
        .where(BatchItem.batch_id == batch_id)
        .order_by(BatchItem.position)
    )
    return [Item(*row) for row in rows]


async def transitions_of(session: AsyncSession, entity: str, entity_id: int) -> Sequence[Transition]:
    """Return who changed an entity, when and why, the oldest first."""
    found = await session.scalars(
        select(Transition).where(Transition.entity == entity, Transition.entity_id == entity_id).order_by(Transition.id)
    )
    return found.all()


async def batch_of_remote_id(session: AsyncSession, remote_id: str) -> Batch | None:
    """Return the batch that the service knows under this id."""
    return await session.scalar(select(Batch).where(Batch.remote_id == remote_id))


@dataclass(frozen=True, slots=True)
class Standing:
    """One compound of an upload, and where its claim stands."""

    compound_id: int
    state: str
    reason: str | None
    batch_id: int | None
    """The batch that holds it, if one does."""


async def standings(session: AsyncSession, upload_id: int, profile: Profile) -> list[Standing]:
    """Return the compounds of an upload with their first-round claims under a profile."""
    rows = await session.execute(
        select(Claim.compound_id, Claim.state, Claim.reason, func.max(BatchItem.batch_id))
        .join(Alias, Alias.compound_id == Claim.compound_id)
        .join(Observation, Observation.alias_id == Alias.id)
        .outerjoin(BatchItem, (BatchItem.claim_id == Claim.id) & BatchItem.live)
        .where(Observation.upload_id == upload_id, Claim.profile_id == profile.id, Claim.round == 1)
        .group_by(Claim.id, Claim.compound_id, Claim.state, Claim.reason)
        .order_by(Claim.id)
    )
    return [Standing(*row) for row in rows]


async def verdicts(session: AsyncSession, upload_id: int) -> dict[str | None, int]:
    """Count the observations of an upload by the reason why they are no compound (None: they are one)."""
    rows = await session.execute(
        select(Alias.reason, func.count())
        .join(Observation, Observation.alias_id == Alias.id)
        .where(Observation.upload_id == upload_id)
        .group_by(Alias.reason)
        .order_by(Alias.reason)
    )
    return dict(rows.all())


async def copy_for_rehearsal(source: AsyncSession, copy: AsyncSession) -> None:
    """Copy into an empty record what decides about a pass; results, payloads and old uploads are left out."""
    counted = select(Target.current_upload_id).union(select(Target.baseline_upload_id))
    await copy.execute(delete(Instance))
    for model, only in (
        (Instance, true()),
        (Target, true()),
        (Upload, true()),
        (Profile, true()),
        (Compound, true()),
        (Alias, true()),
        (Observation, Observation.upload_id.in_(counted)),
        (Claim, true()),
        (Batch, true()),
        (BatchItem, true()),
        (Condition, Condition.until.is_(None)),
    ):
        columns = [column for column in model.__table__.columns if column.name not in _BULKY]
        rows = await source.stream(select(*columns).where(only))
        async for part in rows.mappings().partitions(_CHUNK):
            await copy.execute(insert(model), [{**dict(row), **_left_out(model)} for row in part])


_BULKY = ("payload", "answer")


def _left_out(model: type[Base]) -> dict[str, str]:
    return {"payload": ""} if model is Batch else {}


async def all_uploads(session: AsyncSession) -> Sequence[Upload]:
    """Return every recorded upload."""
    return (await session.scalars(select(Upload).order_by(Upload.id))).all()
