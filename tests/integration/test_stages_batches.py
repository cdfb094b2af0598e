"""Batches at the service: looked for, polled, read, lost and found, deleted."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster

from tests.support.batches import ALL, CREATE, another, lose_answer, restore, states
from tests.support.pipeline import A, B, Job, world
from watcher.cli import batches as cli
from watcher.pipeline.runner import Runner
from watcher.pipeline.submit import Submit
from watcher.store import batches
from watcher.store.conditions import close_condition
from watcher.store.engine import Session
from watcher.store.schema import ForeignBatch

pytest_plugins = ("tests.support.at_once", "tests.support.worlds")
pytestmark = pytest.mark.usefixtures("sqlite_at_once")


async def test_counts_of_nothing_right_after_the_purchase_end_nothing(job: Job) -> None:
    job.sandbox.molecule_one.pace.manual = True
    async with job.run() as runner:
        await runner.scan.request()
        for _ in range(12):
            await runner.turn()
            await runner.idle()
        job.clock.advance(3)
        await runner.turn()
        await runner.idle()
        (batch,) = await job.batches()
        assert (batch.state, batch.queued, batch.finished) == ("submitted", 0, 0)
        assert await job.scores() == []
        # Partial results are stored as they come.
        for number in (1, 2):
            job.sandbox.molecule_one.finish(1)
            job.clock.advance(timedelta(minutes=11))
            await runner.turn()
            await runner.idle()
            assert len(await job.scores()) == number
        assert await states(job) == ["submitted"]
        assert sorted(row.disposition for row in await job.rows()).count("pending") >= 1
        job.sandbox.molecule_one.finish()
        await job.later(runner, minutes=11)
    assert await states(job) == ["collected"]
    assert {row.disposition for row in await job.rows()} == {"scored"}


async def test_errors_and_dead_ends_are_results(job: Job) -> None:
    job.sandbox.molecule_one.vendor.errors.add("CCO")
    job.sandbox.molecule_one.vendor.no_pathway.add("CCN")
    await job.once()
    rows = {row.smiles: row for row in await job.rows()}
    assert (rows["CCO"].disposition, rows["CCO"].score, rows["CCO"].status) == ("failed", None, "error")
    assert (rows["CCN"].disposition, rows["CCN"].score) == ("no_route", 10)
    assert rows["c1ccccc1"].disposition == "scored"
    posts = job.posts()
    await job.once()
    assert job.posts() == posts
    assert await job.conditions() == {}


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_numbers_as_strings(tmp_path: Path, version: Any) -> None:
    async with world(tmp_path, version=version) as job:
        job.set("download", enabled=False)
        job.fault("molecule_one", "numbers_as_strings", "batch-search", method="GET", times=None)
        await job.once()
        rows = await job.rows()
        assert {row.disposition for row in rows} == {"scored"}
        assert all(isinstance(row.score, float) and isinstance(row.price_usd, float) for row in rows)


async def test_a_molecule_that_never_shows_has_no_result_after_some_looks(job: Job) -> None:
    job.fault("molecule_one", "skip_rows", "batch-search-result", times=None)
    async with job.run() as runner:
        await job.again(runner)
        for _ in range(8):
            await job.later(runner, minutes=11)
    assert await states(job) == ["collected"]
    ended = sorted((await job.claims()).values(), key=str)
    assert [state for state, _ in ended] == ["failed", "scored", "scored"]
    assert str(ended[0][1]).startswith("no_result")
    assert 5 <= job.asked("batch-search-result", of="molecule_one") <= 20
    assert await job.conditions() == {}


async def test_a_batch_that_the_service_forgets_is_lost_and_never_bought_again(job: Job) -> None:
    job.sandbox.molecule_one.pace.manual = True
    job.fault("molecule_one", "status", "search-status", status=503, times=5)
    async with job.run() as runner:
        await runner.scan.request()
        for _ in range(12):
            await runner.turn()
            await runner.idle()
        (batch,) = await job.batches()
        held = job.sandbox.molecule_one.batches._batches.pop(str(batch.remote_id))
        await job.later(runner, minutes=1)
        for _ in range(6):
            await job.later(runner, minutes=2)
        assert await states(job) == ["lost"]
        assert [*await job.conditions()] == ["batch 1: lost"]
        await job.later(runner, hours=3)
        assert job.posts() == 1
        # It is listed again: an outage, not a loss.
        job.sandbox.molecule_one.batches._batches[held.id] = held
        job.sandbox.molecule_one.pace.manual = False
        await job.later(runner, hours=2)
    assert await states(job) == ["collected"]
    assert (job.bought, await job.conditions()) == (ALL, {})


FORGOTTEN: dict[str, Any] = {"status": 404, "body": {"message": "no Route matched"}, "times": None}


async def until_lost(job: Job, runner: Runner) -> None:
    """A gateway answers for the service for some minutes."""
    job.fault("molecule_one", "status", "(v1/batch-search|search-status)/", method="GET", **FORGOTTEN)
    await job.again(runner)
    for _ in range(3):
        await job.later(runner, minutes=2)
    assert await states(job) == ["lost"]
    assert "every hour" in (await job.open_conditions())[0].action


async def test_a_lost_batch_is_asked_for_also_where_there_is_no_list(v1: Job) -> None:
    v1.sandbox.molecule_one.listing.form = "missing"
    async with v1.run() as runner:
        await until_lost(v1, runner)
        await v1.later(runner, hours=2)
        assert await states(v1) == ["lost"], "nothing has changed"
        v1.sandbox.clear_faults()
        v1.sandbox.molecule_one.listing.form = "missing"
        await v1.later(runner, hours=2)
    assert await states(v1) == ["collected"]
    assert (v1.bought, v1.posts(), await v1.conditions()) == (ALL, 1, {})


async def test_what_was_lost_and_given_up_is_stored_and_told_when_it_is_back(v1: Job) -> None:
    async with v1.run() as runner:
        await until_lost(v1, runner)
        assert v1.program is not None
        async with v1.program.context.store.write() as session:
            batch = await batches.get(session, 1)
            await batches.release(session, batch, who="me", why="the vendor says so", now=v1.clock.now())
            await close_condition(session, "batch 1", now=v1.clock.now())
        v1.sandbox.clear_faults()
        await v1.again(runner)
        assert v1.posts() == 2
        await v1.later(runner, hours=2)
    assert await states(v1) == ["collected", "collected"]
    assert len(await v1.scores()) == 6, "its results are stored"
    assert "was given up exists" in (await v1.ever("turned_up"))[0].reason


async def test_a_lost_batch_is_taken_up_under_another_id(
    job: Job, blockbuster: BlockBuster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "now", job.clock.now)
    blockbuster.functions["os.stat"].can_block_in("watcher/cli/common.py", "record")  # it has a process of its own
    async with job.run() as runner:
        await job.again(runner)
        assert job.program is not None
        async with job.program.context.store.write() as session:
            batch = await batches.get(session, 1)
            batch.state, old = "lost", batch.remote_id
    held = job.sandbox.molecule_one.batches._batches
    held["new-id"] = held.pop(str(old))
    held["new-id"].id = "new-id"
    await cli._adopt(job.settings, 1, "new-id")
    (batch,) = await job.batches()
    assert (batch.state, batch.remote_id) == ("submitted", "new-id")
    assert f"as new-id, and not as {old}" in str(batch.reason)
    await job.once()
    assert (await states(job), job.posts()) == (["collected"], 1)


@pytest.mark.slow
async def test_one_missing_page_among_failures_loses_nothing(job: Job) -> None:
    job.fault("molecule_one", "status", "search-status", status=503, times=12)
    job.fault("molecule_one", "status", "search-status", status=404, body={"message": "not found"}, times=2)
    async with job.run() as runner:
        await job.again(runner)
        for _ in range(3):
            await job.later(runner, minutes=2)
    assert await states(job) == ["collected"]
    assert not await job.ever("lost")


async def test_a_batch_that_cannot_be_read_is_told_and_the_others_go_on(job: Job) -> None:
    job.set("molecule_one", batch_size=2)
    rule = job.fault("molecule_one", "status", "search-status", status=400, body={"message": "no"}, times=3)
    rule.match = {"path": "search-status"}
    async with job.run() as runner:
        job.sandbox.molecule_one.pace.manual = True
        await runner.scan.request()
        for _ in range(12):
            await runner.turn()
            await runner.idle()
        first, _ = await job.batches()
        rule.match = {"path": f"search-status/{first.remote_id}"}
        job.sandbox.molecule_one.pace.manual = False
        job.clock.advance(5)
        await runner.turn()
        await runner.idle()
        assert [*await job.conditions()] == ["batch 1: unreadable"]
        await job.later(runner, minutes=1)
    assert await states(job) == ["collected", "collected"]
    assert await job.conditions() == {}
    assert len(await job.ever("unreadable")) == 1


async def test_deleted_at_the_service_only_after_its_results_are_stored(job: Job) -> None:
    await job.once()
    assert job.asked("batch-search", "DELETE", of="molecule_one") == 0
    job.set("molecule_one", delete_after_collect=True)
    job.fault("molecule_one", "status", method="DELETE", status=503)
    job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
    await job.once()
    first, second = await job.batches()
    assert (first.deleted_at, second.state) == (None, "collected")
    assert second.deleted_at is not None
    assert second.collected_at is not None
    assert second.deleted_at >= second.collected_at
    assert [one.id for one in job.sandbox.molecule_one.batches.all()] == [first.remote_id]
    assert len([row for row in await job.rows() if row.disposition == "scored"]) == 6


@pytest.mark.slow
async def test_a_service_that_does_not_delete_is_not_asked_for_ever(job: Job) -> None:
    job.set("molecule_one", delete_after_collect=True)
    job.fault("molecule_one", "status", method="DELETE", status=400, times=None)
    async with job.run() as runner:
        await job.again(runner)
        await job.later(runner, hours=3)
    assert job.asked("batch-search", "DELETE", of="molecule_one") == 1
    assert await states(job) == ["collected"]


async def test_a_listing_that_lags_is_looked_at_again(job: Job) -> None:
    job.sandbox.molecule_one.listing.lag = 3
    lose_answer(job)
    await job.once()
    assert await states(job) == ["collected"]
    assert job.posts() == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"names": False}, {"repeat": True}, {"form": "data"}])
async def test_listings_of_other_forms(job: Job, how: dict[str, Any]) -> None:
    for name, value in how.items():
        setattr(job.sandbox.molecule_one.listing, name, value)
    another(job, "CCO", name="somebody's", version="v2")
    lose_answer(job)
    await job.once()
    assert "collected" in await states(job)
    assert job.posts() == 1
    assert await job.conditions() == {}


@pytest.mark.slow
async def test_a_listing_that_is_cut_proves_no_absence(job: Job) -> None:
    job.set("molecule_one", on_unconfirmed="resubmit")
    job.sandbox.molecule_one.listing.form = "data"
    job.sandbox.molecule_one.listing.limit = 0
    lose_answer(job)
    async with job.run() as runner:
        await job.again(runner)
        for _ in range(6):
            await job.later(runner, hours=1)
        assert (await states(job), job.posts()) == (["unconfirmed"], 1)
        job.sandbox.molecule_one.listing.limit = None
        await job.later(runner, hours=2)
    assert await states(job) == ["collected"]
    assert (job.bought, await job.conditions()) == (ALL, {})


@pytest.mark.parametrize("form", ["missing", "forbidden"])
async def test_without_a_listing_there_is_nothing_to_ask(job: Job, form: Any) -> None:
    job.sandbox.molecule_one.listing.form = form
    job.fault("molecule_one", "status", CREATE, method="POST", status=504)
    async with job.run() as runner:
        await job.again(runner)
        for _ in range(3):
            await job.later(runner, hours=1)
    assert (await states(job), job.posts()) == (["unconfirmed"], 1)
    job.set("molecule_one", on_unconfirmed="resubmit")
    async with job.run() as runner:
        job.clock.advance(timedelta(hours=2))
        await job.again(runner)
        assert job.posts() == 1, "what one look says proves nothing"
        for _ in range(4):
            await job.later(runner, minutes=8)
    assert job.bought == ALL


@pytest.mark.parametrize("how", [{"form": "data", "limit": 0, "lag": 0}, {"form": "missing"}], ids=["cut", "missing"])
async def test_only_a_whole_list_at_the_end_proves_an_absence(job: Job, how: dict[str, Any]) -> None:
    """Whole lists came before, from a service that was slow to list the batch."""
    job.set("molecule_one", on_unconfirmed="resubmit")
    listing = job.sandbox.molecule_one.listing
    listing.lag = 10**6
    lose_answer(job)
    async with job.run() as runner:
        await job.again(runner)
        for name, value in how.items():
            setattr(listing, name, value)
        for _ in range(4):
            await job.later(runner, minutes=20)
        assert (await states(job), job.posts()) == (["unconfirmed"], 1)
        listing.form, listing.limit, listing.lag = "auto", None, 0
        await job.later(runner, hours=2)
    assert await states(job) == ["collected"]
    assert (job.bought, job.posts()) == (ALL, 1)


async def test_a_list_that_is_missing_once_releases_nothing(v1: Job) -> None:
    v1.set("molecule_one", on_unconfirmed="resubmit")
    listing = v1.sandbox.molecule_one.listing
    listing.limit = 0
    lose_answer(v1)
    async with v1.run() as runner:
        await v1.again(runner)
    listing.limit = None
    v1.fault("molecule_one", "status", CREATE, method="GET", status=404)
    async with v1.run() as runner:
        await v1.later(runner, hours=2)
        await v1.later(runner, hours=1)  # the first counts of a batch read 0
    assert (await states(v1), v1.bought, v1.posts()) == (["collected"], ALL, 1)


async def test_an_id_that_another_batch_has_calls_a_person(job: Job) -> None:
    job.set("molecule_one", on_unconfirmed="resubmit")
    job.set("fragalysis", targets=["A71*"])
    await job.once()
    (first,) = await job.batches()
    job.set("fragalysis", targets=["*"])
    listing = job.sandbox.molecule_one.listing
    job.fault("molecule_one", "edit", CREATE, method="POST", values={"id": first.remote_id})
    async with job.run() as runner:
        await runner.turn()
        await runner.idle()
        listing.limit = 0
        await job.again(runner)
        said = (await job.conditions())["batch 2: unconfirmed"]
        assert f"the id {first.remote_id}, which batch 1 has already" in said
        for _ in range(4):
            await job.later(runner, minutes=20)
        assert (await states(job), job.posts()) == (["collected", "unconfirmed"], 2), "it is never given up by itself"
        listing.limit = None
        await job.later(runner, hours=2)
    assert (await states(job), job.bought) == (["collected", "collected"], ALL)
    assert await job.ever("unexpected") == []
    assert await job.conditions() == {}


async def test_a_first_listing_that_fails_is_waited_for(job: Job) -> None:
    job.fault("molecule_one", "status", CREATE, method="GET", status=503, times=12)
    await job.once()
    assert job.bought == ALL
    assert await job.conditions() == {}
    assert len(await job.ever("unreachable")) == 1


async def test_a_batch_of_another_that_disappears_does_not_stand_in_the_way(job: Job) -> None:
    job.sandbox.molecule_one.listing.names = False
    other = another(job, "CCCCCCC", version="v2")
    job.fault("molecule_one", "status", f"batch-search/{other}", status=404, body={"message": "gone"}, times=None)
    await job.once()
    assert job.bought == ALL | {"CCCCCCC": 1}


async def test_released_and_turned_up_after_all(job: Job) -> None:
    job.set("molecule_one", on_unconfirmed="resubmit")
    job.sandbox.molecule_one.listing.lag = 10**6
    lose_answer(job)
    async with job.run() as runner:
        await job.again(runner)
        for _ in range(3):
            await job.later(runner, minutes=20)
        assert await states(job) == ["released", "collected"]
        job.sandbox.molecule_one.pace.manual = True
        job.sandbox.molecule_one.listing.lag = 0
        first = job.sandbox.molecule_one.batches.all()[0]
        first.done = 0
        job.clock.advance(timedelta(hours=2))
        await runner.turn()
        await runner.idle()
        assert await states(job) == ["submitted", "collected"]
        assert [*await job.conditions()] == ["batch 1: turned_up"], "it is said"
        job.sandbox.molecule_one.pace.manual = False
        await job.later(runner, minutes=11)
    assert await states(job) == ["collected", "collected"]
    assert len(await job.scores()) == 6, "its results are stored"
    assert await job.conditions() == {}


@pytest.mark.slow
async def test_results_of_a_batch_that_turned_up_may_lag_behind_its_counts(job: Job) -> None:
    job.set("molecule_one", on_unconfirmed="resubmit")
    job.sandbox.molecule_one.listing.lag = 10**6
    lose_answer(job)
    async with job.run() as runner:
        await job.again(runner)
        for _ in range(3):
            await job.later(runner, minutes=20)
        job.sandbox.molecule_one.listing.lag = 0
        nothing = {"status": 200, "body": "[]", "headers": {"Content-Type": "application/json"}, "times": 2}
        job.fault("molecule_one", "status", "batch-search-result", **nothing)
        await job.later(runner, hours=2)
        await job.later(runner, hours=2)
    assert await states(job) == ["collected", "collected"]
    assert len(await job.scores()) == 6, "its results are stored"


@pytest.mark.parametrize("from_before", [False, True])
async def test_forgotten_batches_are_read_back_before_anything_is_sent(
    job: Job, monkeypatch: pytest.MonkeyPatch, from_before: bool
) -> None:
    """Also when it looked due `from_before` they were read back."""
    job.set("fragalysis", targets=["A71*"])
    await job.once()
    backup = await asyncio.to_thread(Path(job.file).read_bytes)
    job.set("fragalysis", targets=["*"])
    await job.once()
    assert job.bought == ALL
    await asyncio.to_thread(restore, Path(job.file), backup)
    job.sandbox.molecule_one.pace.manual = True
    for batch in job.sandbox.molecule_one.batches.all():
        batch.done = 0
    async with job.run() as runner:
        with monkeypatch.context() as patch:
            if from_before:
                patch.setattr(Submit, "due", due_if_allowed)
            await runner.scan.request()
            for _ in range(15):
                job.clock.advance(1)
                await runner.turn()
                await runner.idle()
        assert job.posts() == 2, "nothing is sent until it is known what the forgotten batch holds"
        assert "batch 2: read_back" in await job.conditions()
        job.sandbox.molecule_one.pace.manual = False
        await job.later(runner, minutes=10)
    assert (job.bought, job.posts()) == (ALL, 2)
    assert {row.disposition for row in await job.rows()} == {"scored"}
    assert await job.conditions() == {}


async def due_if_allowed(self: Submit, _: Session) -> list[int]:
    return [0] if self._sending.allowed else []


@pytest.mark.slow
async def test_a_forgotten_batch_that_is_lost_before_it_is_read_holds_back_what_it_may_hold(job: Job) -> None:
    job.set("fragalysis", targets=["A71*"])
    await job.once()
    backup = await asyncio.to_thread(Path(job.file).read_bytes)
    job.set("fragalysis", targets=["*"])
    await job.once()
    await asyncio.to_thread(restore, Path(job.file), backup)
    job.sandbox.molecule_one.pace.manual = True
    forgotten = job.sandbox.molecule_one.batches.all()[-1]
    forgotten.done = 0
    async with job.run() as runner:
        await runner.scan.request()
        for _ in range(10):
            job.clock.advance(1)
            await runner.turn()
            await runner.idle()
        del job.sandbox.molecule_one.batches._batches[forgotten.id]
        for _ in range(8):
            await job.later(runner, minutes=2)
        assert await states(job) == ["collected", "lost"]
        assert (job.posts(), await job.claims()) == (2, {**await job.claims(), "c1ccccc1": ("wanted", None)})
        assert "batch 2: lost" in await job.conditions()
        # A person says that it is gone: only now it may be bought again.
        assert job.program is not None
        async with job.program.context.store.write() as session:
            batch = await batches.get(session, 2)
            await batches.release(session, batch, who="me", why="the vendor says so", now=job.clock.now())
        job.sandbox.molecule_one.pace.manual = False
        await job.later(runner, minutes=2)
    assert (job.posts(), job.bought["c1ccccc1"]) == (3, 2)


async def test_v1_takes_its_own_batch_and_no_other(v1: Job) -> None:
    """Nameless batches: one was there before, one is somebody else's, one holds some of the same molecules."""
    old = another(v1, "CCO", "CCN", "c1ccccc1")
    lose_answer(v1)
    async with v1.run() as runner:
        await runner.turn()
        await runner.idle()
        others = [another(v1, "CCO", "CCCCC"), another(v1, "CCCCCC", "CCCCCCC", "CCCCCCCC")]
        await v1.again(runner)
    (batch,) = await v1.batches()
    assert batch.state == "collected"
    assert batch.remote_id == v1.sandbox.molecule_one.ledger.batches[-1].batch_id
    assert {one.remote_id for one in await v1.all(ForeignBatch)} == {old, *others}
    assert await v1.conditions() == {}


