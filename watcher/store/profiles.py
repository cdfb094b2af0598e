"""Scoring profiles: which is in force, and whether a person lets it spend money."""

from datetime import datetime

from sqlalchemy import exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store.claims import review
from watcher.store.conditions import close_condition
from watcher.store.schema import Batch, Claim, Profile
from watcher.store.standing import Policy
from watcher.store.transitions import say_after_commit

SERVICE = "molecule_one"
REFUSED = "submissions_refused"
"""Condition that stops purchases until a person approves the profile: everything was refused, no molecule to blame."""


async def ensure_profile(session: AsyncSession, key: str, api_version: str, normalised: str, now: datetime) -> Profile:
    """Return the profile in force. The first one of a record needs no approval, since nothing was bought before."""
    profile = await session.scalar(select(Profile).where(Profile.key == key))
    if profile is None:
        bought_before = await session.scalar(select(exists(select(Claim.id))))
        profile = Profile(
            key=key,
            api_version=api_version,
            normalised=normalised,
            created_at=now,
            approved_at=None if bought_before else now,
            approved_by=None if bought_before else "first profile of the record",
        )
        session.add(profile)
        await session.flush()
        say_after_commit(session, "profile_recorded", profile=key, approved=not bought_before, settings=normalised)
    return profile


async def approve_profile(session: AsyncSession, profile: Profile, policy: Policy, *, who: str, now: datetime) -> None:
    """Let purchases under this profile go ahead, also after the vendor has refused everything."""
    if profile.approved_at is None:
        profile.approved_at, profile.approved_by = now, who
    profile.resumed_after = await session.scalar(select(func.max(Batch.id)))
    await close_condition(session, SERVICE, REFUSED, now=now)
    await session.flush()
    say_after_commit(session, "profile_approved", profile=profile.key, who=who)
    await review(session, profile, policy, now=now)
