"""Why an open claim may be sent, or may not: the decision, and the facts it rests on.

`Facts.standing` is the one place that decides; the facts are looked up again inside the transaction that spends money.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from sqlalchemy import Select, case, false, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from watcher.settings import LimitsSettings
from watcher.store.schema import Alias, Claim, Compound, Observation, Profile, Target, Upload

OPEN = ("wanted", "withheld")
"""States of a claim that is not bought."""
PROFILE = "the scoring profile is new and waits for `watcher approve --profile`"
OTHER_PROFILE = "another scoring profile is in force"
NOT_CURRENT = "no current upload of a followed target holds it"
PRIVATE = "seen in private targets only"
TOO_LARGE = "larger than limits.max_heavy_atoms"
BASELINE = "it was there when the target was first seen"
SCAN_LIMIT = "over limits.new_compounds_per_scan"
DAILY_LIMIT = "over limits.compounds_per_day"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings allow to be sent; numbers of 0 mean no limit."""

    compounds_per_day: int = 0
    new_compounds_per_scan: int = 0
    submit_private: bool = False
    max_heavy_atoms: int = 0

    @classmethod
    def of(cls, limits: LimitsSettings) -> Self:
        """Return what the settings say."""
        return cls(
            compounds_per_day=limits.compounds_per_day,
            new_compounds_per_scan=limits.new_compounds_per_scan,
            submit_private=limits.submit_private,
            max_heavy_atoms=limits.max_heavy_atoms,
        )

    def allows(self, heavy_atoms: int) -> bool:
        """Say whether a compound of this size may be sent; it may have been recorded under a higher limit."""
        return not self.max_heavy_atoms or heavy_atoms <= self.max_heavy_atoms


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides whether a claim may be sent now."""

    profile_approved: bool
    current: bool
    """A current upload of a followed target holds the compound."""
    may_leave: bool
    """One of these targets is open to the public, or private ones are allowed."""
    small_enough: bool
    """It is no larger than the settings allow now."""
    beyond_baseline: bool
    """One of the targets that let it leave held it only after that target was first seen."""
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
        if not self.small_enough:
            return TOO_LARGE
        if self.approved:
            return None
        if not self.beyond_baseline:
            return BASELINE
        return SCAN_LIMIT if self.over_scan_limit else None

    def uses_scan_limit(self) -> bool:
        """Say whether nothing but the limits and the approval of the profile stands in its way."""
        return not self.approved and replace(self, profile_approved=True, over_scan_limit=False).standing() is None


@dataclass(frozen=True, slots=True)
class OpenClaim:
    """A claim that is not bought, with what decides about it."""

    id: int
    state: str
    reason: str | None
    counted: bool
    """The limit of a scan has been applied to it."""
    facts: Facts


def baseline_uploads() -> Select[int]:
    """Return the uploads whose compounds were there when their target was first seen."""
    last = aliased(Upload)
    return (
        select(Upload.id)
        .join(Target, Target.id == Upload.target_id)
        .join(last, last.id == Target.baseline_upload_id)
        .where(Upload.committed_at <= last.committed_at)
    )


async def _current_compounds(session: AsyncSession, policy: Policy) -> dict[int, tuple[bool, bool]]:
    """Return the compounds of current uploads of followed targets: whether one may leave, and is beyond the baseline.

    Joined in Python: before it has statistics, as after the first large upload, the database would pick a quadratic
    plan.
    """
    baseline = await session.execute(
        select(Upload.target_id, Alias.compound_id)
        .join(Observation, Observation.upload_id == Upload.id)
        .join(Alias, Alias.id == Observation.alias_id)
        .where(Upload.id.in_(baseline_uploads()), Alias.compound_id.is_not(None))
        .distinct()
    )
    there_before = {(target_id, compound_id) for target_id, compound_id in baseline}
    may_leave = or_(Target.open_to_public.is_(True), true() if policy.submit_private else false())
    current = await session.execute(
        select(Target.id, Alias.compound_id, case((may_leave, 1), else_=0))
        .select_from(Target)
        .join(Observation, Observation.upload_id == Target.current_upload_id)
        .join(Alias, Alias.id == Observation.alias_id)
        .where(Target.followed, Alias.compound_id.is_not(None))
        .distinct()
    )
    found: dict[int, tuple[bool, bool]] = {}
    for target_id, compound_id, leaves in current:
        elsewhere = found.get(compound_id, (False, False))
        beyond = bool(leaves) and (target_id, compound_id) not in there_before
        found[compound_id] = (elsewhere[0] or bool(leaves), elsewhere[1] or beyond)
    return found


async def open_claims(session: AsyncSession, profile: Profile, policy: Policy) -> Sequence[OpenClaim]:
    """Look up the open claims of a profile, the oldest first, and what decides about them."""
    here = await _current_compounds(session, policy)
    rows = await session.execute(
        select(
            Claim.id,
            Claim.compound_id,
            Compound.heavy_atoms,
            Claim.state,
            Claim.reason,
            Claim.counted_in,
            Claim.over_scan_limit,
            Claim.approved_at,
        )
        .join(Compound, Compound.id == Claim.compound_id)
        .where(Claim.profile_id == profile.id, Claim.state.in_(OPEN))
        .order_by(Claim.id)
    )
    found: list[OpenClaim] = []
    for claim_id, compound_id, heavy_atoms, state, reason, counted_in, over, approved_at in rows:
        may_leave, beyond = here.get(compound_id, (False, False))
        facts = Facts(
            profile_approved=profile.approved_at is not None,
            current=compound_id in here,
            may_leave=may_leave,
            small_enough=policy.allows(heavy_atoms),
            beyond_baseline=beyond,
            over_scan_limit=over,
            approved=approved_at is not None,
        )
        found.append(OpenClaim(claim_id, state, reason, counted_in is not None, facts))
    return found
