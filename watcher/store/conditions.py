"""What is not well: one open row for each (subject, kind), and the only source of `needs_attention`."""

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store import outbox
from watcher.store.schema import Condition
from watcher.store.states import CONDITION_KINDS
from watcher.store.transitions import say_after_commit


async def find(session: AsyncSession, subject: str, kind: str) -> Condition | None:
    """Return the open condition, if there is one."""
    return await session.scalar(
        select(Condition).where(Condition.subject == subject, Condition.kind == kind, Condition.until.is_(None))
    )


async def all_open(session: AsyncSession) -> Sequence[Condition]:
    """Return every open condition, the oldest first."""
    found = await session.scalars(select(Condition).where(Condition.until.is_(None)))
    return sorted(found, key=attrgetter("id"))  # ordered by SQLite, it would read every condition there ever was


async def open_condition(
    session: AsyncSession,
    subject: str,
    kind: str,
    *,
    reason: str,
    action: str,
    now: datetime,
    retry_at: datetime | None = None,
) -> Condition:
    """Say that something is not well. Only the first time is an event; later ones count and move `retry_at`.

    `kind` is one of `states.CONDITION_KINDS`; raises ValueError otherwise, so that no kind goes without a description.
    """
    if kind not in CONDITION_KINDS:
        raise ValueError(f"{kind!r} is no kind of condition that is described")
    condition = await find(session, subject, kind)
    if condition is None:
        condition = Condition(
            subject=subject, kind=kind, reason=reason, action=action, since=now, retry_at=retry_at, attempts=1
        )
        session.add(condition)
        say_after_commit(
            session,
            "condition_opened",
            level="warning",
            subject=subject,
            kind=kind,
            reason=reason,
            action=action,
            retry_at=retry_at,
        )
        await outbox.condition_opened(session, condition, now)
    else:
        condition.attempts += 1
        condition.retry_at = retry_at
        condition.reason = reason
        condition.action = action
    return condition


async def close_condition(session: AsyncSession, subject: str, *kinds: str, now: datetime) -> int:
    """Close the open conditions of these kinds (all kinds if none is given); returns how many."""
    query = select(Condition).where(Condition.subject == subject, Condition.until.is_(None))
    if kinds:
        query = query.where(Condition.kind.in_(kinds))
    closed = (await session.scalars(query)).all()
    for condition in closed:
        condition.until = max(now, condition.since)  # the clock may have been set back
        say_after_commit(
            session,
            "condition_closed",
            subject=subject,
            kind=condition.kind,
            since=condition.since,
            lasted_seconds=round((condition.until - condition.since).total_seconds()),
        )
        await outbox.condition_closed(session, condition, condition.until)
    return len(closed)
