"""The one place that decides whether a compound may be sent."""

from dataclasses import fields, replace
from itertools import product

import pytest

from watcher.store.standing import (
    BASELINE,
    NOT_CURRENT,
    PRIVATE,
    PROFILE,
    SCAN_LIMIT,
    TOO_LARGE,
    Facts,
    Policy,
)

FREE = Facts(
    profile_approved=True,
    current=True,
    may_leave=True,
    small_enough=True,
    beyond_baseline=True,
    over_scan_limit=False,
    approved=False,
)
EVERY = [Facts(*values) for values in product([False, True], repeat=len(fields(Facts)))]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"profile_approved": False}, PROFILE),
        ({"current": False}, NOT_CURRENT),
        ({"may_leave": False}, PRIVATE),
        ({"small_enough": False}, TOO_LARGE),
        ({"beyond_baseline": False}, BASELINE),
        ({"over_scan_limit": True}, SCAN_LIMIT),
        ({"beyond_baseline": False, "over_scan_limit": True, "approved": True}, None),
        ({"may_leave": False, "approved": True}, PRIVATE),
        ({"small_enough": False, "approved": True}, TOO_LARGE),
        ({"small_enough": False, "beyond_baseline": False, "over_scan_limit": True}, TOO_LARGE),
        ({"current": False, "approved": True}, NOT_CURRENT),
        ({"profile_approved": False, "approved": True}, PROFILE),
    ],
)
def test_what_holds_a_compound_back(changes: dict[str, bool], reason: str | None) -> None:
    assert replace(FREE, **changes).standing() == reason


def test_nothing_leaves_without_profile_current_upload_and_leave() -> None:
    for facts in EVERY:
        if facts.standing() is None:
            assert facts.profile_approved
            assert facts.current
            assert facts.may_leave
            assert facts.small_enough
            assert facts.approved or (facts.beyond_baseline and not facts.over_scan_limit)


def test_only_what_could_go_uses_the_limit_of_a_scan() -> None:
    for facts in EVERY:
        may_ever = facts.current and facts.may_leave and facts.small_enough
        assert facts.uses_scan_limit() == (may_ever and facts.beyond_baseline and not facts.approved)


def test_a_limit_of_size_allows_its_own_number() -> None:
    assert [Policy(max_heavy_atoms=5).allows(size) for size in (4, 5, 6)] == [True, True, False]
    assert Policy().allows(10**6), "no limit"
