"""Cron expressions mean what crontab(5) says."""

from datetime import UTC, datetime, timedelta

import pytest

from watcher.cron import cron_trigger

SUNDAY = datetime(2026, 11, 22, tzinfo=UTC)
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def week(expression: str) -> list[str]:
    trigger, at, found = cron_trigger(f"0 9 * * {expression}"), SUNDAY, []
    while (at := trigger.get_next_fire_time(None, at)) < SUNDAY + timedelta(days=7):
        assert at.hour == 9
        found.append(DAYS[(at - SUNDAY).days])
        at += timedelta(minutes=1)
    return found


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        ("*", "sun mon tue wed thu fri sat"),
        ("0", "sun"),
        ("7", "sun"),
        ("1-5", "mon tue wed thu fri"),
        ("MON-fri", "mon tue wed thu fri"),
        ("0,6", "sun sat"),
        ("5-7", "sun fri sat"),
        ("5-1", "sun mon fri sat"),
        ("0-6", "sun mon tue wed thu fri sat"),
        ("1-7", "sun mon tue wed thu fri sat"),
        ("*/2", "sun tue thu sat"),
        ("1-5/2", "mon wed fri"),
        ("sat", "sat"),
    ],
)
def test_days_of_the_week(expression: str, days: str) -> None:
    assert week(expression) == days.split()


@pytest.mark.parametrize(
    "expression", ["", "* * * *", "61 * * * *", "0 9 * * 8", "0 9 * * x", "0 9 * * 1-5/0", "0 9 * * 1-", "0 0 30 2 *"]
)
def test_what_is_none(expression: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        cron_trigger(expression)
