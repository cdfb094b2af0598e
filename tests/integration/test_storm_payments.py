"""The payment that nobody answered: however the answer is lost and whatever the list of batches looks like."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.pipeline import A, B, Job, Version, until, world
from watcher.pipeline.settle import settle
from watcher.store import allowance, batches
from watcher.store.conditions import close_condition
from watcher.store.schema import Condition, ForeignBatch

pytest_plugins = ("tests.support.at_once",)
pytestmark = pytest.mark.usefixtures("sqlite_at_once")

ALL = {"CCO": 1, "CCN": 1, "c1ccccc1": 1}
CREATE = r"batch-search$"
VERSIONS: tuple[Version, ...] = ("v1", "v2")
ONE_AT_ONCE = pytest.mark.parametrize("version", ["v1", pytest.param("v2", marks=pytest.mark.slow)])
PAGE = "<!doctype html><html><title>Gateway</title></html>"
JSON = {"Content-Type": "application/json"}

TAKEN: dict[str, dict[str, Any]] = {
    "lost": {"action": "close_after"},
    "504": {"action": "status_after", "status": 504, "body": PAGE},
    "408": {"action": "status_after", "status": 408},
    "409": {"action": "status_after", "status": 409},
    "page": {"action": "status_after", "status": 200, "body": PAGE},
    "nothing": {"action": "status_after", "status": 200, "body": "", "headers": JSON},
    "no id": {"action": "edit", "drop": ["id"]},
    "303": {"action": "status_after", "status": 303, "headers": {"Location": "/api/v2/batch-search/1"}},
    "half": {"action": "truncate"},
    "wrong length": {"action": "wrong_length"},
    "invalid": {"action": "invalid_json"},
    "slow": {"action": "hold_after"},
}
"""The service took the batch, and we cannot know it."""
NOT_TAKEN: dict[str, dict[str, Any]] = {
    "unread": {"action": "close_before_reading"},
    "reset": {"action": "close_before_answer"},
    "500": {"action": "status", "status": 500},
    "503": {"action": "status", "status": 503, "body": PAGE, "headers": {"Retry-After": "30"}},
}
REFUSED: dict[str, dict[str, Any]] = {
    "307": {"action": "redirect", "status": 307},
    "308": {"action": "redirect", "status": 308},
    "302": {"action": "redirect", "status": 302, "location": "/api/v2/batch-search"},
    "403": {"action": "status", "status": 403, "body": PAGE},
    "400 of a proxy": {"action": "status", "status": 400, "body": PAGE},
}
LISTINGS: dict[str, dict[str, Any]] = {
    "as it should be": {},
    "lags": {"lag": 4},
    "cut": {"form": "data", "limit": 0},
    "repeats": {"repeat": True},
    "lacks names": {"names": False},
    "missing": {"form": "missing"},
    "forbidden": {"form": "forbidden"},
}
FINDABLE = ("as it should be", "lags", "repeats", "lacks names")


def paid_world(folder: Path, version: Version) -> Any:
    return world(folder, version=version)


def prepare(job: Job, how: dict[str, Any], listing: str, on_unconfirmed: str = "hold") -> Any:
    job.set("download", enabled=False)
    job.set("molecule_one", on_unconfirmed=on_unconfirmed, submit_timeout=timedelta(seconds=0.3))
    for name, value in LISTINGS[listing].items():
        setattr(job.sandbox.molecule_one.listing, name, value)
    rule = dict(how)
    return job.fault("molecule_one", rule.pop("action"), CREATE, method="POST", **rule)


async def states(job: Job) -> list[str]:
    return [one.state for one in await job.batches()]


async def outcome(folder: Path, version: Version, how: dict[str, Any], listing: str, on_unconfirmed: str) -> Job:
    """Let a payment go wrong, and a day pass."""
    async with paid_world(folder, version) as job:
        assert isinstance(job, Job)
        prepare(job, how, listing, on_unconfirmed)
        async with job.run() as runner:
            await job.again(runner)
            for wait in (5, 20, 20, 60, 120, 240):
                await job.later(runner, minutes=wait)
            job.sandbox.clear_faults()
            job.clock.advance(timedelta(hours=1))
            asked = len(job.sandbox.molecule_one.requests)
            await job.again(runner)
            assert asked < 120, "no hot loop"
        return job


TAKEN_CASES = [
    pytest.param(version, how, listing, decision, marks=() if chosen else pytest.mark.slow)
    for version in VERSIONS
    for decision in ("hold", "resubmit")
    for listing in LISTINGS
    for how in TAKEN
    # Every way to lose an answer once in each version, and every listing with one of them.
    if (listing == "as it should be" and decision == "hold") or how == "lost"
    for chosen in [(version, how, listing) in (("v1", "303", "as it should be"), ("v2", "slow", "as it should be"))]
]


@pytest.mark.parametrize(("version", "how", "listing", "decision"), TAKEN_CASES)
async def test_what_was_taken_is_found_or_held(
    tmp_path: Path, version: Version, how: str, listing: str, decision: str
) -> None:
    job = await outcome(tmp_path, version, TAKEN[how], listing, decision)
    if listing in FINDABLE:
        assert await states(job) == ["collected"]
        assert await job.conditions() == {}
    elif listing == "cut" or decision == "hold":
        assert await states(job) == ["unconfirmed"]
        (condition,) = await job.ever("unconfirmed")
        assert "`watcher batches adopt 1 REMOTE_ID`" in condition.action
        assert "`watcher batches release 1`" in condition.action
    else:
        # Nobody can be asked, and the settings say to buy again: the one way to pay twice.
        assert await states(job) == ["released", "collected"]
        assert job.bought == dict.fromkeys(ALL, 2)
        return
    assert (job.bought, job.posts()) == (ALL, 1)
    assert len(await job.ever("unconfirmed")) == 1


NOT_TAKEN_CASES = [
    pytest.param(version, how, listing, decision, marks=() if chosen else pytest.mark.slow)
    for version in VERSIONS
    for decision in ("hold", "resubmit")
    for listing in ("as it should be", "missing")
    for how in NOT_TAKEN
    if listing == "as it should be" or how == "unread"
    for chosen in [(how, listing, version) == ("unread", "as it should be", "v1")]
]


@pytest.mark.parametrize(("version", "how", "listing", "decision"), NOT_TAKEN_CASES)
async def test_what_was_not_taken_is_held_or_sent_again(
    tmp_path: Path, version: Version, how: str, listing: str, decision: str
) -> None:
    job = await outcome(tmp_path, version, NOT_TAKEN[how], listing, decision)
    if decision == "hold":
        assert (await states(job), job.bought, job.posts()) == (["unconfirmed"], {}, 1)
        assert [*await job.conditions()] == ["batch 1: unconfirmed"]
    else:
        assert (await states(job), job.bought, job.posts()) == (["released", "collected"], ALL, 2)
        assert await job.conditions() == {}


@ONE_AT_ONCE
@pytest.mark.parametrize("how", [pytest.param(one, marks=() if one == "307" else pytest.mark.slow) for one in REFUSED])
async def test_a_purchase_is_never_sent_elsewhere(tmp_path: Path, version: Version, how: str) -> None:
    async with paid_world(tmp_path, version) as job:
        rule = prepare(job, REFUSED[how], "as it should be")
        async with job.run() as runner:
            await job.again(runner)
            assert (rule.hits, job.posts(), job.bought) == (1, 1, {})
            assert await states(job) == ["closed"]
            assert [*await job.conditions()] == ["molecule_one: credentials"]
            await job.later(runner, minutes=7)
        assert (job.bought, job.posts()) == (ALL, 2)
        assert await job.conditions() == {}


@ONE_AT_ONCE
async def test_a_batch_processed_after_our_time_out_is_found(tmp_path: Path, version: Version) -> None:
    """The service holds the request, we give up, minutes later it books the batch."""
    async with paid_world(tmp_path, version) as job:
        prepare(job, {"action": "hold"}, "as it should be")
        async with job.run() as runner:
            await job.again(runner)
            assert (await states(job), job.bought) == (["unconfirmed"], {})
            job.sandbox.molecule_one.faults.release()
            await until(lambda: job.bought)
            for _ in range(2):  # the first counts of a batch read 0, and prove nothing of it
                await job.later(runner, minutes=5)
        assert await states(job) == ["collected"]
        assert (job.bought, job.posts()) == (ALL, 1)
        assert await job.conditions() == {}


@ONE_AT_ONCE
async def test_released_by_a_person_and_turned_up_it_is_stored_and_counted(tmp_path: Path, version: Version) -> None:
    async with paid_world(tmp_path, version) as job:
        prepare(job, TAKEN["lost"], "as it should be")
        job.sandbox.molecule_one.listing.lag = 10**6
        async with job.run() as runner:
            await job.again(runner)
            await release(job, "unconfirmed")
            await job.later(runner, minutes=5)
            assert await states(job) == ["released", "collected"]
            job.sandbox.molecule_one.listing.lag = 0
            for _ in range(2):  # the first counts of a batch read 0, and prove nothing of it
                await job.later(runner, hours=2)
            assert await states(job) == ["collected", "collected"]
            assert job.program is not None
            async with job.program.context.store.read() as session:
                assert await allowance.sent_within_a_day(session, job.clock.now()) == 6, "both count as spent"
        assert len(await job.scores()) == 6
        assert len(await job.ever("turned_up")) == 1
        assert job.bought == dict.fromkeys(ALL, 2), "as the person decided, and no third time"
        assert await job.conditions() == {}


async def release(job: Job, *states: str) -> None:
    """What `watcher batches release` writes."""
    assert job.program is not None
    now = job.clock.now()
    async with job.program.context.store.write() as session:
        for batch in await batches.in_state(session, *states):
            await batches.release(session, batch, who="me", why="so I say", now=now)
            await close_condition(session, f"batch {batch.id}", "unconfirmed", "lost", now=now)


@ONE_AT_ONCE
async def test_a_lost_batch_is_bought_again_only_when_asked(tmp_path: Path, version: Version) -> None:
    async with paid_world(tmp_path, version) as job:
        job.set("download", enabled=False)
        job.set("molecule_one", on_unconfirmed="resubmit")
        server = job.sandbox.molecule_one
        job.fault("molecule_one", "status", "batch-search-result|search-status|batch-search/", status=503, times=None)
        async with job.run() as runner:
            await job.again(runner)
            server.batches._batches.clear()
            job.sandbox.clear_faults()
            for _ in range(30):
                await job.later(runner, hours=1)
            assert await states(job) == ["lost"]
            assert "`watcher batches release 1`" in (await job.ever("lost"))[0].action
        await job.once()
        assert (job.bought, job.posts(), len(await job.ever("lost"))) == (ALL, 1, 1)
        async with job.run() as runner:
            await release(job, "lost")
            await job.again(runner)
            await job.later(runner, minutes=5)
        assert await states(job) == ["released", "collected"]
        assert job.bought == dict.fromkeys(ALL, 2)
        assert await job.conditions() == {}


@pytest.mark.slow
async def test_one_batch_in_doubt_keeps_no_other_from_being_scored(tmp_path: Path) -> None:
    async with paid_world(tmp_path, "v2") as job:
        prepare(job, NOT_TAKEN["500"], "as it should be")
        job.set("molecule_one", batch_size=1)
        async with job.run() as runner:
            await job.again(runner)
            await job.later(runner, hours=1)
        assert await states(job) == ["unconfirmed", "collected", "collected"]
        assert len(job.bought) == 2


async def test_a_bare_list_that_leaves_out_what_is_at_work_proves_no_absence(tmp_path: Path) -> None:
    async with paid_world(tmp_path, "v2") as job:
        prepare(job, TAKEN["lost"], "as it should be", "resubmit").skip = 1
        job.set("molecule_one", batch_size=2)
        job.sandbox.molecule_one.pace.manual = True
        job.sandbox.molecule_one.listing.limit = 0
        async with job.run() as runner:
            await runner.scan.request()
            for _ in range(90):
                await runner.turn()
                await runner.idle()
                job.clock.advance(60)
            assert sorted(await states(job)) == ["submitted", "unconfirmed"]
            job.sandbox.molecule_one.listing.limit = None
            job.sandbox.molecule_one.pace.manual = False
            await job.later(runner, hours=2)
        assert (job.bought, job.posts()) == (ALL, 2)
        assert await job.conditions() == {}


async def take_backup(job: Job) -> bytes:
    return await asyncio.to_thread(Path(job.file).read_bytes)


def restore(job: Job, backup: bytes) -> None:
    for left in Path(job.file).parent.glob("watcher.db*"):
        left.unlink()
    Path(job.file).write_bytes(backup)


@pytest.mark.parametrize(
    "trouble", ["status", *(pytest.param(one, marks=pytest.mark.slow) for one in ("listing", "results"))]
)
async def test_a_restored_record_sends_nothing_before_it_has_read_back(tmp_path: Path, trouble: str) -> None:
    """Two forgotten batches, a service that is down meanwhile, and compounds that are new besides."""
    async with paid_world(tmp_path, "v2") as job:
        job.set("download", enabled=False)
        job.set("fragalysis", targets=["Nothing"])
        await job.once()
        backup = await take_backup(job)
        for name, _ in (A, B):
            job.set("fragalysis", targets=[name])
            await job.once()
        assert (job.bought, job.posts()) == (ALL, 2)
        await asyncio.to_thread(restore, job, backup)
        job.set("fragalysis", targets=["*"])
        job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
        path = {"listing": CREATE, "status": "search-status", "results": "search-result"}[trouble]
        job.fault("molecule_one", "status", path, method="GET", status=503, times=None)
        async with job.run() as runner:
            await job.again(runner)
            await job.later(runner, hours=3)
            assert job.posts() == 2, "nothing is sent"
            job.sandbox.clear_faults()
            await job.later(runner, hours=1)
            await job.later(runner, hours=1)
        assert (job.bought, job.posts()) == (ALL | {"CCC": 1}, 3)
        assert {row.disposition for row in await job.rows()} == {"scored"}
        assert await job.conditions() == {}


async def test_a_service_without_names_does_not_tell_what_a_restored_record_has_forgotten(tmp_path: Path) -> None:
    """The limit of API v1: what was bought since the copy is bought again, and no condition tells of it.

    `watcher db restore` warns, with the words that a person needs before the next start.
    """
    async with paid_world(tmp_path, "v1") as job:
        job.set("download", enabled=False)
        job.set("fragalysis", targets=[A[0]])
        await job.once()
        backup = await take_backup(job)
        job.set("fragalysis", targets=["*"])
        job.set("molecule_one", batch_size=1)
        job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
        await job.once()
        assert (job.bought, job.posts()) == (ALL | {"CCC": 1}, 3)
        await asyncio.to_thread(restore, job, backup)
        await job.once()
        assert job.bought == ALL | {"c1ccccc1": 2, "CCC": 2}, "once more, and never a third time; the copy's own not"
        await job.once()
        assert job.posts() == 5
        assert await states(job) == ["collected"] * 3
        assert len(await job.all(ForeignBatch)) == 2, "the forgotten ones count as somebody else's"
        assert {row.disposition for row in await job.rows()} == {"scored"}
        assert await job.all(Condition) == []


@ONE_AT_ONCE
async def test_a_backup_taken_between_intent_and_answer(tmp_path: Path, version: Version) -> None:
    async with paid_world(tmp_path, version) as job:
        prepare(job, {"action": "hold_after"}, "as it should be")
        job.set("molecule_one", submit_timeout=timedelta(seconds=30))
        async with job.run(crash=True) as runner:
            await runner.scan.request()
            settling = asyncio.create_task(settle(runner))
            await until(lambda: job.bought)
            settling.cancel()
        backup = await take_backup(job)
        job.sandbox.clear_faults()
        await job.once()
        await asyncio.to_thread(restore, job, backup)
        await job.once()
        assert (job.bought, job.posts()) == (ALL, 1)
        assert await states(job) == ["collected"]
        assert {row.disposition for row in await job.rows()} == {"scored"}
