"""A 404 about one upload: of a server that is being changed, until it lasts."""

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.pipeline import A, Job
from tests.support.storm import (
    BOUGHT_ALONE,
    ROWS_ALONE,
    Age,
    Story,
    calm,
    ends_right,
    fault,
    help_out,
    storm,
    told_once,
)
from watcher.pipeline.failures import NOT_FOUND_BEFORE_QUARANTINE
from watcher.pipeline.runner import Runner

pytest_plugins = ("tests.support.story",)

UPLOAD = "A71EV2A@lb32627-66 upload 1"


class Case(NamedTuple):
    """What is asked for, of which age of Fragalysis, and who is told of."""

    call: str
    age: Age
    subject: str
    kind: str


CASES = (
    Case("observations", "2026", "fragalysis", "scoring_quarantined"),
    Case("request", "2024", "download", "archive_quarantined"),
    Case("request_task", "2026", "download", "archive_quarantined"),
)
every = pytest.mark.parametrize("case", CASES, ids=[case.call for case in CASES])


async def five_minutes(job: Job, runner: Runner) -> None:
    before = job.clock.now()
    await job.again(runner)
    await job.later(runner, minutes=4)
    assert (job.clock.now() - before).total_seconds() >= 300


async def an_hour(job: Job, runner: Runner) -> None:
    await job.again(runner)
    for wait in (5, 28, 28):
        await job.later(runner, minutes=wait)


@every
@pytest.mark.parametrize("lasts", [False, True], ids=["once", "five minutes"])
async def test_a_404_that_passes_needs_nobody(tmp_path: Path, story: Story, case: Case, lasts: bool) -> None:
    async with storm(tmp_path, case.age, alone=True) as job, job.run() as runner:
        rule = fault(case.call, "404", job, times=None if lasts else 1)
        await (five_minutes(job, runner) if lasts else job.again(runner))
        assert rule.hits == (8 if lasts else 1)
        await calm(job, runner)
        await ends_right(job, BOUGHT_ALONE, ROWS_ALONE)
        told_once(story, {(case.subject, "unreachable")})


@every
@pytest.mark.parametrize("kind", ["502", "404_page"])
async def test_a_404_at_the_end_of_an_outage_sets_nothing_aside(
    tmp_path: Path, story: Story, case: Case, kind: str
) -> None:
    async with storm(tmp_path, case.age, alone=True) as job, job.run() as runner:
        fault(case.call, kind, job)
        await an_hour(job, runner)
        (upload,) = await job.uploads()
        assert max(upload.scoring_attempts, upload.archive_attempts) >= NOT_FOUND_BEFORE_QUARANTINE
        job.sandbox.clear_faults()
        rule = fault(case.call, "404", job, times=1)
        await job.later(runner, minutes=20)
        assert rule.hits == 1
        await calm(job, runner)
        await ends_right(job, BOUGHT_ALONE, ROWS_ALONE)
        told_once(story, {(case.subject, "unreachable")})


@every
async def test_a_404_that_lasts_is_left_to_a_person(tmp_path: Path, story: Story, case: Case) -> None:
    async with storm(tmp_path, case.age, alone=True) as job, job.run() as runner:
        rule = fault(case.call, "404", job)
        await job.again(runner)
        assert [*await job.conditions()] == [f"{case.subject}: unreachable"]
        for wait in (5, 28, 28):
            await job.later(runner, minutes=wait)
        assert [*await job.conditions()] == [f"{UPLOAD}: {case.kind}"]
        assert rule.hits == NOT_FOUND_BEFORE_QUARANTINE, "and it is left alone"
        await help_out(job)
        await calm(job, runner)
        await ends_right(job, BOUGHT_ALONE, ROWS_ALONE)
        told_once(story, {(case.subject, "unreachable"), (UPLOAD, case.kind)})


@pytest.mark.parametrize("lasts", [False, True], ids=["five minutes", "an hour"])
async def test_the_second_reading_is_not_given_up_for_a_404_that_passes(
    tmp_path: Path, story: Story, lasts: bool
) -> None:
    async with storm(tmp_path, alone=True) as job, job.run() as runner:
        await job.again(runner)
        job.clock.advance(11 * 60)
        target = job.sandbox.fragalysis.world.find(*A)
        job.sandbox.fragalysis.add_upload(*A, [("A0500a", "CCCl", "Z7")])  # a late row of the upload that is there
        target.uploads.pop()
        target.published = 1
        fault("observations", "404", job)
        await (an_hour if lasts else five_minutes)(job, runner)
        given_up = [one for one in story.logs if one["event"] == "second_reading_given_up"]
        assert len(given_up) == lasts
        await calm(job, runner)
        assert ("CCCl" in job.bought) != lasts
        assert await job.conditions() == {}
        assert not await job.ever("scoring_quarantined")
        told_once(story, {("fragalysis", "unreachable")})
