"""What proves that a batch was bought, or was not, and whose it is: nothing less is believed."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.support.batches import ALL, CREATE, another, lose_answer, restored, states
from tests.support.pipeline import A, B, Job, Version, world
from watcher.molecule_one import Listing, Outcome, RemoteBatch
from watcher.pipeline.find_batches import Found
from watcher.pipeline.runner import Runner
from watcher.store.schema import ForeignBatch

pytest_plugins = ("tests.support.at_once", "tests.support.worlds")
pytestmark = pytest.mark.usefixtures("sqlite_at_once")

PAGE = "<!doctype html><html><title>Blocked</title></html>"
NOT_FOUND: dict[str, Any] = {"status": 404, "body": {"message": "not found"}}


async def turns(job: Job, runner: Runner, number: int) -> None:
    """Let things happen without time passing."""
    for _ in range(number):
        await runner.turn()
        await runner.idle()


async def until_sent(job: Job, runner: Runner) -> None:
    await runner.scan.request()
    while not job.posts():
        await turns(job, runner, 1)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("lag", [0, 1])
async def test_a_page_in_the_place_of_the_answer_buys_nothing_twice(tmp_path: Path, version: Version, lag: int) -> None:
    """A proxy looks through answers, and puts its own refusal in the place of one that accepts."""
    async with world(tmp_path, version=version) as job:
        job.set("download", enabled=False)
        job.sandbox.molecule_one.listing.lag = lag
        job.fault("molecule_one", "status_after", CREATE, method="POST", status=403, body=PAGE, times=3)
        async with job.run() as runner:
            await job.again(runner)
            assert await states(job) == ["closed"]
            for _ in range(6):
                await job.later(runner, minutes=10)
        assert (job.bought, job.posts()) == (ALL, 1)
        assert await states(job) == ["collected"]
        assert "taken for not bought exists" in (await job.ever("turned_up"))[0].reason


@pytest.mark.parametrize("form", ["auto", "missing"])
async def test_a_purchase_that_was_refused_for_good_reasons_is_made_after_a_look(job: Job, form: Any) -> None:
    job.sandbox.molecule_one.listing.form = form
    job.fault("molecule_one", "status", CREATE, method="POST", status=402)
    async with job.run() as runner:
        await job.again(runner)
        looks = job.asked("batch-search", of="molecule_one")
        await job.later(runner, minutes=7)
        assert job.asked("batch-search", of="molecule_one") > looks
        assert job.posts() == (2 if form == "auto" else 1), "a list that is missing proves nothing"
        for _ in range(4):
            await job.later(runner, minutes=10)
    assert (job.bought, job.posts(), await job.conditions()) == (ALL, 2, {})


async def test_a_redirect_to_the_batch_is_a_doubt(job: Job) -> None:
    location = {"Location": "/api/v2/batch-search/7"}
    job.fault("molecule_one", "status_after", CREATE, method="POST", status=302, headers=location, body="")
    await job.once()
    assert (job.bought, await states(job)) == (ALL, ["collected"])
    assert await job.ever("unconfirmed")


@pytest.mark.parametrize("how", [{"action": "status", "status": 504}, {"action": "close_before_answer"}], ids=str)
async def test_a_service_that_answers_no_purchase_is_probed_only(job: Job, how: dict[str, Any]) -> None:
    job.set("molecule_one", batch_size=1)
    rows = [(f"C{number}a", "C" * (number + 5), f"Z{number}") for number in range(12)]
    job.sandbox.fragalysis.add_upload(*A, rows)
    job.fault("molecule_one", path=CREATE, method="POST", times=None, **how)
    async with job.run() as runner:
        await job.again(runner)
        assert job.posts() == 2, "one lost answer holds up nobody"
        for _ in range(24):
            await job.later(runner, hours=1)
        assert job.posts() < 10
        assert len(await job.ever("unconfirmed")) < 10
        job.sandbox.clear_faults()
        await job.later(runner, hours=7)
        waiting = [state for state, _ in (await job.claims()).values() if state == "wanted"]
        assert not waiting, "once it answers, all that is not in doubt goes on"


@pytest.mark.parametrize("times", [4, None])
async def test_after_a_start_nothing_is_sent_before_a_scan_has_told(job: Job, times: int | None) -> None:
    """Projects may have closed while the program was off."""
    stack = job.sandbox.fragalysis
    job.set("limits", compounds_per_day=2)
    await job.once()
    (held,) = set(ALL) - set(job.bought)
    for _, tas in (A, B):
        stack.set_public(tas, False)
    job.clock.advance(timedelta(days=1))
    rule = job.fault("fragalysis", "status", "target_exp", status=503, times=times)
    async with job.run() as runner:
        await runner.scan.request()
        await turns(job, runner, 12)
        if times:
            await job.later(runner, minutes=20)
    assert rule.hits
    assert held not in job.bought


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_an_answer_to_an_intent_that_the_record_has_lost_is_kept(tmp_path: Path, version: Version) -> None:
    """As when the database fails over to a copy that lags: the intent is gone, the program goes on."""
    async with world(tmp_path, version=version) as job:
        job.set("download", enabled=False)
        async with job.run() as runner:
            assert job.program is not None
            context = job.program.context
            create = context.molecule_one.create

            async def create_and_fail_over(body: bytes) -> Outcome:
                outcome = await create(body)
                async with context.store.write() as session:
                    for change in (
                        "DELETE FROM batch_item",
                        "DELETE FROM batch",
                        "UPDATE claim SET state = 'wanted' WHERE state = 'reserved'",
                    ):
                        await session.execute(text(change))
                return outcome

            context.molecule_one.create = create_and_fail_over  # type: ignore[method-assign]
            await job.again(runner)
            await job.later(runner, hours=2)
        assert (job.bought, job.posts(), await states(job)) == (ALL, 1, ["collected"])
        assert await job.ever("read_back")


async def test_a_record_that_goes_back_between_two_purchases_is_noticed(job: Job) -> None:
    job.set("molecule_one", batch_size=1)
    async with job.run() as runner:
        await until_sent(job, runner)
        assert job.program is not None
        async with job.program.context.store.write() as session:
            await session.execute(text("DELETE FROM batch_item"))
            await session.execute(text("DELETE FROM batch"))
            await session.execute(text("UPDATE claim SET state = 'wanted' WHERE state = 'reserved'"))
        await job.again(runner)
        await job.later(runner, hours=2)
    assert job.bought == ALL


@pytest.mark.parametrize("status", [404, 500, 403])
@pytest.mark.parametrize("named", [True, False])
async def test_what_is_listed_is_ours_whatever_its_details_are(job: Job, status: int, named: bool) -> None:
    """After a restore: the name alone says that a batch is ours; without it, nothing says that it is not."""
    await restored(job)
    job.sandbox.molecule_one.listing.names = named
    job.fault("molecule_one", "edit", CREATE, method="GET", drop=["size"], times=None)
    more = NOT_FOUND if status == 404 else {"status": status}
    job.fault("molecule_one", "status", "batch-search/", method="GET", **more, times=None if named else 3)
    async with job.run() as runner:
        await job.again(runner)
        for _ in range(6):
            await job.later(runner, minutes=8)
    assert (set(job.bought.values()), job.posts()) == ({1}, 2)
    assert await states(job) == ["collected", "collected"]


async def test_details_without_a_word_of_a_name_make_nothing_somebody_elses(job: Job) -> None:
    await restored(job)
    job.fault("molecule_one", "edit", "batch-search", method="GET", drop=["name"], times=None)
    async with job.run() as runner:
        await job.again(runner)
        assert (job.posts(), await job.all(ForeignBatch)) == (2, [])
        job.sandbox.clear_faults()
        await job.later(runner, minutes=10)
    assert (set(job.bought.values()), job.posts(), await states(job)) == ({1}, 2, ["collected", "collected"])


async def test_a_smaller_batch_of_somebody_else_is_not_taken_for_ours(v1: Job) -> None:
    v1.fault("molecule_one", "close_before_answer", CREATE, method="POST")  # it was never taken
    async with v1.run() as runner:
        await until_sent(v1, runner)
        another(v1, "CCO")
        await v1.again(runner)
        for _ in range(6):
            await v1.later(runner, minutes=20)
    assert await states(v1) == ["unconfirmed"]
    assert {state for state, _ in (await v1.claims()).values()} == {"reserved"}


async def test_a_listed_batch_without_results_proves_no_absence(v1: Job) -> None:
    v1.set("molecule_one", on_unconfirmed="resubmit")
    lose_answer(v1)
    v1.fault("molecule_one", "status", "batch-search-result", **NOT_FOUND, times=None)
    async with v1.run() as runner:
        await v1.again(runner)
        for _ in range(5):
            await v1.later(runner, minutes=10)
    assert (await states(v1), v1.posts()) == (["unconfirmed"], 1)


async def test_the_list_of_another_version_proves_no_absence(v1: Job) -> None:
    v1.set("molecule_one", on_unconfirmed="resubmit")
    lose_answer(v1)
    async with v1.run() as runner:
        await until_sent(v1, runner)
    server = v1.sandbox.molecule_one
    server.batches._batches.clear()  # each version lists its own
    v1.set("molecule_one", api_version="v2")
    async with v1.run() as runner:
        await v1.again(runner)
        for _ in range(5):
            await v1.later(runner, minutes=20)
    assert await states(v1) == ["unconfirmed"]


async def test_a_clock_that_jumps_ahead_ends_no_window(job: Job) -> None:
    job.set("molecule_one", on_unconfirmed="resubmit")
    job.sandbox.molecule_one.listing.lag = 3
    lose_answer(job)
    async with job.run() as runner:
        await until_sent(job, runner)
        job.clock._start += timedelta(days=10)
        await job.again(runner)
        await job.later(runner, minutes=20)
    assert (job.posts(), await states(job)) == (1, ["collected"])


async def test_a_batch_under_another_id_than_was_answered_is_found_by_its_name(job: Job) -> None:
    job.fault("molecule_one", "edit", CREATE, method="POST", values={"id": "bogus"})
    async with job.run() as runner:
        await job.again(runner)
        for _ in range(10):
            await job.later(runner, minutes=30)
    assert (job.bought, job.posts(), await states(job), await job.conditions()) == (ALL, 1, ["collected"], {})
    assert await job.ever("lost")


async def test_a_wrong_id_makes_no_twin_of_the_only_batch_there_is(job: Job) -> None:
    """Another doubt has the list read before the wrong id is found out."""
    job.set("molecule_one", batch_size=2)
    job.fault("molecule_one", "edit", CREATE, method="POST", values={"id": "bogus"})
    lose_answer(job)
    async with job.run() as runner:
        await job.again(runner)
        assert (await job.all(ForeignBatch), await job.ever("turned_up")) == ([], [])
        for _ in range(10):
            await job.later(runner, minutes=30)
    assert (job.bought, job.posts(), await job.conditions()) == (ALL, 2, {})
    assert await states(job) == ["collected", "collected"]


async def test_that_nothing_is_bought_after_a_refusal_is_told_while_the_list_cannot_be_read(job: Job) -> None:
    job.set("molecule_one", unconfirmed_window="4h")
    async with job.run() as runner:
        await job.later(runner, minutes=1)  # the gate is open
        job.fault("molecule_one", "status", CREATE, method="POST", status=402)
        job.fault("molecule_one", "status", CREATE, method="GET", times=None, **NOT_FOUND)
        await job.again(runner)
        for _ in range(6):
            await job.later(runner, minutes=20)
        (told,) = [one for one in await job.open_conditions() if one.subject == "batch 1"]
        assert (told.kind, job.posts(), "nothing is bought before" in told.reason) == ("read_back", 1, True)
        job.clock._start += timedelta(days=10)
        await job.later(runner, minutes=20)
        assert job.posts() == 1, "a clock that jumps ahead proves nothing"
        for _ in range(6):
            await job.later(runner, minutes=20)
    assert (job.bought, job.posts(), await job.conditions()) == (ALL, 2, {})


async def test_a_request_that_was_repeated_on_the_way_is_told(job: Job) -> None:
    lose_answer(job)
    async with job.run() as runner:
        await until_sent(job, runner)
        (batch,) = job.sandbox.molecule_one.batches.all()
        twin = another(job, *batch.targets, name=batch.name, version="v2")
        await job.again(runner)
        await job.later(runner, minutes=30)
    assert (job.posts(), await states(job), await job.conditions()) == (1, ["collected"], {})
    (told,) = await job.ever("turned_up")
    assert batch.id in told.reason
    assert twin in told.reason


async def test_a_batch_that_is_answered_while_it_is_found_is_no_second_one(job: Job) -> None:
    job.sandbox.molecule_one.pace.manual = True
    async with job.run() as runner:
        await until_sent(job, runner)
        (batch,) = await job.batches()
        assert batch.remote_id
        found = Found({batch.token: batch.remote_id}, {}, undecided=False, unread=(), twins=(), trouble=None)
        listing = Listing((RemoteBatch(batch.remote_id, None, None),), complete=True)
        await runner._reconcile._conclude(found, [], [], listing)
    assert (await job.conditions(), await job.all(ForeignBatch)) == ({}, [])
