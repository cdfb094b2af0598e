"""Batches: their states, and what may be looked up of them.

Every change of state goes through `move`. The intent to buy is written by `purchases`, results by `results`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import takewhile

from sqlalchemy import exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from watcher.store.chunks import chunks
from watcher.store.schema import Batch, BatchItem, Claim, ForeignBatch, Profile
from watcher.store.standing import OPEN
from watcher.store.states import AT_WORK
from watcher.store.transitions import PROGRAM, note

MOVES: Mapping[str, frozenset[str]] = {
    "submitting": frozenset({"submitted", "closed", "unconfirmed"}),
    "unconfirmed": frozenset({"submitted", "released"}),
    # Released from here only by a person: it was read back and never shows all that it holds, or every look fails.
    "submitted": frozenset({"finished", "lost", "released"}),
    "finished": frozenset({"collected", "lost", "released"}),
    "lost": frozenset({"submitted", "released"}),
    # A batch that counted as not bought and turns up at the vendor after all: its results are stored.
    "released": frozenset({"submitted"}),
    "closed": frozenset({"submitted"}),
    "collected": frozenset(),
}
"""Every change of state that a batch can make."""
_RECENT = 32
"""As many answers of the service as `recent_answers` returns at most."""


def move(
    session: AsyncSession,
    batch: Batch,
    state: str,
    *,
    why: str,
    now: datetime,
    who: str = PROGRAM,
    level: str = "info",
) -> None:
    """Change the state of a batch. Raises ValueError for a change that MOVES does not have."""
    if state not in MOVES[batch.state]:
        raise ValueError(f"batch {batch.id} cannot go from {batch.state} to {state}")
    note(session, "batch", batch.id, "state", batch.state, state, at=now, why=why, who=who, level=level)
    batch.state = state
    batch.reason = why


async def get(session: AsyncSession, batch_id: int) -> Batch:
    """Return a batch that exists."""
    return (await session.scalars(select(Batch).where(Batch.id == batch_id))).one()


async def by_token(session: AsyncSession, token: str) -> Batch | None:
    """Return the batch of a token."""
    return await session.scalar(select(Batch).where(Batch.token == token))


async def by_remote_id(session: AsyncSession, remote_id: str) -> Batch | None:
    """Return the batch that the service knows under this id."""
    return await session.scalar(select(Batch).where(Batch.remote_id == remote_id))


async def in_state(session: AsyncSession, *states: str) -> Sequence[Batch]:
    """Return the batches in these states, the oldest first."""
    return (await session.scalars(select(Batch).where(Batch.state.in_(states)).order_by(Batch.id))).all()


async def due(session: AsyncSession, now: datetime, *states: str) -> Sequence[int]:
    """Return the batches in these states whose time has come."""
    found = await session.scalars(
        select(Batch.id).where(Batch.state.in_(states), Batch.due_at <= now).order_by(Batch.due_at, Batch.id)
    )
    return found.all()


async def accepted(
    session: AsyncSession,
    batch: Batch,
    remote_id: str,
    *,
    due_at: datetime,
    now: datetime,
    why: str,
    who: str = PROGRAM,
) -> None:
    """Record that the service has the batch under `remote_id`: answered, adopted, or turned up after all.

    Items that were given up become live again where nothing else has taken their claim, so that it is not bought again.
    """
    move(session, batch, "submitted", why=why, now=now, who=who)
    batch.remote_id = remote_id
    batch.submitted_at = now
    batch.due_at = due_at
    batch.attempts = batch.looks = 0
    other = aliased(BatchItem)
    revived = await session.execute(
        select(BatchItem, Claim)
        .join(Claim, Claim.id == BatchItem.claim_id)
        .where(
            BatchItem.batch_id == batch.id,
            ~BatchItem.live,
            ~exists(select(other.id).where(other.claim_id == BatchItem.claim_id, other.live)),
            Claim.state.in_(OPEN),
        )
    )
    for item, claim in revived:
        item.live = True
        claim.state, claim.reason, claim.refused_in, claim.changed_at = "reserved", None, None, now


async def give_back(session: AsyncSession, batch: Batch, *, now: datetime) -> Sequence[Claim]:
    """End the live items of a batch that was certainly not bought (or released); returns the claims wanted again.

    An item whose claim has its result stays live: it was paid for. A claim that another batch holds at the service, one
    that had been given up and turned up, waits for that batch instead.
    """
    returned = await session.execute(
        select(BatchItem, Claim)
        .join(Claim, Claim.id == BatchItem.claim_id)
        .where(BatchItem.batch_id == batch.id, BatchItem.live, Claim.state == "reserved")
        .order_by(BatchItem.position)
    )
    pairs = returned.all()
    for item, _ in pairs:
        item.live = False
    await session.flush()
    held = await _held_elsewhere(session, [claim.id for _, claim in pairs])
    claims = []
    for _, claim in pairs:
        if (other := held.get(claim.id)) is not None:
            other.live = True
            continue
        claim.state, claim.reason, claim.changed_at = "wanted", None, now
        # A batch that the service once took is no half of a refused one any more.
        claim.refused_in = batch.refused_in if batch.remote_id is None else None
        claims.append(claim)
    await session.flush()
    return claims


async def _held_elsewhere(session: AsyncSession, claim_ids: Sequence[int]) -> dict[int, BatchItem]:
    """Return the item, by claim, of a batch that the service took and has not told all results of."""
    found: dict[int, BatchItem] = {}
    for chunk in chunks(claim_ids):
        items = await session.scalars(
            select(BatchItem)
            .join(Batch, Batch.id == BatchItem.batch_id)
            .where(BatchItem.claim_id.in_(chunk), Batch.state.in_(("submitted", "finished", "lost")))
            .order_by(Batch.id.desc())
        )
        found |= {item.claim_id: item for item in items}
    return found


async def close_unsent(session: AsyncSession, batch: Batch, *, why: str, now: datetime, level: str = "info") -> None:
    """Close a batch that was certainly not bought."""
    move(session, batch, "closed", why=why, now=now, level=level)
    batch.closed_at = now
    batch.due_at = None
    await give_back(session, batch, now=now)


async def close_refused(session: AsyncSession, batch: Batch, *, words: str, now: datetime) -> None:
    """Close a batch whose content was refused: halve it, or, if one molecule stands alone, fail it."""
    move(session, batch, "closed", why=f"refused: {words}", now=now)
    batch.closed_at = now
    batch.due_at = None
    returned = await give_back(session, batch, now=now)
    if batch.size == 1 and returned:
        fail(session, returned[0], f"refused: {words}", now)
        return
    for position, claim in enumerate(returned):
        claim.refused_in = f"{batch.id}:{0 if position < (len(returned) + 1) // 2 else 1}"


def fail(session: AsyncSession, claim: Claim, words: str, now: datetime) -> None:
    """End a claim without a score."""
    note(session, "claim", claim.id, "state", claim.state, "failed", at=now, why=words)
    claim.state, claim.reason, claim.refused_in, claim.changed_at = "failed", words, None, now


async def doubt(session: AsyncSession, batch: Batch, *, why: str, due_at: datetime, now: datetime) -> None:
    """Record that nobody knows whether the batch was bought; it is looked for from `due_at` on."""
    move(session, batch, "unconfirmed", why=why, now=now)
    batch.unconfirmed_at = now
    batch.due_at = due_at
    batch.looks = 0


async def release(session: AsyncSession, batch: Batch, *, who: str, why: str, now: datetime) -> int:
    """Give up a doubtful or lost batch: its compounds may be bought again. Returns how many."""
    move(session, batch, "released", why=why, now=now, who=who)
    batch.due_at = None
    batch.closed_at = now
    return len(await give_back(session, batch, now=now))


async def lose(session: AsyncSession, batch: Batch, *, why: str, now: datetime) -> None:
    """Record that the service does not know the batch any more. Nothing is bought again without a person."""
    move(session, batch, "lost", why=why, now=now)
    batch.due_at = None


async def attributed(session: AsyncSession) -> set[str]:
    """Return the remote ids that the record knows: ours, and those that are certainly not."""
    ours = set(await session.scalars(select(Batch.remote_id).where(Batch.remote_id.is_not(None))))
    return {remote_id for remote_id in ours if remote_id} | set(await session.scalars(select(ForeignBatch.remote_id)))


async def refused(session: AsyncSession) -> Sequence[Batch]:
    """Return the batches whose purchase was refused, but for their content, and that were not looked for since.

    Such an answer can come from a proxy, in the place of one that accepts. `due_at` is when to look, and None after it.
    """
    query = select(Batch).where(Batch.state == "closed", Batch.due_at.is_not(None)).order_by(Batch.id)
    return (await session.scalars(query)).all()


async def doubts_in_a_row(session: AsyncSession, limit: int = 10) -> Sequence[Batch]:
    """Return the doubtful batches since a purchase was last answered, the newest first; at most `limit`."""
    sent = or_(Batch.state != "closed", Batch.outcome == "refused")
    newest = (await session.scalars(select(Batch).where(sent).order_by(Batch.id.desc()).limit(limit))).all()
    return [*takewhile(lambda batch: batch.state == "unconfirmed", newest)]


async def at_work(session: AsyncSession, api_version: str) -> set[str]:
    """Return the remote ids of the batches that a version of the API has and has not told all of."""
    found = await session.scalars(
        select(Batch.remote_id)
        .join(Profile, Profile.id == Batch.profile_id)
        .where(Batch.state.in_(AT_WORK), Profile.api_version == api_version)
    )
    return {remote_id for remote_id in found if remote_id}


async def tokens(session: AsyncSession) -> set[str]:
    """Return the tokens of all batches that the record knows."""
    return set(await session.scalars(select(Batch.token)))


async def mark_foreign(session: AsyncSession, remote_ids: Sequence[str], now: datetime) -> None:
    """Remember batches at the service that are certainly not ours."""
    session.add_all(ForeignBatch(remote_id=remote_id, seen_at=now) for remote_id in remote_ids)
    await session.flush()


async def recent_answers(session: AsyncSession, profile: Profile) -> Sequence[Batch]:
    """Return the last batches that the service answered about their content, newest first, since a person looked."""
    query = (
        select(Batch)
        .where(Batch.profile_id == profile.id, Batch.outcome.in_(("accepted", "refused")))
        .order_by(Batch.id.desc())
        .limit(_RECENT)
    )
    if profile.resumed_after is not None:
        query = query.where(Batch.id > profile.resumed_after)
    return (await session.scalars(query)).all()
