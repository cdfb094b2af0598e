"""Batches of ours that the service lists and the record has forgotten, as after a restore from a backup."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import and_, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store.chunks import chunks
from watcher.store.schema import Batch, BatchItem, Claim, Profile, digest
from watcher.store.standing import OPEN
from watcher.store.transitions import note

READ_BACK = "read_back"
"""Outcome of a batch that was not sent by this record but found at the service."""

_KNOWN = select(func.count()).where(BatchItem.batch_id == Batch.id).correlate(Batch).scalar_subquery()
_HIDDEN = or_(Batch.size == 0, Batch.size > _KNOWN)


async def reading_back(session: AsyncSession) -> bool:
    """Say whether a batch that the record had forgotten is still being read back.

    One that is finished, or lost, before all its compounds are known holds everything back until it shows them or a
    person releases or adopts it.
    """
    query = select(Batch.id).where(
        Batch.outcome == READ_BACK,
        or_(Batch.state == "submitted", and_(Batch.state.in_(("finished", "lost")), _HIDDEN)),
    )
    return bool(await session.scalar(select(query.exists())))


async def is_hidden(session: AsyncSession, batch: Batch) -> bool:
    """Say whether it is not known what all a batch holds that was read back."""
    return bool(await session.scalar(select(Batch.id).where(Batch.id == batch.id, _HIDDEN)))


async def read_back(
    session: AsyncSession, profile: Profile, *, token: str, remote_id: str, size: int, now: datetime
) -> Batch:
    """Record a batch of ours that the service lists and the record has forgotten, as after a restore."""
    batch = Batch(
        token=token,
        profile_id=profile.id,
        state="submitted",
        reason="the service lists it, the record had forgotten it",
        size=size,
        payload="",
        payload_digest=digest(""),
        outcome=READ_BACK,
        remote_id=remote_id,
        created_at=now,
        sent_at=now,
        submitted_at=now,
        due_at=now,
    )
    session.add(batch)
    await session.flush()
    note(session, "batch", batch.id, "state", None, "submitted", at=now, why=batch.reason or "")
    return batch


async def attach(
    session: AsyncSession, batch: Batch, compound_ids: Sequence[int], *, scan_no: int, now: datetime
) -> dict[int, int]:
    """Give a batch that was read back the claims that its results show, so that they are not bought again.

    Returns its claims by compound.
    """
    rows = await session.execute(
        select(Claim.compound_id, Claim.id)
        .join(BatchItem, BatchItem.claim_id == Claim.id)
        .where(BatchItem.batch_id == batch.id)
    )
    known = dict(rows.all())
    shown = [compound_id for compound_id in dict.fromkeys(compound_ids) if compound_id not in known]
    found = await _first_claims(session, batch.profile_id, shown)
    missing = [compound_id for compound_id in shown if compound_id not in found]
    if missing:
        values = {
            "profile_id": batch.profile_id,
            "round": 1,
            "state": "wanted",
            "scan_no": scan_no,
            "over_scan_limit": False,
            "created_at": now,
            "changed_at": now,
        }
        await session.execute(insert(Claim), [{"compound_id": compound_id, **values} for compound_id in missing])
        found |= await _first_claims(session, batch.profile_id, missing)
    for position, compound_id in enumerate(shown, start=len(known)):
        claim = found[compound_id]
        free = claim.state in OPEN
        session.add(BatchItem(batch_id=batch.id, position=position, claim_id=claim.id, live=free))
        if free:
            claim.state, claim.reason, claim.refused_in, claim.changed_at = "reserved", None, None, now
    await session.flush()
    return known | {compound_id: found[compound_id].id for compound_id in shown}


async def _first_claims(session: AsyncSession, profile_id: int, compound_ids: Sequence[int]) -> dict[int, Claim]:
    found: dict[int, Claim] = {}
    for chunk in chunks(compound_ids):
        claims = await session.scalars(
            select(Claim).where(Claim.compound_id.in_(chunk), Claim.profile_id == profile_id, Claim.round == 1)
        )
        found |= {claim.compound_id: claim for claim in claims}
    return found