async def test_v1_never_takes_for_somebody_elses_what_it_cannot_read(v1: Job) -> None:
    """An item names no molecule; and then an answer is that of another batch."""
    lose_answer(v1)
    v1.fault("molecule_one", "edit", "batch-search-result", drop=["targetSmiles"], times=2)
    astray = [{"targetSmiles": "CCCCCCC", "status": "ok", "result": 2}]
    v1.fault("molecule_one", "status", "batch-search-result", status=200, body=astray)
    async with v1.run() as runner:
        await v1.again(runner)
        await v1.later(runner, minutes=5)
    assert await states(v1) == ["collected"]
    assert (v1.bought, await v1.all(ForeignBatch)) == (ALL, [])


@pytest.mark.parametrize("status", [403, pytest.param(500, marks=pytest.mark.slow)])
async def test_v1_finds_its_batch_beside_one_that_is_never_readable(v1: Job, status: int) -> None:
    lose_answer(v1)
    async with v1.run() as runner:
        await runner.scan.request()
        while not v1.posts():
            await runner.turn()
            await runner.idle()
        other = another(v1, "CCCCCCC")  # listed, and so read, before ours
        v1.fault("molecule_one", "status", f"batch-search-result/{other}", status=status, times=None)
        await v1.again(runner)
    assert await states(v1) == ["collected"]
    assert await v1.ever("credentials") == await v1.ever("unreachable") == []


