"""The record of a rehearsal: what is copied into it for a plan, and what can be read from it once it is played."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store.chunks import CHUNK
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
    Target,
    Upload,
)
from watcher.store.standing import baseline_uploads

_BULKY = ("payload", "answer")


async def copy_for_rehearsal(source: AsyncSession, copy: AsyncSession) -> None:
    """Copy into an empty record what decides about a pass: no results, payloads or observations of old uploads."""
    counted = select(Target.current_upload_id).union(baseline_uploads())
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
        async for part in rows.mappings().partitions(CHUNK):
            await copy.execute(insert(model), [{**dict(row), **_left_out(model)} for row in part])


def _left_out(model: type[Base]) -> dict[str, str]:
    return {"payload": ""} if model is Batch else {}


async def all_uploads(session: AsyncSession) -> Sequence[Upload]:
    """Return every recorded upload."""
    return (await session.scalars(select(Upload).order_by(Upload.id))).all()


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
