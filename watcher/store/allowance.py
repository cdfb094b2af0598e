"""The daily limit: what was sent in the last 24 hours, and what may still be sent."""

from datetime import datetime, timedelta

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store.schema import Batch, BatchItem, Claim, Profile
from watcher.store.standing import DAILY_LIMIT, Policy

DAY = timedelta(hours=24)


async def sent_within_a_day(session: AsyncSession, now: datetime) -> int:
    """Count the compounds sent in the last 24 hours: live items, and those of released batches that turned up."""
    count = await session.scalar(
        select(func.count())
        .select_from(BatchItem)
        .join(Batch, Batch.id == BatchItem.batch_id)
        .where(Batch.sent_at > now - DAY, or_(BatchItem.live, Batch.remote_id.is_not(None)))
    )
    return count or 0


async def daily_allowance(session: AsyncSession, policy: Policy, now: datetime) -> int | None:
    """Return how many compounds may still be sent now; None without a limit."""
    if not policy.compounds_per_day:
        return None
    return max(0, policy.compounds_per_day - await sent_within_a_day(session, now))


async def release_daily(session: AsyncSession, profile: Profile, now: datetime) -> None:
    """Let what the daily limit held back be considered again."""
    await session.execute(
        update(Claim)
        .where(and_(Claim.profile_id == profile.id, Claim.state == "withheld", Claim.reason == DAILY_LIMIT))
        .values(state="wanted", reason=None, changed_at=now)
    )


async def sendable(session: AsyncSession, profile_key: str) -> tuple[bool, bool]:
    """Say whether any claim of the profile is free to go, and whether the daily limit alone holds any back."""
    mine = select(Claim.id).join(Profile, Profile.id == Claim.profile_id).where(Profile.key == profile_key)
    wanted = await session.scalar(select(mine.where(Claim.state == "wanted").exists()))
    held = await session.scalar(select(mine.where(Claim.state == "withheld", Claim.reason == DAILY_LIMIT).exists()))
    return bool(wanted), bool(held)