async def test_v1_when_no_batch_can_be_read_it_is_the_service(v1: Job) -> None:
    lose_answer(v1)
    rule = v1.fault("molecule_one", "status", "batch-search-result", status=403, times=None)
    async with v1.run() as runner:
        await runner.turn()
        await runner.idle()
        another(v1, "CCCCCCC")
        await v1.again(runner)
        assert sorted(await v1.conditions()) == ["batch 1: unconfirmed", "molecule_one: unreachable"]
        rule.times = 0
        await v1.later(runner, minutes=16)
    assert await states(v1) == ["collected"]
    assert await v1.conditions() == {}


async def test_v1_looks_for_what_was_given_up_open_no_condition_each_hour(v1: Job) -> None:
    """Batches of others may be refused to us for ever."""
    v1.set("molecule_one", on_unconfirmed="resubmit")
    v1.sandbox.molecule_one.listing.lag = 10**6
    lose_answer(v1)
    async with v1.run() as runner:
        await v1.again(runner)
        for _ in range(3):
            await v1.later(runner, minutes=20)
        assert await states(v1) == ["released", "collected"]
        rules = [
            v1.fault("molecule_one", "status", f"batch-search-result/{another(v1, smiles)}", status=403, times=None)
            for smiles in ("CCCCCCC", "CCCCCCCC")
        ]
        for mine in v1.sandbox.molecule_one.batches.all()[:1]:
            del v1.sandbox.molecule_one.batches._batches[mine.id]
        v1.sandbox.molecule_one.listing.lag = 0
        for _ in range(5):
            await v1.later(runner, hours=1)
    assert all(rule.hits for rule in rules)
    assert await v1.ever("unreachable") == []


