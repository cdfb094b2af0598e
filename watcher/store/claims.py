"""Claims: which compounds are to be scored, which of them may be sent, and why the others may not.

`Facts.standing` is the one place that decides; it is looked up anew inside the transaction that spends the money.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, exists, false, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from watcher.store.schema import Alias, Claim, Observation, Profile, Target, Upload
from watcher.store.transitions import note

PROFILE = "the scoring profile is new and waits for `watcher approve --profile`"
NOT_CURRENT = "no current upload of a followed target holds it"
PRIVATE = "seen in private targets only"
BASELINE = "it was there when the target was first seen"
SCAN_LIMIT = "over limits.new_compounds_per_scan"
DAILY_LIMIT = "over limits.compounds_per_day"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings allow to be sent; numbers of 0 mean no limit."""

    compounds_per_day: int = 0
    new_compounds_per_scan: int = 0
    submit_private: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides whether a claim may be sent now."""

    profile_approved: bool
    current: bool
    """A current upload of a followed target holds the compound."""
    may_leave: bool
    """One of these targets is open to the public, or private ones are allowed."""
    beyond_baseline: bool
    """One of these targets held it only after it was first seen."""
    over_scan_limit: bool
    approved: bool

    def standing(self) -> str | None:
        """Return the reason to withhold the claim; None when it may be sent."""
        if not self.profile_approved:
            return PROFILE
        if not self.current:
            return NOT_CURRENT
        if not self.may_leave:
            return PRIVATE
        if self.approved:
            return None
        if not self.beyond_baseline:
            return BASELINE
        return SCAN_LIMIT if self.over_scan_limit else None


def _current_compounds() -> Select[int | None, int, bool | None, int | None]:
    """Compounds of the current uploads of followed targets: compound, target, its openness, its baseline upload."""
    return (
        select(Alias.compound_id, Target.id, Target.open_to_public, Target.baseline_upload_id)
        .select_from(Target)
        .join(Observation, Observation.upload_id == Target.current_upload_id)
        .join(Alias, Alias.id == Observation.alias_id)
        .where(Target.followed, Alias.compound_id.is_not(None))
    )


async def add_missing(
    session: AsyncSession, profile: Profile, policy: Policy, *, upload: Upload | None, scan_no: int, now: datetime
) -> int:
    """Make a first-round claim for each compound that has none under this profile; returns how many.

    The compounds are those of `upload`, or of every current upload. Those beyond `new_compounds_per_scan` are marked;
    compounds that will not be sent anyway do not use the limit up.
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
        Claim(
            compound_id=compound_id,
            profile_id=profile.id,
            round=1,
            state="withheld",
            reason=NOT_CURRENT,
            scan_no=scan_no,
            over_scan_limit=False,
            created_at=now,
            changed_at=now,
        )
        for compound_id in await session.scalars(query)
    ]
    session.add_all(new)
    await session.flush()
    if policy.new_compounds_per_scan and new:
        await _mark_over_scan_limit(session, profile, policy, new, scan_no)
    await review(session, profile, policy, now=now, claims=new)
    return len(new)


async def _mark_over_scan_limit(
    session: AsyncSession, profile: Profile, policy: Policy, new: Sequence[Claim], scan_no: int
) -> None:
    facts = await _facts(session, profile, policy, [claim.id for claim in new])
    sendable = [claim for claim in new if facts[claim.id].standing() in (None, PROFILE)]
    earlier = await session.scalar(
        select(func.count())
        .select_from(Claim)
        .where(
            Claim.scan_no == scan_no,
            Claim.profile_id == profile.id,
            Claim.round == 1,
            Claim.id < min(claim.id for claim in new),
            or_(Claim.state != "withheld", Claim.reason == DAILY_LIMIT),
        )
    )
    room = max(0, policy.new_compounds_per_scan - (earlier or 0))
    for claim in sendable[room:]:
        claim.over_scan_limit = True
    await session.flush()


