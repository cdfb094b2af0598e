"""Results that come late, in part, or never."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from tests.support.batches import ALL, restored, states
from tests.support.pipeline import A, Job, QuickChemistry, world
from watcher.chemistry_records import Identity, Rejection
from watcher.cli import batches as command
from watcher.errors import WatcherError
from watcher.molecule_one import ResultItem
from watcher.pipeline.runner import Runner
from watcher.store import batches, invariants
from watcher.store.conditions import close_condition
from watcher.store.schema import BatchItem

pytest_plugins = ("tests.support.at_once", "tests.support.worlds")
pytestmark = pytest.mark.usefixtures("sqlite_at_once")
RESULTS = "batch-search-result"
COUNTS = "search-status"


async def test_a_result_that_shows_within_the_hour_is_not_missed(job: Job) -> None:
    hidden = job.fault("molecule_one", "skip_rows", RESULTS, times=8)
    await job.once()
    assert hidden.hits == 8
    assert await states(job) == ["collected"]
    assert {row.disposition for row in await job.rows()} == {"scored"}


async def test_what_does_not_show_all_it_holds_is_not_deleted_at_the_service(job: Job) -> None:
    job.set("molecule_one", delete_after_collect=True)
    job.fault("molecule_one", "skip_rows", RESULTS, times=None)
    async with job.run() as runner:
        await job.again(runner)
        for _ in range(8):
            await job.later(runner, minutes=11)
        assert await states(job) == ["collected"]
        await job.later(runner, hours=2)
    assert job.asked("batch-search", "DELETE", of="molecule_one") == 0
    assert sorted(state for state, _ in (await job.claims()).values()) == ["failed", "scored", "scored"]


async def test_a_batch_whose_counts_never_reach_its_size_ends(job: Job) -> None:
    """The service drops what it cannot read, and counts the rest only."""
    counts = {"status": 200, "body": '{"queued":0,"running":0,"finished":2,"error":0}', "times": None}
    job.fault("molecule_one", "status", COUNTS, headers={"Content-Type": "application/json"}, **counts)
    job.fault("molecule_one", "skip_rows", RESULTS, times=None)
    began = job.clock.monotonic()
    await job.once()
    assert 2 <= (job.clock.monotonic() - began) / 3600 <= 5, "it might only have been slow"
    assert await states(job) == ["collected"]
    ended = sorted((await job.claims()).values(), key=str)
    assert [state for state, _ in ended] == ["failed", "scored", "scored"]
    assert str(ended[0][1]).startswith("no_result")
    assert (job.bought, job.posts()) == (ALL, 1)


async def test_a_batch_that_goes_on_after_a_rest_is_waited_for(job: Job) -> None:
    def counts(running: int) -> None:
        job.sandbox.clear_faults()
        body = f'{{"queued":0,"running":{running},"finished":2,"error":0}}'
        headers = {"Content-Type": "application/json"}
        job.fault("molecule_one", "status", COUNTS, status=200, body=body, headers=headers, times=None)
        job.fault("molecule_one", "skip_rows", RESULTS, times=None)

    counts(running=0)
    async with job.run() as runner:
        await runner.scan.request()
        while await states(job) != ["finished"]:
            await runner.turn()
            await runner.idle()
            job.clock.advance(timedelta(minutes=1))
        counts(running=1)
        for _ in range(30):
            job.clock.advance(timedelta(minutes=10))
            await runner.turn()
            await runner.idle()
        assert await states(job) == ["finished"]
        job.sandbox.clear_faults()
        await job.later(runner, minutes=11)
    assert {row.disposition for row in await job.rows()} == {"scored"}


async def test_what_another_version_of_the_api_bought_is_not_lost(tmp_path: Path) -> None:
    """Who releases a lost batch pays twice: its results are a setting away."""
    async with world(tmp_path, version="v1") as job:
        job.set("download", enabled=False)
        job.sandbox.molecule_one.pace.manual = True
        async with job.run() as runner:
            await runner.scan.request()
            for _ in range(12):
                await runner.turn()
                await runner.idle()
        job.sandbox.molecule_one.pace.manual = False
        job.set("molecule_one", api_version="v2")
        unknown = {"status": 404, "body": '{"message":"not found"}', "headers": {"Content-Type": "application/json"}}
        job.fault("molecule_one", "status", COUNTS, times=None, **unknown)
        async with job.run() as runner:
            await job.again(runner)
            for _ in range(8):
                await job.later(runner, minutes=10)
            assert await states(job) == ["submitted"]
            told = [one for one in await job.open_conditions() if one.subject == "batch 1"]
            assert [(one.kind, "which v1 bought" in one.reason) for one in told] == [("unreadable", True)]
            assert 'molecule_one.api_version = "v1"' in told[0].action
        job.set("molecule_one", api_version="v1")
        job.sandbox.clear_faults()
        job.clock.advance(timedelta(hours=1))
        await job.once()
        assert await states(job) == ["collected"]
        assert (job.bought, job.posts()) == (ALL, 1)
        assert await job.conditions() == {}


async def test_a_batch_that_is_released_while_it_is_read_takes_no_more_compounds(job: Job) -> None:
    await restored(job)
    async with job.run() as runner:
        assert job.program is not None
        context = job.program.context
        results = context.molecule_one.results

        async def results_and_release(remote_id: str) -> list[ResultItem]:
            found = await results(remote_id)
            async with context.store.write() as session:
                batch = await batches.get(session, 2)
                await batches.release(session, batch, who="me", why="gone", now=job.clock.now())
                await close_condition(session, "batch 2", now=job.clock.now())
            return found

        context.molecule_one.results = results_and_release  # type: ignore[method-assign]
        await job.later(runner, minutes=1)
        assert await states(job) == ["collected", "released"]
        async with context.store.read() as session:
            assert await invariants.broken(session) == []
            assert [one for one in await job.all(BatchItem) if one.batch_id == 2] == []


async def go_on_without(job: Job, runner: Runner) -> None:
    """Release the batch that was read back."""
    await command._release(job.settings, 2)
    job.sandbox.clear_faults()
    await job.later(runner, minutes=10)
    job.clock.advance(timedelta(hours=1))
    await job.again(runner)


async def hours(job: Job, runner: Runner, number: int) -> None:
    for _ in range(6 * number):
        await job.later(runner, minutes=10)


async def test_a_batch_that_was_read_back_holds_everything_until_it_shows_all(job: Job) -> None:
    await restored(job)
    job.fault("molecule_one", "skip_rows", RESULTS, times=None)
    async with job.run() as runner:
        await job.again(runner)
        await hours(job, runner, 3)
        assert await states(job) == ["collected", "finished"]
        assert job.posts() == 2, "what does not show may be bought already"
        open_now = await job.open_conditions()
        assert [(one.subject, one.kind) for one in open_now] == [("batch 2", "read_back")]
        assert "shows 1 of the 2 compounds" in open_now[0].reason
        assert "`watcher batches release 2`" in open_now[0].action
        job.sandbox.clear_faults()
        await job.later(runner, minutes=11)
    assert (job.posts(), set(job.bought.values())) == (2, {1})
    assert await job.conditions() == {}
    assert {row.disposition for row in await job.rows()} == {"scored"}


@pytest.mark.parametrize("names", [True, False])
async def test_the_size_of_a_batch_that_was_read_back_is_asked_for_where_the_list_does_not_tell(
    job: Job, names: bool
) -> None:
    """Else its first counts, and the first of its results, look like all of it."""
    await restored(job)
    job.sandbox.molecule_one.listing.names = names
    job.fault("molecule_one", "edit", "batch-search$", method="GET", drop=["size"], times=None)
    counts = {"status": 200, "body": '{"queued":0,"running":0,"finished":1,"error":0}', "times": 1}
    job.fault("molecule_one", "status", COUNTS, headers={"Content-Type": "application/json"}, **counts)
    job.fault("molecule_one", "skip_rows", RESULTS, times=1)
    await job.once()
    assert [one.size for one in await job.batches()] == [2, 2]
    assert (job.posts(), set(job.bought.values())) == (2, {1})
    assert {row.disposition for row in await job.rows()} == {"scored"}


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(
    "odd",
    ['{"queued":0,"running":1,"finished":2,"error":0}', '{"queued":0,"running":0,"finished":1,"error":0}'],
    ids=["more", "fewer"],
)
async def test_counts_that_are_odd_once_neither_end_a_batch_that_was_read_back_nor_hold_it_up(
    job: Job, told: bool, odd: str
) -> None:
    await restored(job)
    if not told:
        job.fault("molecule_one", "edit", "batch-search(/|$)", method="GET", drop=["size"], times=None)
    headers = {"Content-Type": "application/json"}
    job.fault("molecule_one", "status", COUNTS, headers=headers, status=200, body=odd, times=1)
    job.fault("molecule_one", "skip_rows", RESULTS, times=1)
    async with job.run() as runner:
        await job.again(runner)
        await job.later(runner, minutes=11)
        assert await states(job) == ["collected", "collected"]
    assert [one.size for one in await job.batches()] == [2, 2]
    assert (job.posts(), set(job.bought.values())) == (2, {1})
    assert {row.disposition for row in await job.rows()} == {"scored"}
    assert await job.conditions() == {}


async def test_a_batch_of_unknown_size_that_shows_nothing_calls_for_help(job: Job) -> None:
    await restored(job)
    job.fault("molecule_one", "edit", "batch-search(/|$)", method="GET", drop=["size"], times=None)
    counts = {"status": 200, "body": '{"queued":0,"running":0,"finished":0,"error":0}', "times": None}
    job.fault("molecule_one", "status", COUNTS, headers={"Content-Type": "application/json"}, **counts)
    async with job.run() as runner:
        await runner.scan.request()
        for _ in range(20):
            await runner.turn()
            await runner.idle()
            job.clock.advance(timedelta(minutes=5))
        (told,) = [one for one in await job.open_conditions() if one.subject == "batch 2"]
    assert "shows 0 of an unknown number of compounds" in told.reason
    assert job.posts() == 2


async def test_a_batch_that_was_read_back_and_is_never_finished_can_be_given_up(
    job: Job, blockbuster: BlockBuster
) -> None:
    blockbuster.deactivate()  # a command looks at files
    await restored(job)
    counts = {"status": 200, "body": '{"queued":1,"running":0,"finished":0,"error":0}', "times": None}
    job.fault("molecule_one", "status", COUNTS, headers={"Content-Type": "application/json"}, **counts)
    async with job.run() as runner:
        await runner.scan.request()
        for _ in range(30):
            await runner.turn()
            await runner.idle()
            job.clock.advance(timedelta(minutes=5))
        assert (await states(job), job.posts()) == (["collected", "submitted"], 2)
        (told,) = [one for one in await job.open_conditions() if one.subject == "batch 2"]
        assert (told.kind, "shows 0 of the 2 compounds" in told.reason) == ("read_back", True)
        assert "`watcher batches release 2`" in told.action
        await command._release(job.settings, 2)
        job.sandbox.clear_faults()
        await job.again(runner)
    assert await states(job) == ["collected", "released", "collected"]
    assert await job.conditions() == {}


async def test_a_batch_that_was_read_back_and_cannot_be_read_tells_the_way_out(
    job: Job, blockbuster: BlockBuster
) -> None:
    blockbuster.deactivate()  # a command looks at files
    await restored(job)
    job.fault("molecule_one", "edit", RESULTS, drop=["target_smiles"], times=None)
    async with job.run() as runner:
        await job.again(runner)
        await hours(job, runner, 2)
        assert job.posts() == 2
        told = [one for one in await job.open_conditions() if one.subject == "batch 2"]
        assert {one.kind for one in told} == {"read_back", "unreadable"}
        assert all("`watcher batches release 2`" in one.action for one in told)
        await go_on_without(job, runner)
    assert await states(job) == ["collected", "released", "collected"]
    assert await job.conditions() == {}


async def test_a_batch_of_which_all_is_known_holds_nothing_up(job: Job) -> None:
    """What was read back is still looked at for its last results, and what else there is goes on."""
    await restored(job)
    unknown = {"status": "cancelled", "result": None}
    job.fault("molecule_one", "edit", RESULTS, values=unknown, times=None)
    async with job.run() as runner:
        await job.again(runner)
        job.sandbox.fragalysis.add_upload(*A, [("A0500a", "CCCCCCCC", "Z20")])
        await job.again(runner)
        assert job.bought["CCCCCCCC"] == 1
        assert (await states(job))[1] == "finished"
        job.sandbox.clear_faults()
        await job.later(runner, minutes=11)
    assert set(job.bought.values()) == {1}
    assert await job.conditions() == {}


@pytest.mark.parametrize("times", [3, 100])
async def test_what_the_chemistry_cannot_judge_for_want_of_memory_is_judged_again(
    job: Job, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Else it counts as no compound, and is bought again; but not forever."""
    await restored(job)
    left, identify = times, QuickChemistry.identify

    async def short_of_memory(self: QuickChemistry, raws: Sequence[str]) -> list[Identity | Rejection]:
        nonlocal left
        found = await identify(self, raws)
        if left and {*raws} <= {"CCC", "CCCC"} and raws:
            left -= 1
            return [Rejection("unparsable", "RDKit crashed or hung on it, twice", in_doubt=True) for _ in raws]
        return found

    job.set("fragalysis", targets=["Nothing"])
    monkeypatch.setattr(QuickChemistry, "identify", short_of_memory)
    async with job.run() as runner:
        await job.again(runner)
        await hours(job, runner, 1)
        assert (await states(job))[1] == "collected"
        attached = [one for one in await job.all(BatchItem) if one.batch_id == 2]
        assert len(attached) == (2 if times == 3 else 0)
        assert await job.ever("machine")
    assert job.posts() == 2


