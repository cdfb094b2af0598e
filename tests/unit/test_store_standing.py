"""The one place that decides whether a compound may be sent."""

from dataclasses import replace
from itertools import product

import pytest

from watcher.store.standing import BASELINE, NOT_CURRENT, PRIVATE, PROFILE, SCAN_LIMIT, Facts

FREE = Facts(
    profile_approved=True, current=True, may_leave=True, beyond_baseline=True, over_scan_limit=False, approved=False
)
NAMES = ("profile_approved", "current", "may_leave", "beyond_baseline", "over_scan_limit", "approved")
EVERY = [Facts(*values) for values in product([False, True], repeat=6)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"profile_approved": False}, PROFILE),
        ({"current": False}, NOT_CURRENT),
        ({"may_leave": False}, PRIVATE),
        ({"beyond_baseline": False}, BASELINE),
        ({"over_scan_limit": True}, SCAN_LIMIT),
        ({"beyond_baseline": False, "over_scan_limit": True, "approved": True}, None),
        ({"may_leave": False, "approved": True}, PRIVATE),
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
            assert facts.approved or (facts.beyond_baseline and not facts.over_scan_limit)


def test_only_what_could_go_uses_the_limit_of_a_scan() -> None:
    for facts in EVERY:
        could_go = facts.current and facts.may_leave and facts.beyond_baseline and not facts.approved
        assert facts.uses_scan_limit() == could_go
