"""`watcher plan` tells what holds the next pass up, as long as it does; and nothing is sent meanwhile."""

from datetime import timedelta

import pytest

from tests.support.batches import ALL, CREATE, restored
from tests.support.pipeline import Job, QuickChemistry
from tests.support.record import World
from watcher.pipeline import plan
from watcher.pipeline.holds import holds
from watcher.pipeline.plan import Plan, make_plan
from watcher.store import batches, forgotten
from watcher.store.conditions import open_condition
from watcher.store.engine import Store
from watcher.store.profiles import REFUSED, SERVICE

pytest_plugins = ("tests.support.at_once", "tests.support.store", "tests.support.worlds")
pytestmark = pytest.mark.usefixtures("sqlite_at_once")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "Chemistry", QuickChemistry)


async def planned(job: Job) -> Plan:
    async with Store(job.settings.database, read_only=True) as store:
        return await make_plan(job.settings, store, clock=job.clock)


async def goes_ahead(job: Job) -> None:
    """Whatever held it up is over."""
    assert (await planned(job)).notes == ()


async def test_nothing_holds_a_pass_up(job: Job) -> None:
    await job.once()
    await goes_ahead(job)


async def test_what_is_to_be_read_before_sending_is_told(job: Job) -> None:
    """The list that may show forgotten batches, and a batch that it did show."""
    await restored(job)
    job.set("fragalysis", targets=["*"])
    job.sandbox.molecule_one.listing.form = "missing"
    async with job.run() as runner:
        await job.again(runner)
        (note,) = (await planned(job)).notes
        assert note.startswith("molecule_one: nothing is bought before the service's list of batches is read whole")
        job.sandbox.molecule_one.listing.form = "auto"
        job.fault("molecule_one", "skip_rows", "batch-search-result/", times=None)
        await job.later(runner, minutes=5)
        (note,) = (await planned(job)).notes
        assert note.startswith("batch 2: the service ")
        assert "nothing is sent" in note
        assert job.posts() == 2
        job.sandbox.clear_faults()
        await job.later(runner, minutes=20)
        assert (job.posts(), job.bought["c1ccccc1"]) == (3, 1)
        await goes_ahead(job)


async def test_a_refused_purchase_that_is_looked_for_is_told(job: Job) -> None:
    job.fault("molecule_one", "status", CREATE, method="POST", status=404, times=1)
    async with job.run() as runner:
        await job.again(runner)
        looked_for, credentials = (await planned(job)).notes
        assert looked_for.startswith("batch 1: refused, but a proxy may")
        assert credentials.startswith("molecule_one: the purchase was refused")
        await job.later(runner, minutes=20)
        assert job.bought == ALL
        await goes_ahead(job)


async def test_the_wait_after_purchases_that_were_not_answered_is_told(job: Job) -> None:
    job.set("molecule_one", batch_size=1)
    job.fault("molecule_one", "close_after", CREATE, method="POST", times=2)
    job.sandbox.molecule_one.listing.form = "missing"
    async with job.run() as runner:
        await job.again(runner)
        assert job.posts() == 2
        newest = (await job.batches())[-1].unconfirmed_at
        assert newest is not None
        (note,) = (await planned(job)).notes
        assert note.endswith(f"the next waits until {newest + timedelta(minutes=2):%Y-%m-%d %H:%M:%S} UTC")
        await job.later(runner, minutes=2)
        assert job.posts() == 3
        await goes_ahead(job)


async def held(world: World) -> list[str]:
    async with world.store.read() as session:
        return [*await holds(session, world.now)]


async def doubts(world: World, number: int) -> None:
    """So many purchases that nobody answered."""
    await world.upload(await world.target(), list("CNOSPF")[:number])
    for _ in range(number):
        await world.doubt(await world.reserve(1) or 0)


async def test_a_person_is_asked_first(world: World) -> None:
    async with world.store.write() as session:
        await open_condition(session, SERVICE, REFUSED, reason="all was refused", action="look", now=world.now)
    assert await held(world) == ["molecule_one: all was refused; look"]


async def test_one_purchase_that_is_not_answered_holds_nothing_up(world: World) -> None:
    await doubts(world, 1)
    assert await held(world) == []


async def test_several_purchases_that_are_not_answered_hold_up_for_a_while(world: World) -> None:
    await doubts(world, 2)
    assert await held(world) == [
        "molecule_one: the last purchases were not answered; the next waits until 2026-03-01 12:02:00 UTC"
    ]
    world.now += timedelta(minutes=2)
    assert await held(world) == []
    world.now -= timedelta(minutes=3)
    assert await held(world) == [], "what lies ahead of a clock that was put right"


async def test_a_refused_purchase_holds_up_until_it_was_looked_for(world: World) -> None:
    await world.upload(await world.target(), ["C", "N"])
    both = [await world.reserve(1) or 0 for _ in range(2)]
    for batch_id in both:
        await world.close_unsent(batch_id)
    assert await held(world) == []
    async with world.store.write() as session:
        for batch_id in both:
            (await batches.get(session, batch_id)).due_at = world.now
        subject = f"batch {both[1]}"
        await open_condition(session, subject, "read_back", reason="no list", action="wait", now=world.now)
    first, second = await held(world)
    assert first.startswith(f"batch {both[0]}: refused, but a proxy may")
    assert second == f"{subject}: no list; wait"


async def test_a_batch_that_is_read_back_holds_up_with_the_words_of_its_condition(world: World) -> None:
    async with world.store.write() as session:
        profile = await world.profile(session)
        batch = await forgotten.read_back(session, profile, token="t", remote_id="r", size=2, now=world.now)
        subject = f"batch {batch.id}"
    (note,) = await held(world)
    assert "`watcher batches list`" in note, "a lost one has no such condition"
    async with world.store.write() as session:
        await open_condition(session, SERVICE, "read_back", reason="the list", action="wait", now=world.now)
        await open_condition(session, subject, "read_back", reason="it is being read", action="wait", now=world.now)
    assert await held(world) == [f"{subject}: it is being read; wait"]
