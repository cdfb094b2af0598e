"""Batches: the intent to buy, what became of it, and the results that came back.

Every change of state goes through `move`, which knows the drawing in docs/architecture.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store import claims
from watcher.store.schema import Batch, BatchItem, Claim, Compound, ForeignBatch, Profile, Score, digest
from watcher.store.transitions import PROGRAM, note, say_after_commit

MOVES: Mapping[str, frozenset[str]] = {
    "submitting": frozenset({"submitted", "closed", "unconfirmed"}),
    "unconfirmed": frozenset({"submitted", "released"}),
    "submitted": frozenset({"finished", "lost"}),
    "finished": frozenset({"collected", "lost"}),
    "lost": frozenset({"submitted", "released"}),
    # A batch that counted as not bought and turns up at the vendor after all: its results are stored.
    "released": frozenset({"submitted"}),
    "closed": frozenset({"submitted"}),
    "collected": frozenset(),
}
"""Every change of state that a batch can make."""


READ_BACK = "read_back"
"""Outcome of a batch that was not sent by this record but found at the service."""


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


def move(session: AsyncSession, batch: Batch, state: str, *, why: str, now: datetime, who: str = PROGRAM) -> None:
    """Change the state of a batch. Raises ValueError for a change that the drawing does not have."""
    if state not in MOVES[batch.state]:
        raise ValueError(f"batch {batch.id} cannot go from {batch.state} to {state}")
    note(session, "batch", batch.id, "state", batch.state, state, at=now, why=why, who=who)
    batch.state = state
    batch.reason = why


async def reserve(
    session: AsyncSession,
    profile: Profile,
    policy: claims.Policy,
    *,
    token: str,
    batch_size: int,
    build: Callable[[Sequence[str]], bytes],
    now: datetime,
) -> Batch | None:
    """Write the intent to buy: limits, privacy and profile are checked now, claims are taken, the payload is frozen.

    Returns the batch in `submitting`, or None when nothing may be sent. A half of a refused batch is sent by itself.
    """
    allowance = await claims.daily_allowance(session, policy, now)
    if allowance is None or allowance > 0:
        await claims.release_daily(session, profile, now)
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
    for claim, smiles in candidates.tuples():
        if claim.approved_at is None and allowance is not None:
            if allowance == 0:
                claims.set_standing(claim, claims.DAILY_LIMIT, now)
                continue
            allowance -= 1
        taken.append((claim, smiles))
    if allowance == 0:
        await _hold_back_the_rest(session, profile, {claim.id for claim, _ in taken}, now)
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
    for position, (claim, _) in enumerate(taken):
        session.add(BatchItem(batch_id=batch.id, position=position, claim_id=claim.id, live=True))
        claim.state, claim.reason, claim.changed_at = "reserved", None, now
    await session.flush()
    note(session, "batch", batch.id, "state", None, "submitting", at=now, why=f"{len(taken)} compounds are due")
    return batch


async def _hold_back_the_rest(session: AsyncSession, profile: Profile, taken: set[int], now: datetime) -> None:
    rest = await session.scalars(
        select(Claim).where(Claim.profile_id == profile.id, Claim.state == "wanted", Claim.approved_at.is_(None))
    )
    for claim in rest:
        if claim.id not in taken:
            claims.set_standing(claim, claims.DAILY_LIMIT, now)


async def get(session: AsyncSession, batch_id: int) -> Batch:
    """Return a batch that exists."""
    return (await session.scalars(select(Batch).where(Batch.id == batch_id))).one()


async def by_token(session: AsyncSession, token: str) -> Batch | None:
    """Return the batch of a token."""
    return await session.scalar(select(Batch).where(Batch.token == token))


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
    live = select(BatchItem.claim_id).where(BatchItem.live)
    revived = (
        await session.execute(
            select(BatchItem, Claim)
            .join(Claim, Claim.id == BatchItem.claim_id)
            .where(
                BatchItem.batch_id == batch.id,
                ~BatchItem.live,
                BatchItem.claim_id.not_in(live),
                Claim.state.in_(("wanted", "withheld")),
            )
        )
    ).tuples()
    for item, claim in revived:
        item.live = True
        claim.state, claim.reason, claim.refused_in, claim.changed_at = "reserved", None, None, now


async def give_back(session: AsyncSession, batch: Batch, *, now: datetime) -> Sequence[Claim]:
    """End the live items of a batch that was certainly not bought (or released); their claims are wanted again."""
    returned = (
        await session.scalars(
            select(Claim)
            .join(BatchItem, BatchItem.claim_id == Claim.id)
            .where(BatchItem.batch_id == batch.id, BatchItem.live, Claim.state == "reserved")
            .order_by(BatchItem.position)
        )
    ).all()
    await session.execute(update(BatchItem).where(BatchItem.batch_id == batch.id).values(live=False))
    for claim in returned:
        claim.state, claim.reason, claim.changed_at = "wanted", None, now
        claim.refused_in = batch.refused_in
    return returned


async def close_unsent(session: AsyncSession, batch: Batch, *, why: str, now: datetime) -> None:
    """Close a batch that was certainly not bought."""
    move(session, batch, "closed", why=why, now=now)
    batch.closed_at = now
    batch.due_at = None
    await give_back(session, batch, now=now)


async def close_refused(session: AsyncSession, batch: Batch, *, words: str, now: datetime) -> None:
    """Close a batch whose content was refused: halve it, or, if one molecule stands alone, fail it."""
    move(session, batch, "closed", why=f"refused: {words}", now=now)
    batch.closed_at = now
    batch.due_at = None
    returned = await give_back(session, batch, now=now)
    if len(returned) == 1:
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
    return dict(rows.tuples().all())


async def strings_of_no_other(session: AsyncSession, batch: Batch) -> set[str]:
    """Return the strings of a batch that no other batch which may exist at the service holds."""
    elsewhere = (
        select(Claim.compound_id)
        .join(BatchItem, BatchItem.claim_id == Claim.id)
        .join(Batch, Batch.id == BatchItem.batch_id)
        .where(Batch.id != batch.id, or_(Batch.state != "closed", Batch.remote_id.is_not(None)))
    )
    found = await session.scalars(
        select(Compound.smiles)
        .join(Claim, Claim.compound_id == Compound.id)
        .join(BatchItem, BatchItem.claim_id == Claim.id)
        .where(BatchItem.batch_id == batch.id, Compound.id.not_in(elsewhere))
    )
    return set(found)


async def record_results(session: AsyncSession, batch: Batch, results: Sequence[Result], *, now: datetime) -> int:
    """Add the results that are new, and end the claims they belong to; returns how many were new."""
    claim_of = await sent_smiles(session, batch.id)
    stored = set(await session.scalars(select(Score.raw_digest).where(Score.batch_id == batch.id)))
    open_claims = {
        claim.id: claim
        for claim in await session.scalars(
            select(Claim)
            .join(BatchItem, BatchItem.claim_id == Claim.id)
            .where(BatchItem.batch_id == batch.id, Claim.state.in_(("reserved", "wanted", "withheld")))
        )
    }
    added = 0
    for result in results:
        key = digest(result.raw)
        if key in stored:
            continue
        stored.add(key)
        claim_id = claim_of.get(result.smiles)
        session.add(
            Score(
                batch_id=batch.id,
                claim_id=claim_id,
                kind=result.kind,
                smiles=result.smiles,
                status=result.status,
                result=result.result,
                certainty=result.certainty,
                price_usd=result.price_usd,
                reaction_count=result.reaction_count,
                timed_out=result.timed_out,
                route=result.route,
                raw=result.raw,
                raw_digest=key,
                received_at=now,
            )
        )
        added += 1
        if claim_id is None:
            say_after_commit(session, "result_not_asked_for", level="warning", batch_id=batch.id, smiles=result.smiles)
        elif (claim := open_claims.pop(claim_id, None)) is not None:
            claim.state, claim.reason, claim.changed_at = result.kind, result.reason, now
            claim.refused_in = None
    await session.flush()
    return added


async def missing(session: AsyncSession, batch_id: int) -> Sequence[Claim]:
    """Return the claims of a batch that still wait for its result."""
    found = await session.scalars(
        select(Claim)
        .join(BatchItem, BatchItem.claim_id == Claim.id)
        .where(BatchItem.batch_id == batch_id, BatchItem.live, Claim.state == "reserved")
        .order_by(BatchItem.position)
    )
    return found.all()


async def attributed(session: AsyncSession) -> set[str]:
    """Return the remote ids that the record knows: ours, and those that are certainly not."""
    ours = set(await session.scalars(select(Batch.remote_id).where(Batch.remote_id.is_not(None))))
    return {remote_id for remote_id in ours if remote_id} | set(await session.scalars(select(ForeignBatch.remote_id)))


async def mark_foreign(session: AsyncSession, remote_ids: Sequence[str], now: datetime) -> None:
    """Remember batches at the service that are certainly not ours."""
    session.add_all(ForeignBatch(remote_id=remote_id, seen_at=now) for remote_id in remote_ids)
    await session.flush()


async def reading_back(session: AsyncSession) -> bool:
    """Say whether a batch that the record had forgotten is still being read back."""
    query = select(Batch.id).where(Batch.outcome == READ_BACK, Batch.state.in_(("submitted", "finished")))
    return bool(await session.scalar(select(query.exists())))


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
) -> None:
    """Give a batch that was read back the claims that its results show, so that they are not bought again."""
    known = set(
        await session.scalars(
            select(Claim.compound_id)
            .join(BatchItem, BatchItem.claim_id == Claim.id)
            .where(BatchItem.batch_id == batch.id)
        )
    )
    position = len(known)
    for compound_id in compound_ids:
        if compound_id in known:
            continue
        known.add(compound_id)
        claim = await session.scalar(
            select(Claim).where(
                Claim.compound_id == compound_id, Claim.profile_id == batch.profile_id, Claim.round == 1
            )
        )
        if claim is None:
            claim = Claim(
                compound_id=compound_id,
                profile_id=batch.profile_id,
                round=1,
                state="wanted",
                scan_no=scan_no,
                created_at=now,
                changed_at=now,
            )
            session.add(claim)
            await session.flush()
        free = claim.state in ("wanted", "withheld")
        session.add(BatchItem(batch_id=batch.id, position=position, claim_id=claim.id, live=free))
        if free:
            claim.state, claim.reason, claim.changed_at = "reserved", None, now
        position += 1
    await session.flush()


async def recent_answers(session: AsyncSession, profile: Profile, limit: int = 32) -> Sequence[Batch]:
    """Return the last batches that the service answered about their content, newest first, since a person looked."""
    query = (
        select(Batch)
        .where(Batch.profile_id == profile.id, Batch.outcome.in_(("accepted", "refused")))
        .order_by(Batch.id.desc())
        .limit(limit)
    )
    if profile.resumed_at is not None:
        query = query.where(Batch.sent_at > profile.resumed_at)
    return (await session.scalars(query)).all()
