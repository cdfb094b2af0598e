"""The clock of the machine is set back: no limit is passed, nothing waits an hour longer, nothing is due for ever."""

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.integration.test_stages_purchases import approve
from tests.support.pipeline import A, Job, JobClock, world
from watcher.store import targets
from watcher.store.engine import RecordUnavailable
from watcher.store.instance import instance

pytestmark = pytest.mark.slow

HOUR = timedelta(hours=1)
ALL = {"CCO": 1, "CCN": 1, "c1ccccc1": 1}


class SetBack(JobClock):
    """A clock that people set; the one beside it that nobody sets goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = timedelta()
        self.steps = 0

    def now(self) -> datetime:
        return super().now() + self.offset


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as logs:
        yield logs


@pytest.fixture
async def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: list[Any]) -> AsyncIterator[Job]:
    monkeypatch.setattr("tests.support.pipeline.JobClock", SetBack)
    async with world(tmp_path) as job:
        job.set("download", enabled=False)
        yield job
        assert isinstance(job.clock, SetBack)
        assert told(logs, "clock_set_back") == job.clock.steps, "said once for each time"


def set_back(job: Job, by: timedelta = HOUR) -> None:
    assert isinstance(job.clock, SetBack)
    job.clock.offset -= by
    job.clock.steps += 1


def told(logs: list[Any], name: str) -> int:
    return sum(one["event"] == name for one in logs)


@pytest.mark.slow
async def test_what_is_due_comes_when_it_would_have_come(job: Job) -> None:
    job.sandbox.molecule_one.pace.seconds_per_molecule = 100.0
    job.sandbox.molecule_one.pace.parallel = 1
    async with job.run() as runner:
        await runner.scan.request()
        while not job.posts():
            await runner.turn()
            await runner.idle()
        set_back(job)
        started = job.clock.monotonic()
        await job.again(runner)
    assert job.clock.monotonic() - started < 600
    assert job.bought == ALL
    assert {row.disposition for row in await job.rows()} == {"scored"}


@pytest.mark.parametrize("failing", ["status", "close_before_answer"])
async def test_pauses_do_not_grow_and_conditions_stay_sane(job: Job, failing: str) -> None:
    more: dict[str, Any] = {"status": 401} if failing == "status" else {}
    job.fault("fragalysis", failing, times=None, **more)
    async with job.run() as runner:
        await job.again(runner)
        (condition,) = await job.open_conditions()
        set_back(job)
        job.sandbox.clear_faults()
        await runner.turn()
        await job.later(runner, minutes=16)
        await job.later(runner, minutes=1)
    assert job.bought == ALL
    assert await job.conditions() == {}
    (closed,) = await job.ever(condition.kind)
    assert closed.until is not None
    assert closed.until >= closed.since


async def test_the_limit_of_a_day_stays_one(job: Job) -> None:
    job.set("limits", compounds_per_day=2)
    async with job.run() as runner:
        await job.again(runner)
        assert sum(job.bought.values()) == 2
        set_back(job)
        await job.again(runner)
        await job.later(runner, hours=23, minutes=50)
        assert sum(job.bought.values()) == 2, "a day has not passed, whatever the clock says"
        await job.later(runner, hours=1, minutes=20)
        await job.again(runner)
    assert job.bought == ALL


@pytest.mark.parametrize("running", [True, False])
async def test_what_was_sent_in_the_future_uses_up_one_day(job: Job, running: bool) -> None:
    """Also where a scan since then, or the last one before, hides how far the clock was ahead."""
    job.set("limits", compounds_per_day=2)
    async with job.run() as runner:
        await job.again(runner)
        assert job.program is not None
        async with job.program.context.store.write() as session:
            (await instance(session)).last_scan_at = job.clock.now() - timedelta(days=400)
        if running:
            set_back(job, timedelta(days=300))
            await job.again(runner)
    if not running:
        set_back(job, timedelta(days=300))
    async with job.run() as runner:
        await job.again(runner)
        await job.later(runner, hours=23)
        assert sum(job.bought.values()) == 2
        await job.later(runner, hours=2)
        await job.again(runner)
    assert job.bought == ALL
    assert await job.conditions() == {}


async def test_a_record_that_is_away_and_units_set_aside_do_not_wait_for_the_clock(job: Job) -> None:
    async with job.run() as runner:
        runner._outage.note(RecordUnavailable("gone"))
        runner._set_aside(("scan", 0))
        set_back(job)
        job.clock.advance(301)
        await job.again(runner)
    assert job.bought == ALL


async def test_a_purchase_in_doubt_is_held_no_shorter(job: Job) -> None:
    """The window is time in which the batch may turn up: set back, it is as long as it was."""
    job.set("molecule_one", on_unconfirmed="resubmit", unconfirmed_window="30m")
    job.sandbox.molecule_one.listing.lag = 10**6
    job.fault("molecule_one", "close_after", method="POST")
    async with job.run() as runner:
        await job.again(runner)
        (batch,) = await job.batches()
        assert batch.state == "unconfirmed"
        set_back(job)
        await job.later(runner, minutes=20)
        assert [one.state for one in await job.batches()] == ["unconfirmed"]
    assert job.bought == ALL
    assert batch.id == 1


async def test_the_first_look_at_the_service_comes_in_time(job: Job) -> None:
    job.fault("molecule_one", "status", "batch-search$", method="GET", status=500, times=None)
    async with job.run() as runner:
        await runner.scan.request()
        while not await job.conditions():
            await runner.turn()
            await runner.idle()
        set_back(job)
        job.sandbox.clear_faults()
        started = job.clock.monotonic()
        await job.again(runner)
        assert job.clock.monotonic() - started < 600
    assert job.bought == ALL


async def test_a_person_who_lets_purchases_go_on_is_heard(job: Job) -> None:
    job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z8"), ("A0401a", "CCCC", "Z9")])
    job.set("molecule_one", batch_size=1)
    body = {"message": "no preset"}
    job.fault("molecule_one", "status", "batch-search$", method="POST", times=4, status=400, body=body)
    async with job.run() as runner:
        await job.again(runner)
        assert [*await job.conditions()] == ["molecule_one: submissions_refused"]
    set_back(job)
    await approve(job)
    await job.once()
    assert await job.conditions() == {}, "what was refused before does not count against what is refused now"
    assert sum(job.bought.values()) == 2
    assert job.posts() == 3 + 1 + 2


async def test_a_start_after_the_clock_was_set_back(job: Job) -> None:
    await job.once()
    set_back(job)
    job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
    await job.once()
    await job.once()
    assert job.bought == {**ALL, "CCC": 1}
    assert await job.conditions() == {}


@pytest.mark.parametrize(
    ("ahead", "shown_by"), [(timedelta(hours=3), "the last scan"), (timedelta(days=5), "what is due too late")]
)
async def test_a_clock_that_was_ahead_until_the_program_ended(job: Job, ahead: timedelta, shown_by: str) -> None:
    """A batch that is scored, one that is in doubt, and a service that asked for a pause: none waits for that time."""
    job.set("molecule_one", batch_size=2)
    job.sandbox.molecule_one.pace.seconds_per_molecule = 3600.0
    job.sandbox.molecule_one.listing.lag = 10**6
    job.fault("molecule_one", "close_after", method="POST", times=1)
    async with job.run() as runner:
        await runner.scan.request()
        while job.posts() < 2:
            await runner.turn()
            await runner.idle()
        job.fault("fragalysis", "status", times=None, status=503, headers={"Retry-After": "3600"})
        while "fragalysis: unreachable" not in await job.conditions():
            await runner.request_scan()
            await runner.idle()
        assert {one.state for one in await job.batches()} == {"submitted", "unconfirmed"}
        if shown_by != "the last scan":
            assert job.program is not None
            async with job.program.context.store.write() as session:
                (await instance(session)).last_scan_at = job.clock.now() - 2 * ahead
    set_back(job, ahead)
    async with job.run():
        pass  # the next start finds all in order, and says nothing
    job.sandbox.clear_faults()
    job.sandbox.molecule_one.pace.seconds_per_molecule = 0.0
    job.sandbox.molecule_one.listing.lag = 0
    started = job.clock.monotonic()
    await job.once()
    assert job.clock.monotonic() - started < 60
    assert job.bought == ALL
    assert {row.disposition for row in await job.rows()} == {"scored"}
    assert await job.conditions() == {}


async def test_after_a_clock_that_was_ahead_a_second_reading_still_waits_for_late_rows(job: Job) -> None:
    await job.once()
    due_at = {one.settle_due_at for one in await job.uploads()}
    set_back(job, timedelta(hours=3))
    await job.once()
    settle = job.settings.fragalysis.settle
    brought = [one.settle_due_at for one in await job.uploads()]
    assert None not in due_at
    assert all(one is not None and timedelta() < one - job.clock.now() <= settle for one in brought), brought


async def test_a_build_that_was_asked_for_before_the_clock_was_set_back_counts_from_then(job: Job) -> None:
    await job.once()
    async with job.run():
        assert job.program is not None
        async with job.program.context.store.write() as session:
            upload, _ = await targets.upload_with_target(session, 1)
            upload.archive_task, upload.archive_task_at = "/viewer/task_status/1/", job.clock.now()
    set_back(job)
    async with job.run():
        pass
    assert [one.archive_task_at for one in await job.uploads()] == [job.clock.now(), None]


@pytest.mark.parametrize("settle", ["10m", "9d"])
async def test_a_clock_that_is_right_is_not_doubted(job: Job, settle: str) -> None:
    """Whatever the settings, or a server, put off; nothing is said of the clock."""
    job.set("fragalysis", settle=settle)
    job.fault("molecule_one", "status", method="GET", times=None, status=503, headers={"Retry-After": "86400"})
    await job.once()
    before = [one.settle_due_at for one in await job.uploads()]
    await job.once()
    assert None not in before
    assert [one.settle_due_at for one in await job.uploads()] == before
