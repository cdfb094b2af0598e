"""Results of batches: stored as they come, and the claims that they end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import exists, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store.schema import Batch, BatchItem, Claim, Compound, Score, digest
from watcher.store.standing import OPEN
from watcher.store.transitions import note, say_after_commit


@dataclass(frozen=True, slots=True)
class Result:
    """One result of a batch as it is to be recorded; `kind` is `scored`, `no_route` or `failed`."""

    kind: str
    smiles: str
    status: str
    reason: str | None
    result: float | None
    certainty: float | None
    price_usd: float | None
    reaction_count: int | None
    timed_out: bool | None
    route: str | None
    raw: str


async def sent_smiles(session: AsyncSession, batch_id: int) -> dict[str, int]:
    """Return the strings of a batch and the claims they stand for, in the order of sending."""
    rows = await session.execute(
        select(Compound.smiles, Claim.id)
        .select_from(BatchItem)
        .join(Claim, Claim.id == BatchItem.claim_id)
        .join(Compound, Compound.id == Claim.compound_id)
        .where(BatchItem.batch_id == batch_id)
        .order_by(BatchItem.position)
    )
    return dict(rows.all())


async def record_results(
    session: AsyncSession,
    batch: Batch,
    results: Sequence[Result],
    *,
    shown: Mapping[str, int] | None = None,
    now: datetime,
) -> int:
    """Add the results that are new, and end the claims they belong to; returns how many were new.

    `shown` names the claims of strings that may be other spellings than those of the record.
    """
    claim_of = await sent_smiles(session, batch.id) | dict(shown or {})
    stored = set(await session.scalars(select(Score.raw_digest).where(Score.batch_id == batch.id)))
    open_claims = {
        claim.id: claim
        for claim in await session.scalars(
            select(Claim)
            .join(BatchItem, BatchItem.claim_id == Claim.id)
            .where(BatchItem.batch_id == batch.id, Claim.state.in_((*OPEN, "reserved")))
        )
    }
    new: list[dict[str, Any]] = []
    for result in results:
        key = digest(result.raw)
        if key in stored:
            continue
        stored.add(key)
        claim_id = claim_of.get(result.smiles)
        new.append(
            {
                "batch_id": batch.id,
                "claim_id": claim_id,
                "kind": result.kind,
                "smiles": result.smiles,
                "status": result.status,
                "result": result.result,
                "certainty": result.certainty,
                "price_usd": result.price_usd,
                "reaction_count": result.reaction_count,
                "timed_out": result.timed_out,
                "route": result.route,
                "raw": result.raw,
                "raw_digest": key,
                "received_at": now,
            }
        )
        if claim_id is None:
            say_after_commit(session, "result_not_asked_for", level="warning", batch_id=batch.id, smiles=result.smiles)
        elif (claim := open_claims.pop(claim_id, None)) is not None:
            if result.kind == "failed":
                note(session, "claim", claim.id, "state", claim.state, "failed", at=now, why=result.reason or "")
            claim.state, claim.reason, claim.changed_at = result.kind, result.reason, now
            claim.refused_in = None
    if new:
        await session.execute(insert(Score), new)
    await session.flush()
    return len(new)


async def unanswered(session: AsyncSession, batch_id: int) -> int:
    """Count the compounds of a batch that it brought no result for, also those that another batch has ended."""
    answered = exists().where(Score.batch_id == batch_id, Score.claim_id == BatchItem.claim_id)
    query = select(func.count()).select_from(BatchItem).where(BatchItem.batch_id == batch_id, ~answered)
    return await session.scalar(query) or 0


async def missing(session: AsyncSession, batch_id: int) -> Sequence[Claim]:
    """Return the claims of a batch that still wait for its result."""
    found = await session.scalars(
        select(Claim)
        .join(BatchItem, BatchItem.claim_id == Claim.id)
        .where(BatchItem.batch_id == batch_id, BatchItem.live, Claim.state == "reserved")
        .order_by(BatchItem.position)
    )
    return found.all()
