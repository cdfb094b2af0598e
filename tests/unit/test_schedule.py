"""How long it is between two scans, and turns that are missed."""

from datetime import datetime, timedelta

import pytest
from apscheduler.events import EVENT_JOB_EXECUTED, EVENT_JOB_MAX_INSTANCES, JobEvent
from structlog.testing import capture_logs

from tests.support.clock import START
from watcher import metrics
from watcher.schedule import Misses, scan_interval
from watcher.settings import Settings

FRIDAY_EVENING = datetime.fromisoformat("2026-03-06T17:45:07+00:00")
MONDAY_MORNING = datetime.fromisoformat("2026-03-09T09:00:00+00:00")


def by_cron(expression: str, last: datetime) -> timedelta:
    return scan_interval(Settings().replace("fragalysis", scan_cron=expression), last)


def test_by_interval() -> None:
    assert scan_interval(Settings().replace("fragalysis", scan_interval="20m"), START) == timedelta(minutes=20)


def test_three_intervals_are_over_when_three_scans_should_have_come() -> None:
    interval = by_cron("*/15 9-17 * * mon-fri", FRIDAY_EVENING)
    assert abs(FRIDAY_EVENING + 3 * interval - (MONDAY_MORNING + timedelta(minutes=30))) < timedelta(seconds=1)


@pytest.mark.parametrize("early", [0, 20])
def test_a_scan_that_came_a_little_early_is_not_waited_for_again(early: int) -> None:
    last = START.replace(hour=6, minute=30) - timedelta(seconds=early)
    assert abs(by_cron("30 6 * * *", last) - timedelta(days=1)) < timedelta(seconds=10)


def test_missed_turns_are_counted_and_told_once() -> None:
    def misses() -> float:
        return metrics.REGISTRY.get_sample_value("watcher_scheduler_misses_total", {"task": "poll"}) or 0

    before = misses()
    told = Misses()
    with capture_logs() as logs:
        for _ in range(3):
            told.missed(JobEvent(EVENT_JOB_MAX_INSTANCES, "poll", "default"))
        assert misses() == before + 3
        assert [one["job"] for one in logs] == ["poll"]
        told.executed(JobEvent(EVENT_JOB_EXECUTED, "poll", "default"))
        told.missed(JobEvent(EVENT_JOB_MAX_INSTANCES, "poll", "default"))
    assert len(logs) == 2
