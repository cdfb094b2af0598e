"""The intent to buy: one transaction that checks what may be sent, takes the claims and freezes the payload."""

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store import allowance as daily
from watcher.store import claims, standing
from watcher.store.schema import Batch, BatchItem, Claim, Compound, Profile, digest
from watcher.store.transitions import note


async def reserve(
    session: AsyncSession,
    profile: Profile,
    policy: standing.Policy,
    *,
    token: str,
    batch_size: int,
    build: Callable[[Sequence[str]], bytes],
    now: datetime,
    level: str = "info",
) -> Batch | None:
    """Write the intent to buy: limits, privacy and profile are checked now, claims are taken, the payload is frozen.

    Returns the batch in `submitting`, or None when nothing may be sent. A half of a refused batch is sent by itself.
    """
    allowance = await daily.daily_allowance(session, policy, now)
    if allowance is None or allowance > 0:
        await daily.release_daily(session, profile, now)
    await claims.review(session, profile, policy, now=now)
    if profile.approved_at is None:
        return None
    wanted = (Claim.profile_id == profile.id, Claim.state == "wanted")
    half = await session.scalar(select(func.min(Claim.refused_in)).where(*wanted))
    group = Claim.refused_in.is_(None) if half is None else Claim.refused_in == half
    candidates = await session.execute(
        select(Claim, Compound.smiles)
        .join(Compound, Compound.id == Claim.compound_id)
        .where(*wanted, group)
        .order_by(Claim.approved_at.is_(None), Claim.id)
        .limit(batch_size)
    )
    taken: list[tuple[Claim, str]] = []
    for claim, smiles in candidates:
        if claim.approved_at is None and allowance is not None:
            if allowance == 0:
                continue
            allowance -= 1
        taken.append((claim, smiles))
    for claim, _ in taken:
        claim.state, claim.reason, claim.changed_at = "reserved", None, now
    await session.flush()
    if allowance == 0:
        await _hold_back_the_rest(session, profile, now)
    if not taken:
        return None
    payload = build([smiles for _, smiles in taken]).decode()
    batch = Batch(
        token=token,
        profile_id=profile.id,
        state="submitting",
        size=len(taken),
        payload=payload,
        payload_digest=digest(payload),
        refused_in=half,
        created_at=now,
        sent_at=now,
    )
    session.add(batch)
    await session.flush()
    await session.execute(
        insert(BatchItem),
        [
            {"batch_id": batch.id, "position": position, "claim_id": claim.id, "live": True}
            for position, (claim, _) in enumerate(taken)
        ],
    )
    why = f"{len(taken)} compounds are due"
    note(session, "batch", batch.id, "state", None, "submitting", at=now, why=why, level=level)
    return batch


async def _hold_back_the_rest(session: AsyncSession, profile: Profile, now: datetime) -> None:
    await session.execute(
        update(Claim)
        .where(Claim.profile_id == profile.id, Claim.state == "wanted", Claim.approved_at.is_(None))
        .values(state="withheld", reason=standing.DAILY_LIMIT, changed_at=now)
    )
