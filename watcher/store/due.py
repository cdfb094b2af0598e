"""Moments at which something is due, after the clock was set back."""

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

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


async def bring_forward(session: AsyncSession, *, by: timedelta, now: datetime) -> int:
    """Let everything that lies ahead be due so much earlier; returns how many moments were moved.

    Moments in the past stay what they are: facts.
    """
    moved = 0
    for column in _DUE:
        for row in await session.scalars(select(column.class_).where(column > now)):
            setattr(row, column.key, max(now, getattr(row, column.key) - by))
            moved += 1
    await session.flush()
    return moved