async def _facts(
    session: AsyncSession, profile: Profile, policy: Policy, claim_ids: Sequence[int] | None
) -> dict[int, Facts]:
    """Look up what decides about the open claims of a profile, or about some of them."""
    current = _current_compounds().subquery()
    in_baseline = aliased(Observation)
    baseline_alias = aliased(Alias)
    was_baseline = exists(
        select(in_baseline.id)
        .join(baseline_alias, baseline_alias.id == in_baseline.alias_id)
        .where(
            in_baseline.upload_id == current.c.baseline_upload_id,
            baseline_alias.compound_id == current.c.compound_id,
        )
    )
    may_leave = or_(current.c.open_to_public.is_(True), true() if policy.submit_private else false())
    here = current.c.compound_id == Claim.compound_id
    query = select(
        Claim.id,
        exists(select(current.c.id).where(here)),
        exists(select(current.c.id).where(here, may_leave)),
        exists(select(current.c.id).where(here, may_leave, or_(current.c.baseline_upload_id.is_(None), ~was_baseline))),
        Claim.over_scan_limit,
        Claim.approved_at.is_not(None),
    ).where(Claim.profile_id == profile.id, Claim.state.in_(("wanted", "withheld")))
    if claim_ids is not None:
        query = (
            query.where(Claim.id.in_(claim_ids))
            if len(claim_ids) < 1000
            else query.where(Claim.id >= min(claim_ids), Claim.id <= max(claim_ids))
        )
    return {
        row[0]: Facts(profile.approved_at is not None, *(bool(value) for value in row[1:]))
        for row in await session.execute(query)
    }


async def review(
    session: AsyncSession,
    profile: Profile,
    policy: Policy,
    *,
    now: datetime,
    claims: Sequence[Claim] | None = None,
) -> None:
    """Set every open claim of the profile (or these) to `wanted` or `withheld` with its reason, as the facts say now.

    What the daily limit holds back stays held back here; `under_daily_limit` decides about it.
    """
    facts = await _facts(session, profile, policy, [claim.id for claim in claims] if claims is not None else None)
    if claims is None:
        claims = (
            await session.scalars(
                select(Claim).where(Claim.profile_id == profile.id, Claim.state.in_(("wanted", "withheld")))
            )
        ).all()
    for claim in claims:
        reason = facts[claim.id].standing() if claim.id in facts else claim.reason
        if reason is None and claim.reason == DAILY_LIMIT and not facts[claim.id].approved:
            reason = DAILY_LIMIT
        set_standing(claim, reason, now)
    await session.flush()


def set_standing(claim: Claim, reason: str | None, now: datetime) -> None:
    """Set an open claim to wanted, or to withheld for a reason."""
    state = "wanted" if reason is None else "withheld"
    if (claim.state, claim.reason) != (state, reason):
        claim.state, claim.reason, claim.changed_at = state, reason, now


async def approve(
    session: AsyncSession, target_ids: Sequence[int], *, who: str, now: datetime, profile: Profile, policy: Policy
) -> int:
    """Let the withheld claims of these targets' current uploads go ahead; returns how many were released.

    Approval lifts the baseline and both limits. It does not lift privacy, which is a setting.
    """
    held = (
        await session.scalars(
            select(Claim).where(
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
    ).all()
    for claim in held:
        claim.approved_at, claim.approved_by = now, who
    await session.flush()
    await review(session, profile, policy, now=now, claims=held)
    for target_id in target_ids:
        note(session, "target", target_id, "approved", None, f"{len(held)} compounds", at=now, who=who, why="approved")
    return sum(claim.state == "wanted" for claim in held)


async def count_open(session: AsyncSession, profile: Profile) -> dict[str | None, int]:
    """Count the claims that wait, by the reason that withholds them (None: free to go)."""
    rows = await session.execute(
        select(Claim.reason, func.count())
        .where(Claim.profile_id == profile.id, Claim.state.in_(("wanted", "withheld")))
        .group_by(Claim.reason)
    )
    return dict(rows.tuples().all())


async def settled_uploads(session: AsyncSession) -> Sequence[int]:
    """Return the extracted uploads none of whose compounds waits for a result under any profile.

    Compounds that are withheld for good (baseline, private, not current) do not wait; those over a limit do.
    """
    waiting = (
        select(Observation.id)
        .join(Alias, Alias.id == Observation.alias_id)
        .join(Claim, Claim.compound_id == Alias.compound_id)
        .where(
            Observation.upload_id == Upload.id,
            or_(
                Claim.state.in_(("wanted", "reserved")),
                (Claim.state == "withheld") & Claim.reason.not_in((BASELINE, PRIVATE, NOT_CURRENT)),
            ),
        )
    )
    found = await session.scalars(select(Upload.id).where(Upload.scoring_state == "extracted", ~waiting.exists()))
    return found.all()
