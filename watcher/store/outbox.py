"""Messages to people: written in the transaction of the change that they tell of, and kept until they are sent."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.notices import HEALS_BY_ITSELF, NOT_TOLD, Notice, Subscription, attention, patience_for, recovered
from watcher.store.schema import Condition, Outbox

_WAITS = Outbox.sent_at.is_(None)


def subscription_for(session: AsyncSession, event: str) -> Subscription | None:
    """Return who is told of an event; None when nobody is."""
    subscription = cast("Subscription | None", session.info.get("subscription"))
    if subscription is None or not subscription.addresses or event not in subscription.events:
        return None
    return subscription


def add(
    session: AsyncSession,
    event: str,
    notice: Notice,
    addresses: Iterable[int],
    *,
    now: datetime,
    wait: timedelta = timedelta(),
    condition_id: int | None = None,
) -> None:
    """Write a message to each of these addresses, to be sent after `wait`."""
    session.add_all(
        Outbox(
            address=address,
            event=event,
            condition_id=condition_id,
            subject=notice.subject,
            body=notice.body,
            created_at=now,
            due_at=now + wait,
        )
        for address in addresses
    )


def everybody(subscription: Subscription) -> range:
    """Return all addresses."""
    return range(1, subscription.addresses + 1)


async def condition_opened(session: AsyncSession, condition: Condition, now: datetime) -> None:
    """Tell that something is not well: at once, or once it has lasted where it may heal by itself."""
    who = subscription_for(session, "attention")
    if who is None or condition.kind == NOT_TOLD:
        return
    await session.flush()  # the condition gets its number
    notice = attention(
        condition.subject,
        condition.kind,
        condition.reason,
        condition.action,
        include_structures=who.include_structures,
    )
    wait = patience_for(condition.kind, who.patience)
    add(session, "attention", notice, everybody(who), now=now, wait=wait, condition_id=condition.id)


async def condition_closed(session: AsyncSession, condition: Condition, now: datetime) -> None:
    """Tell that it is over those who were told that it began; a message that nobody has begun to send is dropped."""
    await forget(session, condition)
    who = subscription_for(session, "recovered")
    if who is None or condition.kind == NOT_TOLD:
        return
    lasted = now - condition.since
    if "attention" in who.events:
        told: Iterable[int] = await session.scalars(
            select(Outbox.address).where(
                Outbox.condition_id == condition.id,
                Outbox.event == "attention",
                Outbox.address <= who.addresses,
            )
        )
    else:
        told = everybody(who) if lasted >= patience_for(condition.kind, who.patience) else ()
    notice = recovered(condition.subject, condition.kind, lasted)
    add(session, "recovered", notice, told, now=now, condition_id=condition.id)


async def forget(session: AsyncSession, condition: Condition) -> None:
    """Drop what tells of a condition, unless its sending was begun."""
    await session.execute(
        delete(Outbox).where(
            Outbox.condition_id == condition.id, Outbox.event == "attention", _WAITS, Outbox.begun_at.is_(None)
        )
    )


async def due_addresses(session: AsyncSession, now: datetime) -> Sequence[int]:
    """Return the addresses that a message is due for."""
    found = await session.scalars(select(Outbox.address).where(_WAITS, Outbox.due_at <= now).distinct())
    return sorted(found)


async def due_for(session: AsyncSession, address: int, now: datetime) -> Sequence[Outbox]:
    """Return the messages that are due for an address, the oldest first.

    One of a settled upload brings along those that came while it waited for others.
    """
    gathered = and_(Outbox.event == "settled", Outbox.attempts == 0)
    waiting = select(Outbox).where(Outbox.address == address, _WAITS, or_(Outbox.due_at <= now, gathered))
    found = (await session.scalars(waiting.order_by(Outbox.id))).all()
    due = [one for one in found if one.due_at is not None and one.due_at <= now]
    return found if any(one.event == "settled" for one in due) else due


async def record_sent(session: AsyncSession, address: int, ids: Sequence[int], now: datetime) -> None:
    """Note what was sent; whatever else this address has refused is as good as new, and can be tried now."""
    await session.execute(update(Outbox).where(Outbox.id.in_(ids)).values(sent_at=now, begun_at=None, error=None))
    refused = update(Outbox).where(Outbox.address == address, _WAITS, Outbox.attempts > 0)
    await session.execute(refused.values(attempts=0, due_at=now))


async def failures(session: AsyncSession, address: int) -> int:
    """Return how often in a row an address has taken nothing."""
    return await session.scalar(select(func.max(Outbox.attempts)).where(Outbox.address == address, _WAITS)) or 0


async def record_failure(session: AsyncSession, address: int, error: str, *, failures: int, due_at: datetime) -> int:
    """Note that what was begun was not sent, the last of so many failures in a row; returns how many were tried.

    Everything that the address has refused waits for the same moment.
    """
    here = update(Outbox).where(Outbox.address == address, _WAITS)
    tried = await session.execute(
        here.where(Outbox.begun_at.is_not(None)).values(begun_at=None, attempts=failures, error=error)
    )
    await session.execute(here.where(Outbox.attempts > 0).values(attempts=failures, due_at=due_at))
    return int(getattr(tried, "rowcount", 0))


async def take_up(session: AsyncSession, subscription: Subscription, *, now: datetime, soon: timedelta) -> int:
    """At the start: try at once what has failed, since the settings may be others now; returns how many were dropped.

    Dropped is what was for an address that is gone from the settings. What tells of trouble that may have healed
    meanwhile waits for `soon`, until the work has had a chance to show that.
    """
    gone = await session.execute(delete(Outbox).where(_WAITS, Outbox.address > subscription.addresses))
    await session.execute(update(Outbox).where(_WAITS, Outbox.attempts > 0).values(due_at=now))
    may_have_healed = select(Condition.id).where(Condition.kind.in_(HEALS_BY_ITSELF))
    await session.execute(
        update(Outbox)
        .where(
            _WAITS,
            Outbox.event == "attention",
            Outbox.condition_id.in_(may_have_healed),
            Outbox.due_at < now + soon,
        )
        .values(due_at=now + soon)
    )
    return int(getattr(gone, "rowcount", 0))


async def pending(session: AsyncSession) -> dict[int, int]:
    """Count the messages that wait, by address."""
    rows = await session.execute(select(Outbox.address, func.count()).where(_WAITS).group_by(Outbox.address))
    return dict(rows.all())
