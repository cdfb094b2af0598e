"""Fragalysis refuses one target and not the others, or a session that ended is met between two scans."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.pipeline import ROWS_B, A, B, Job, world

pytest_plugins = ("tests.support.at_once",)
pytestmark = pytest.mark.usefixtures("sqlite_at_once")

ALL = {"CCO": 1, "CCN": 1, "c1ccccc1": 1}


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[Job]:
    async with world(tmp_path) as job:
        yield job


async def test_a_target_whose_observations_are_refused_waits_alone(job: Job) -> None:
    job.fault("fragalysis", "status", "site_observations/.*target=1(&|$)", status=403, times=None)
    async with job.run() as runner:
        await job.again(runner)
        assert job.bought == {"CCN": 1, "c1ccccc1": 1}
        (condition,) = await job.open_conditions()
        assert (condition.subject, condition.kind, condition.retry_at) == ("extract", "credentials", None)
        assert condition.action.startswith("if the scan is refused too: set fragalysis.token")
        assert "ask the Fragalysis team" in condition.action
        job.sandbox.fragalysis.add_upload(*B, [*ROWS_B, ("P0400a", "CCC", "Z9")])
        await job.again(runner)
        assert "CCC" in job.bought, "the scans go on, and what they bring"
        for _ in range(6):
            await job.later(runner, minutes=20)
        assert [*await job.conditions()] == ["extract: credentials"]
        job.sandbox.clear_faults()
        await job.later(runner, minutes=20)
    assert job.bought == ALL | {"CCC": 1}
    assert await job.conditions() == {}
    assert len(await job.ever("credentials")) == 1


async def test_archives_that_are_refused_hold_up_nothing_else(job: Job) -> None:
    job.fault("fragalysis", "status", "download_structures", method="POST", status=403, times=None)
    async with job.run() as runner:
        await job.again(runner)
        for _ in range(3):
            await job.later(runner, minutes=20)
        assert job.bought == ALL
        (condition,) = await job.open_conditions()
        assert (condition.subject, condition.kind, condition.retry_at) == ("download", "credentials", None)
        assert f"the download of {A[0]} ({A[1]}) was refused" in condition.reason or B[0] in condition.reason
        assert [one.archive_state for one in await job.uploads()] == ["wanted", "wanted"]
        job.sandbox.clear_faults()
        await job.later(runner, minutes=20)
    assert [one.archive_state for one in await job.uploads()] == ["stored", "stored"]
    assert await job.conditions() == {}


async def test_a_session_that_ended_is_found_out_although_no_scan_is_to_come(job: Job) -> None:
    job.set("download", enabled=False)
    async with job.run() as runner:
        await job.again(runner)
        scans = job.asked("target_experiment_uploads")
        job.fault("fragalysis", "status", status=401, times=None)
        await job.later(runner, minutes=11)
        assert [*await job.conditions()] == ["extract: credentials"]
        assert job.asked("target_experiment_uploads") == scans, "the last one was not long ago"
        await job.later(runner, hours=1)
        assert {*await job.conditions()} == {"extract: credentials", "fragalysis: credentials"}
        job.sandbox.clear_faults()
        await job.later(runner, hours=1)
        await job.later(runner, hours=1)
    assert await job.conditions() == {}