async def test_a_person_can_give_up_a_batch_that_was_taken_and_is_never_told_of(
    job: Job, blockbuster: BlockBuster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "now", job.clock.now)
    blockbuster.deactivate()  # a command looks at files
    job.fault("molecule_one", "status", COUNTS, status=400, body={"message": "no"}, times=None)
    async with job.run() as runner:
        await runner.scan.request()
        while not job.posts():
            await runner.turn()
            await runner.idle()
        with pytest.raises(WatcherError, match="batch 1 is submitted"):
            await command._release(job.settings, 1)
        await hours(job, runner, 1)
        (told,) = await job.open_conditions()
        assert (told.kind, "`watcher batches release 1`" in told.action) == ("unreadable", True)
        await command._release(job.settings, 1)
        await hours(job, runner, 2)
        assert await states(job) == ["released", "submitted"], "nothing is taken up again that cannot be read"
        job.sandbox.clear_faults()
        await hours(job, runner, 2)
    assert await states(job) == ["collected", "collected"]
    assert "was given up exists" in (await job.ever("turned_up"))[0].reason


async def test_a_person_goes_on_without_what_a_batch_does_not_show(job: Job, blockbuster: BlockBuster) -> None:
    blockbuster.deactivate()  # a command looks at files
    await restored(job)
    job.fault("molecule_one", "skip_rows", RESULTS, times=None)
    async with job.run() as runner:
        await job.again(runner)
        await hours(job, runner, 2)
        await go_on_without(job, runner)
    assert await states(job) == ["collected", "released", "collected"]
    assert sorted(job.bought.values()) == [1, 1, 1, 2], "the one that did not show"
    assert await job.conditions() == {}
