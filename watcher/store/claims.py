"""Claims: which compounds are to be scored, and which of them are held back."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store.chunks import chunks
from watcher.store.schema import Alias, Claim, Instance, Observation, Profile, Target, Upload
from watcher.store.standing import (
    BASELINE,
    DAILY_LIMIT,
    NOT_CURRENT,
    OPEN,
    OTHER_PROFILE,
    PRIVATE,
    TOO_LARGE,
    OpenClaim,
    Policy,
    open_claims,
)
from watcher.store.transitions import note

_FOR_GOOD = (BASELINE, PRIVATE, TOO_LARGE, NOT_CURRENT, OTHER_PROFILE)
"""Reasons that only a person, or another upload, takes away."""


async def add_missing(
    session: AsyncSession, profile: Profile, policy: Policy, *, upload: Upload | None, scan_no: int, now: datetime
) -> int:
    """Make a first-round claim for each compound that has none under this profile; returns how many.

    The compounds are those of `upload`, or of every current upload. `scan_no` is the scan that brought them: what is
    beyond its `new_compounds_per_scan` is held back.
    """
    query = (
        select(Alias.compound_id)
        .select_from(Observation)
        .join(Alias, Alias.id == Observation.alias_id)
        .join(Target, Target.current_upload_id == Observation.upload_id)
        .where(
            Alias.compound_id.is_not(None),
            ~exists().where(Claim.compound_id == Alias.compound_id, Claim.profile_id == profile.id, Claim.round == 1),
        )
        .distinct()
        .order_by(Alias.compound_id)
    )
    if upload is not None:
        query = query.where(Observation.upload_id == upload.id)
    new = [
        {
            "compound_id": compound_id,
            "profile_id": profile.id,
            "round": 1,
            "state": "withheld",
            "reason": NOT_CURRENT,
            "scan_no": scan_no,
            "over_scan_limit": False,
            "created_at": now,
            "changed_at": now,
        }
        for compound_id in await session.scalars(query)
    ]
    if new:
        await session.execute(insert(Claim), new)
        await review(session, profile, policy, now=now, scan_no=scan_no)
    return len(new)


async def review(
    session: AsyncSession, profile: Profile, policy: Policy, *, now: datetime, scan_no: int | None = None
) -> None:
    """Set every open claim to `wanted`, or to `withheld` with its reason, as the facts say now.

    `profile` is the one in force; claims under others wait for its return. Claims that could not be sent before, as
    those of a target that was private, come under the limit of scan `scan_no`, or of the last one. What the daily
    limit holds back stays held back here; `purchases.reserve` decides about it.
    """
    await _set_aside_others(session, profile, now)
    found = await open_claims(session, profile, policy)
    found = await _count_against_scan(session, profile, policy, found, scan_no)
    changes: dict[str | None, list[int]] = {}
    for claim in found:
        reason = claim.facts.standing()
        if reason is None and claim.reason == DAILY_LIMIT and not claim.facts.approved:
            reason = DAILY_LIMIT
        if (claim.state, claim.reason) != _state_for(reason):
            changes.setdefault(reason, []).append(claim.id)
    for reason, ids in changes.items():
        await set_standing(session, ids, reason, now)


async def _set_aside_others(session: AsyncSession, profile: Profile, now: datetime) -> None:
    await session.execute(
        update(Claim)
        .where(
            Claim.profile_id != profile.id,
            or_(Claim.state == "wanted", (Claim.state == "withheld") & (Claim.reason != OTHER_PROFILE)),
        )
        .values(state="withheld", reason=OTHER_PROFILE, changed_at=now)
    )


async def _count_against_scan(
    session: AsyncSession, profile: Profile, policy: Policy, found: Sequence[OpenClaim], scan_no: int | None
) -> Sequence[OpenClaim]:
    """Apply the limit of a scan, once, to the claims that nothing else holds back; returns all with what followed."""
    new = [claim.id for claim in found if not claim.counted and claim.facts.uses_scan_limit()]
    if not new:
        return found
    if scan_no is None:
        scan_no = (await session.scalars(select(Instance.scan_no))).one()
    room = len(new)
    if policy.new_compounds_per_scan:
        earlier = await session.scalar(
            select(func.count())
            .select_from(Claim)
            .where(Claim.profile_id == profile.id, Claim.counted_in == scan_no, Claim.over_scan_limit.is_(False))
        )
        room = max(0, policy.new_compounds_per_scan - (earlier or 0))
    for ids, over in ((new[:room], False), (new[room:], True)):
        for chunk in chunks(ids):
            await session.execute(
                update(Claim).where(Claim.id.in_(chunk)).values(counted_in=scan_no, over_scan_limit=over)
            )
    beyond = set(new[room:])
    return [
        replace(claim, facts=replace(claim.facts, over_scan_limit=True)) if claim.id in beyond else claim
        for claim in found
    ]


def _state_for(reason: str | None) -> tuple[str, str | None]:
    return ("wanted" if reason is None else "withheld", reason)


async def set_standing(session: AsyncSession, claim_ids: Iterable[int], reason: str | None, now: datetime) -> None:
    """Set open claims to wanted, or to withheld for a reason."""
    state, _ = _state_for(reason)
    for chunk in chunks(list(claim_ids)):
        await session.execute(
            update(Claim)
            .where(Claim.id.in_(chunk), Claim.state.in_(OPEN))
            .values(state=state, reason=reason, changed_at=now)
        )


async def approve(
    session: AsyncSession, target_ids: Sequence[int], *, who: str, now: datetime, profile: Profile, policy: Policy
) -> int:
    """Let the withheld claims of these targets' current uploads go ahead; returns how many were released.

    Approval lifts the baseline and both limits. It lifts neither privacy nor the limit of size.
    """
    found = await session.scalars(
        select(Claim.id).where(
            Claim.profile_id == profile.id,
            Claim.state == "withheld",
            Claim.approved_at.is_(None),
            Claim.compound_id.in_(
                select(Alias.compound_id)
                .select_from(Target)
                .join(Observation, Observation.upload_id == Target.current_upload_id)
                .join(Alias, Alias.id == Observation.alias_id)
                .where(Target.id.in_(target_ids))
            ),
        )
    )
    held = found.all()
    for chunk in chunks(held):
        await session.execute(update(Claim).where(Claim.id.in_(chunk)).values(approved_at=now, approved_by=who))
    await review(session, profile, policy, now=now)
    for target_id in target_ids:
        note(session, "target", target_id, "approved", None, f"{len(held)} compounds", at=now, who=who, why="approved")
    released = 0
    for chunk in chunks(held):
        count = select(func.count()).select_from(Claim).where(Claim.id.in_(chunk), Claim.state == "wanted")
        released += await session.scalar(count) or 0
    return released


async def count_open(session: AsyncSession, profile: Profile) -> dict[str | None, int]:
    """Count the claims that wait, by the reason that withholds them (None: free to go)."""
    rows = await session.execute(
        select(Claim.reason, func.count())
        .where(Claim.profile_id == profile.id, Claim.state.in_(OPEN))
        .group_by(Claim.reason)
    )
    return dict(rows.all())


async def withheld_of(session: AsyncSession, profile: Profile, target_ids: Sequence[int]) -> dict[str, int]:
    """Count the withheld compounds of these targets' current uploads by the reason."""
    rows = await session.execute(
        select(Claim.reason, func.count(Claim.id.distinct()))
        .join(Alias, Alias.compound_id == Claim.compound_id)
        .join(Observation, Observation.alias_id == Alias.id)
        .join(Target, Target.current_upload_id == Observation.upload_id)
        .where(Target.id.in_(target_ids), Claim.profile_id == profile.id, Claim.state == "withheld")
        .group_by(Claim.reason)
        .order_by(Claim.reason)
    )
    return {reason or "": number for reason, number in rows}


async def settled_uploads(session: AsyncSession) -> Sequence[int]:
    """Return the extracted uploads none of whose compounds waits for a result.

    Compounds that are withheld for good (baseline, private, too large, not current, another profile in force) do not
    wait; those over a limit of numbers do.
    """
    waiting = (
        select(Observation.id)
        .join(Alias, Alias.id == Observation.alias_id)
        .join(Claim, Claim.compound_id == Alias.compound_id)
        .where(
            Observation.upload_id == Upload.id,
            or_(
                Claim.state.in_(("wanted", "reserved")),
                (Claim.state == "withheld") & Claim.reason.not_in(_FOR_GOOD),
            ),
        )
    )
    found = await session.scalars(select(Upload.id).where(Upload.scoring_state == "extracted", ~waiting.exists()))
    return found.all()
