"""After a start, nothing is sent before it is known what the service has of ours already."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.batches import ALL, another, lose_answer, restore
from tests.support.pipeline import Job, world

pytest_plugins = ("tests.support.at_once", "tests.support.worlds")
pytestmark = pytest.mark.usefixtures("sqlite_at_once")

HELD = "molecule_one: read_back"
NO_LIST: dict[str, Any] = {"form": "missing"}
CUT: dict[str, Any] = {"form": "data", "limit": 0}
SHORT: dict[str, Any] = {"limit": 0}
NAMELESS: dict[str, Any] = {"names": False}
AS_IT_IS: dict[str, Any] = {"form": "auto", "limit": None, "names": True}


def listing(job: Job, how: dict[str, Any]) -> None:
    for name, value in how.items():
        setattr(job.sandbox.molecule_one.listing, name, value)


async def seen_before(job: Job) -> None:
    """A record that an earlier start made."""
    job.set("fragalysis", targets=["Nothing"])
    await job.once()
    job.set("fragalysis", targets=["*"])


@pytest.mark.parametrize(
    "how",
    [pytest.param(NO_LIST, id="none"), *(pytest.param(one, marks=pytest.mark.slow) for one in (CUT, NAMELESS))],
)
async def test_a_restored_record_waits_for_the_whole_list(job: Job, how: dict[str, Any]) -> None:
    await seen_before(job)
    backup = await asyncio.to_thread(Path(job.file).read_bytes)
    await job.once()
    await asyncio.to_thread(restore, Path(job.file), backup)
    listing(job, how)
    job.fault("molecule_one", "status", "batch-search/", method="GET", status=404, body="", times=None)
    async with job.run() as runner:
        await job.again(runner)
        for _ in range(3):
            await job.later(runner, minutes=8)
        assert job.posts() == 1, "for the whole window nothing is sent"
        assert "nothing is bought before" in (await job.conditions())[HELD]
        listing(job, AS_IT_IS)
        job.sandbox.clear_faults()
        await job.later(runner, minutes=5)
        await job.later(runner, minutes=11)
    assert (job.bought, job.posts()) == (ALL, 1), "and then all is read back"
    assert {row.disposition for row in await job.rows()} == {"scored"}
    assert await job.conditions() == {}


async def test_a_list_that_leaves_out_what_is_at_work_opens_nothing(job: Job) -> None:
    job.sandbox.molecule_one.pace.manual = True
    job.set("fragalysis", targets=["A71*"])
    async with job.run() as runner:
        await runner.scan.request()
        while not job.posts():
            await runner.turn()
            await runner.idle()
    job.set("fragalysis", targets=["*"])
    listing(job, SHORT)
    async with job.run() as runner:
        await runner.scan.request()
        for _ in range(20):
            await runner.turn()
            await runner.idle()
        assert (job.posts(), [*await job.conditions()]) == (1, [HELD])
        listing(job, AS_IT_IS)
        job.sandbox.molecule_one.pace.manual = False
        await job.later(runner, minutes=5)
    assert (job.bought, job.posts()) == (ALL, 2)


async def test_after_the_window_it_goes_on_without_the_list(job: Job) -> None:
    """Several looks are spread over it, at each start anew."""
    await seen_before(job)
    listing(job, NO_LIST)
    for _ in range(2):
        async with job.run() as runner:
            await job.again(runner)
            await job.later(runner, minutes=25)
        assert (job.posts(), [*await job.conditions()]) == (0, [HELD])
    looks = job.asked("batch-search", of="molecule_one")
    async with job.run() as runner:
        await job.again(runner)
        for _ in range(4):
            await job.later(runner, minutes=8)
    assert job.bought == ALL
    assert job.asked("batch-search$", of="molecule_one") - looks < 20
    assert await job.conditions() == {}


async def test_one_look_in_a_long_time_is_not_several(job: Job) -> None:
    await seen_before(job)
    listing(job, NO_LIST)
    async with job.run() as runner:
        await runner.scan.request()
        await runner.turn()
        await runner.idle()
        job.clock.advance(3600)
        await runner.turn()
        await runner.idle()
        assert not runner._sending.allowed
        await job.later(runner, minutes=1)
        await job.later(runner, minutes=1)
    assert job.bought == ALL


@pytest.mark.parametrize("how", [NO_LIST, pytest.param(CUT, marks=pytest.mark.slow)], ids=["none", "cut"])
async def test_a_new_record_has_nothing_to_wait_for(job: Job, how: dict[str, Any]) -> None:
    listing(job, how)
    await job.once()
    assert job.bought == ALL
    assert await job.ever("read_back") == []


@pytest.mark.parametrize("status", [400, 403, 500])
async def test_where_a_list_could_tell_nothing_one_that_fails_holds_nothing_up_for_long(
    tmp_path: Path, status: int
) -> None:
    """No list is documented for v1. An outage is sat out for a while, so that no purchase runs into it."""
    async with world(tmp_path, version="v1") as job:
        job.set("download", enabled=False)
        await seen_before(job)
        job.fault("molecule_one", "status", "batch-search$", method="GET", status=status, times=None)
        async with job.run() as runner:
            await job.again(runner)
            assert job.posts() == (1 if status == 400 else 0)
            for _ in range(5):
                await job.later(runner, minutes=10)
        assert (job.bought, job.posts()) == (ALL, 1)
        assert await job.ever("read_back") == []


async def test_a_list_that_is_refused_for_good_is_waited_for_no_longer_than_one_that_is_missing(job: Job) -> None:
    await seen_before(job)
    refusal = {"status": 400, "body": {"message": "unknown parameter"}, "times": None}
    job.fault("molecule_one", "status", "batch-search$", method="GET", **refusal)
    async with job.run() as runner:
        await job.again(runner)
        assert (job.posts(), "unknown parameter" in (await job.conditions())[HELD]) == (0, True)
        for _ in range(5):
            await job.later(runner, minutes=10)
    assert (job.bought, job.posts()) == (ALL, 1)


async def test_nor_has_a_service_that_keeps_no_names(tmp_path: Path) -> None:
    async with world(tmp_path, version="v1") as job:
        job.set("download", enabled=False)
        await seen_before(job)
        listing(job, NO_LIST)
        await job.once()
        assert job.bought == ALL
        assert await job.ever("read_back") == []


@pytest.mark.parametrize(
    "how",
    [
        {"status": 403},
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in ({"status": 500}, {"status": 400}, {"status": 200, "body": {"id": 7}})
        ),
    ],
    ids=lambda how: str(how["status"]),
)
async def test_a_batch_of_another_that_is_never_readable_does_not_stop_everything(
    job: Job, how: dict[str, Any]
) -> None:
    await seen_before(job)
    listing(job, NAMELESS)
    other = another(job, "CCCCCCC", version="v2")
    job.fault("molecule_one", "status", f"batch-search/{other}", method="GET", times=None, **how)
    async with job.run() as runner:
        await job.again(runner)
        held = await job.conditions()
        assert [*held] == [HELD]
        assert other in held[HELD], "it may be ours: it is named, and waited for"
        for _ in range(4):
            await job.later(runner, minutes=8)
        assert job.bought == ALL | {"CCCCCCC": 1}
        lose_answer(job)
        job.sandbox.fragalysis.add_upload("Mpro", "lb18145-1", [("P0009a", "CCC", "Z9")])
        await job.again(runner)
    assert job.bought == ALL | {"CCCCCCC": 1, "CCC": 1}, "a batch of ours is found beside it"
    assert await job.ever("credentials") == await job.ever("unreadable") == []
    assert await job.conditions() == {}