async def test_v1_is_undecided_while_no_results_show(v1: Job) -> None:
    v1.set("molecule_one", on_unconfirmed="resubmit")
    v1.sandbox.molecule_one.pace.manual = True
    lose_answer(v1)
    async with v1.run() as runner:
        await v1.again(runner)
        for _ in range(4):
            await v1.later(runner, hours=1)
        assert (await states(v1), v1.posts()) == (["unconfirmed"], 1), "it may be ours: nothing is sent again"
        v1.sandbox.molecule_one.pace.manual = False
        await v1.later(runner, hours=2)
        await v1.later(runner, hours=1)  # the first counts of a batch read 0
    assert await states(v1) == ["collected"]
    assert v1.bought == ALL


async def test_v1_does_not_take_what_is_being_sent_for_somebody_elses(v1: Job) -> None:
    """Two answers are lost, the second one while the first is looked for: neither is ever bought again."""
    v1.set("molecule_one", batch_size=2)
    lose_answer(v1, times=2)
    v1.sandbox.molecule_one.listing.lag = 2
    async with v1.run() as runner:
        await v1.again(runner)
        await v1.later(runner, minutes=5)
    assert await states(v1) == ["collected", "collected"]
    assert (v1.bought, v1.posts()) == (ALL, 2)
    assert await v1.all(ForeignBatch) == []


