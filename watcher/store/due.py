"""Moments at which something is due, after the clock was set back: what shows it, and what follows."""

from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store.instance import instance
from watcher.store.schema import Batch, Condition, Instance, Outbox, Upload

_DUE = (
    Instance.scan_due_at,
    Upload.archive_due_at,
    Upload.scoring_due_at,
    Upload.settle_due_at,
    Batch.due_at,
    Condition.retry_at,
    Outbox.due_at,
)


async def was_ahead(session: AsyncSession, *, longest: timedelta, now: datetime) -> timedelta:
    """Return how far, at least, the clock was ahead when the record was written; not positive when nothing shows it.

    No scan can have ended later than now, no batch sent, and nothing is ever put off for more than `longest`.
    """
    latest = [await session.scalar(select(func.max(column))) for column in _DUE]
    known = [moment - longest for moment in latest if moment is not None]
    facts = ((await instance(session)).last_scan_at, await session.scalar(select(func.max(Batch.sent_at))))
    known += [moment for moment in facts if moment is not None]
    return max((moment - now for moment in known), default=timedelta())


async def bring_forward(
    session: AsyncSession, *, by: timedelta | None, settle: timedelta = timedelta(), now: datetime
) -> int:
    """Let everything that lies ahead be due so much earlier, or now for None; returns how many moments were moved.

    Moments in the past stay what they are: facts. A batch that was sent in the future counts as sent now, so that it
    uses up the daily limit for one whole day, and not until that date; likewise a build that was asked for in the
    future, which is waited for no longer than others. For None a second reading still waits for `settle` at most: rows
    that come late are not there yet, and there is no third.
    """
    moved = 0
    for column in _DUE:
        earliest = now + settle if by is None and column is Upload.settle_due_at else now
        for row in await session.scalars(select(column.class_).where(column > earliest)):
            setattr(row, column.key, earliest if by is None else max(now, getattr(row, column.key) - by))
            moved += 1
    own = await instance(session)
    if own.last_scan_at is not None and own.last_scan_at > now:
        own.last_scan_at = now
    await session.execute(update(Batch).where(Batch.sent_at > now).values(sent_at=now))
    await session.execute(update(Upload).where(Upload.archive_task_at > now).values(archive_task_at=now))
    await session.flush()
    return moved
