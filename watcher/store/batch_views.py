"""Batches as a person looks at them: which there are, what each holds, and what has happened to it."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store.schema import Batch, BatchItem, Claim, Compound, Score, Transition


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