async def test_v1_finds_a_doubtful_batch_although_an_earlier_profile_bought_the_same(v1: Job) -> None:
    from watcher.pipeline.profile import profile_in_force
    from watcher.store.profiles import approve_profile

    await v1.once()
    v1.set("molecule_one", exploratory_search=True)
    lose_answer(v1)
    async with v1.run() as runner:
        assert v1.program is not None
        context = v1.program.context
        async with context.store.write() as session:
            profile = await profile_in_force(session, context)
            await approve_profile(session, profile, context.policy, who="somebody", now=v1.clock.now())
        await v1.again(runner)
    assert await states(v1) == ["collected", "collected"]
    assert v1.bought == dict.fromkeys(ALL, 2)
    assert await v1.conditions() == {}


@pytest.mark.slow
async def test_v1_released_and_turned_up_after_all(v1: Job) -> None:
    v1.set("molecule_one", on_unconfirmed="resubmit")
    v1.sandbox.molecule_one.listing.lag = 10**6
    lose_answer(v1)
    async with v1.run() as runner:
        await v1.again(runner)
        for _ in range(3):
            await v1.later(runner, minutes=20)
        assert await states(v1) == ["released", "collected"]
        v1.sandbox.molecule_one.listing.lag = 0
        await v1.later(runner, hours=2)
        await v1.later(runner, hours=1)  # the first counts of a batch read 0
    assert await states(v1) == ["collected", "collected"]
    first, second = await v1.batches()
    assert [first.remote_id, second.remote_id] == [one.batch_id for one in v1.sandbox.molecule_one.ledger.batches]
    assert len(await v1.ever("turned_up")) == 1


async def test_two_targets_share_their_compounds(job: Job) -> None:
    await job.once()
    shared = [row for row in await job.rows() if row.smiles == "CCN"]
    assert {row.target for row in shared} == {A[0], B[0]}
    assert len({row.score for row in shared}) == 1
