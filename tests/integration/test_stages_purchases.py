"""Purchases: refused, put off, answered in every way, and never made twice."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.batches import ALL, CREATE, states
from tests.support.clock import START
from tests.support.pipeline import A, B, Job, until, world
from tests.support.record import settings_for_database
from watcher.answers import NotSent
from watcher.http import Http
from watcher.molecule_one import MoleculeOne
from watcher.pipeline.profile import profile_in_force
from watcher.pipeline.settle import settle
from watcher.settings import Settings
from watcher.store import claims, forgotten, purchases
from watcher.store.engine import CommitUnknown, RecordUnavailable, Store
from watcher.store.profiles import approve_profile
from watcher.store.standing import TOO_LARGE

pytest_plugins = ("tests.support.at_once", "tests.support.store", "tests.support.worlds")
pytestmark = pytest.mark.usefixtures("sqlite_at_once")


async def test_one_refused_molecule_stands_alone_in_the_end(job: Job) -> None:
    job.set("molecule_one", invalid_target_strategy="reject")
    job.sandbox.molecule_one.vendor.invalid.add("CCN")
    await job.once()
    claims = await job.claims()
    words = "Invalid target: 'CCN': index: 0; target: CCN; message: Invalid SMILES: 'CCN'"
    assert claims["CCN"] == ("failed", f"refused: {words}")
    posts = job.posts()
    await job.once()
    assert job.posts() == posts, "what failed is never bought by itself"


@pytest.mark.parametrize("size", [250, 1], ids=["both halves", "three single ones"])
async def test_when_no_molecule_is_to_blame_a_person_is_asked(job: Job, size: int) -> None:
    job.set("molecule_one", batch_size=size)
    job.fault("molecule_one", "status", CREATE, method="POST", times=None, status=400, body={"message": "no preset"})
    async with job.run() as runner:
        await job.again(runner)
        posts = job.posts()
        assert posts == 3
        await job.later(runner, hours=2)
        assert job.posts() == posts
        assert [*await job.conditions()] == ["molecule_one: submissions_refused"]
    job.sandbox.clear_faults()
    await job.once()
    assert job.bought == {}, "a restart is no person"
    await approve(job)
    await job.once()
    lost = [smiles for smiles, (state, _) in (await job.claims()).items() if state == "failed"]
    assert job.bought == {one: 1 for one in ALL if one not in lost}
    assert len(lost) == (2 if size == 1 else 0), "those that stood alone, before it was seen that none is to blame"
    assert await job.conditions() == {}


async def approve(job: Job) -> None:
    """What `watcher approve --profile` writes."""
    async with job.run() as _:
        assert job.program is not None
        context = job.program.context
        job.clock.advance(1)
        async with context.store.write() as session:
            profile = await profile_in_force(session, context)
            await approve_profile(session, profile, context.policy, who="somebody", now=job.clock.now())


async def test_later_means_later(job: Job) -> None:
    rule = job.fault("molecule_one", "status", CREATE, method="POST", status=429, headers={"Retry-After": "300"})
    async with job.run() as runner:
        await job.again(runner)
        assert (rule.hits, job.posts(), job.bought) == (1, 1, {})
        assert await states(job) == ["closed"]
        assert [*await job.conditions()] == ["molecule_one: unreachable"]
        await job.later(runner, seconds=200)
        assert job.posts() == 1
        await job.later(runner, seconds=101)
        assert job.bought == ALL
    assert await job.conditions() == {}
    assert len(await job.ever("unreachable")) == 1


async def test_a_machine_without_room_for_a_connection_is_named(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [NotSent("POST: no connection (Too many open files)", ours=True)]
    send_once = Http.send_once

    async def send(self: Http, *args: Any, **more: Any) -> Any:
        return answers.pop() if answers else await send_once(self, *args, **more)

    monkeypatch.setattr(Http, "send_once", send)
    await job.once()
    assert [f"{one.subject}: {one.kind}" for one in await job.ever("machine")] == ["submit: machine"]
    assert await job.ever("unreachable") == []
    assert job.bought == ALL
    assert await job.conditions() == {}


@pytest.mark.slow
async def test_without_a_time_it_is_tried_again_with_growing_waits(job: Job) -> None:
    job.fault("molecule_one", "status", CREATE, method="POST", status=429, times=5)
    async with job.run() as runner:
        started = job.clock.now()
        await job.again(runner)
        assert job.bought == ALL
        assert job.clock.now() - started >= timedelta(seconds=1 + 2 + 4 + 8 + 16)
    assert job.posts() == 6
    assert await job.conditions() == {}
    assert len(await job.ever("unreachable")) == 1


@pytest.mark.parametrize("status", [401, 402, 404])
async def test_a_service_that_refuses_us_is_left_alone(job: Job, status: int) -> None:
    job.fault("molecule_one", "status", CREATE, method="POST", status=status, times=2)
    async with job.run() as runner:
        await job.again(runner)
        assert (job.posts(), job.bought) == (1, {})
        assert [*await job.conditions()] == ["molecule_one: credentials"]
        await job.later(runner, minutes=4)
        assert job.posts() == 1
        await job.later(runner, minutes=3)
        assert job.posts() == 2
        await job.later(runner, minutes=13)
        assert job.bought == ALL
    assert await job.conditions() == {}
    assert len(await job.ever("credentials")) == 1


@pytest.mark.slow
async def test_no_token_buys_nothing_and_says_so_once(job: Job) -> None:
    job.set("molecule_one", token="")
    async with job.run() as runner:
        await job.again(runner)
        await job.later(runner, hours=3)
    await job.once()
    assert job.sandbox.molecule_one.requests == []
    assert [*await job.conditions()] == ["molecule_one: credentials"]
    assert len(await job.ever("credentials")) == 1
    job.set("molecule_one", token=job.sandbox.molecule_one.token)
    await job.once()
    assert job.bought == ALL
    assert await job.conditions() == {}


@pytest.mark.parametrize(
    ("version", "action"),
    [("v1", "close_after"), ("v2", "close_after"), ("v2", "status_after"), ("v2", "invalid_json"), ("v2", "truncate")],
)
async def test_a_lost_answer_is_found_again(tmp_path: Path, action: str, version: Any) -> None:
    async with world(tmp_path, version=version) as job:
        job.set("download", enabled=False)
        job.fault("molecule_one", action, CREATE, method="POST", status=502)
        await job.once()
        assert job.bought == ALL
        assert await states(job) == ["collected"]
        assert {row.disposition for row in await job.rows()} == {"scored"}
        assert await job.conditions() == {}
        assert len(await job.ever("unconfirmed")) == 1, "it calls a person from its first second"


async def test_a_purchase_that_was_never_taken_is_held_for_a_person(job: Job) -> None:
    job.fault("molecule_one", "status", CREATE, method="POST", status=500)
    async with job.run() as runner:
        await job.again(runner)
        for _ in range(8):
            await job.later(runner, minutes=10)
        (batch,) = await job.batches()
        assert (batch.state, job.bought, job.posts()) == ("unconfirmed", {}, 1)
        (condition,) = await job.ever("unconfirmed")
        assert condition.until is None
        assert f"watcher batches release {batch.id}" in condition.action
        assert f"watcher batches adopt {batch.id} REMOTE_ID" in condition.action
    for _ in range(2):
        await job.once()
    assert job.posts() == 1


async def test_or_sent_again_when_the_settings_say_so(job: Job) -> None:
    job.set("molecule_one", on_unconfirmed="resubmit")
    job.fault("molecule_one", "status", CREATE, method="POST", status=500)
    async with job.run() as runner:
        await job.again(runner)
        await job.later(runner, minutes=25)
        assert (await states(job), job.posts()) == (["unconfirmed"], 1)
        await job.later(runner, minutes=6)
    assert await states(job) == ["released", "collected"]
    assert job.bought == ALL
    assert await job.conditions() == {}


async def test_a_crash_between_intent_and_sending(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: MoleculeOne, body: bytes) -> Any:
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(MoleculeOne, "create", never)
        await crash_while(job, lambda: submitting(job))
    assert (await states(job), job.posts()) == (["submitting"], 0)
    await job.once()
    assert (await states(job), job.posts()) == (["unconfirmed"], 0), "nobody can know that it was not sent"
    assert "unconfirmed" in "".join(await job.conditions())


async def submitting(job: Job) -> bool:
    return bool(await job.batches())


@asynccontextmanager
async def settling(job: Job, *, crash: bool = True) -> AsyncIterator[Any]:
    async with job.run(crash=crash) as runner:
        await runner.scan.request()
        task = asyncio.create_task(settle(runner))
        try:
            yield runner
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def crash_while(job: Job, reached: Any) -> None:
    """Run until something is so, then kill."""
    async with settling(job):
        await until(reached)


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_crash_between_sending_and_recording(tmp_path: Path, version: Any) -> None:
    async with world(tmp_path, version=version) as job:
        job.set("download", enabled=False)
        job.fault("molecule_one", "hold_after", CREATE, method="POST")

        async def bought() -> bool:
            return bool(job.bought)

        await crash_while(job, bought)
        assert await states(job) == ["submitting"]
        job.sandbox.clear_faults()
        await job.once()
        assert await states(job) == ["collected"]
        assert (job.bought, job.posts()) == (ALL, 1)
        assert await job.conditions() == {}


async def test_an_answer_is_recorded_however_long_the_record_takes(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    original, broken = Store.write, 0

    @asynccontextmanager
    async def write(self: Store) -> AsyncIterator[Any]:
        nonlocal broken
        task = asyncio.current_task()
        if job.bought and broken < 7 and task is not None and task.get_name().startswith("submit"):
            broken += 1
            raise RecordUnavailable("the disk is gone")
        async with original(self) as session:
            yield session

    monkeypatch.setattr(Store, "write", write)
    await job.once()
    assert broken == 7
    assert await states(job) == ["collected"]
    assert (job.bought, job.posts()) == (ALL, 1)
    assert not await job.ever("unconfirmed")


@pytest.mark.parametrize("committed", [True, False])
async def test_an_intent_in_doubt_is_never_sent(job: Job, monkeypatch: pytest.MonkeyPatch, committed: bool) -> None:
    original, doubts = Store.write, 0

    @asynccontextmanager
    async def write(self: Store) -> AsyncIterator[Any]:
        nonlocal doubts
        task = asyncio.current_task()
        if doubts or task is None or not task.get_name().startswith("submit"):
            async with original(self) as session:
                yield session
            return
        doubts += 1
        try:
            async with original(self) as session:
                yield session
                if not committed:
                    raise KeyError  # noqa: TRY301
        except KeyError:
            pass
        raise CommitUnknown("no answer to the commit")

    monkeypatch.setattr(Store, "write", write)
    await job.once()
    assert doubts == 1
    assert await states(job) == (["closed", "collected"] if committed else ["collected"])
    assert (job.bought, job.posts()) == (ALL, 1)
    assert not await job.ever("unconfirmed")


async def test_what_is_paid_while_the_program_ends_is_waited_for(job: Job) -> None:
    rule = job.fault("molecule_one", "hold_after", CREATE, method="POST")
    async with settling(job, crash=False) as runner:
        await until(lambda: rule.hits and job.bought)
        stopping = asyncio.create_task(runner.stop(timedelta(seconds=10)))
        await asyncio.sleep(0)
        job.sandbox.clear_faults()
        await stopping
    assert await states(job) == ["submitted"]
    await job.once()
    assert (job.bought, job.posts()) == (ALL, 1)


async def test_what_is_not_sent_when_the_program_ends_stays_at_home(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve, runners = purchases.reserve, []

    async def slowly(*arguments: Any, **more: Any) -> Any:
        batch = await reserve(*arguments, **more)
        runners.append(asyncio.create_task(runner.stop(timedelta(seconds=5))))
        await asyncio.sleep(0)
        return batch

    with monkeypatch.context() as patch:
        patch.setattr(purchases, "reserve", slowly)
        async with job.run() as runner:
            await job.again(runner)
            await asyncio.gather(*runners)
    assert (await states(job), job.posts()) == (["closed"], 0)
    assert await job.conditions() == {}
    await job.once()
    assert job.bought == ALL


async def test_batches_are_filled_and_no_larger_than_allowed(job: Job) -> None:
    job.set("molecule_one", batch_size=2)
    await job.once()
    assert [one.size for one in await job.batches()] == [2, 1]
    assert job.bought == ALL


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_limits_baseline_and_privacy_hold_back(tmp_path: Path, version: Any) -> None:
    async with world(tmp_path, version=version) as job:
        job.set("download", enabled=False)
        job.set("fragalysis", first_seen="baseline", token=job.sandbox.fragalysis.session_token)
        job.sandbox.fragalysis.add_target("Secret", "lb99999-1", False)
        await job.once()
        assert job.bought == {}
        assert {reason for _, reason in (await job.claims()).values()} == {
            "it was there when the target was first seen"
        }
        job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
        job.sandbox.fragalysis.add_upload("Secret", "lb99999-1", [("S1a", "CCBr", "Z1")])
        await job.once()
        assert job.bought == {"CCC": 1}
        assert (await job.claims())["CCBr"] == ("withheld", "seen in private targets only")
        job.set("limits", submit_private=True)
        await job.once()
        assert job.bought == {"CCC": 1, "CCBr": 1}
        assert await job.conditions() == {}


async def test_a_limit_of_size_that_is_lowered_holds_for_what_waits_already(job: Job) -> None:
    job.set("fragalysis", first_seen="baseline")
    await job.once()
    job.set("limits", max_heavy_atoms=5)
    async with job.run() as runner:
        assert job.program is not None
        context, now = job.program.context, job.clock.now()
        async with context.store.write() as session:
            profile = await profile_in_force(session, context)
            await claims.approve(session, [1, 2], who="me", now=now, profile=profile, policy=context.policy)
        await job.again(runner)
        assert job.bought == {"CCO": 1, "CCN": 1}
        assert (await job.claims())["c1ccccc1"] == ("withheld", TOO_LARGE)
        reasons = {row.smiles: row.reason for row in await job.rows() if row.disposition == "pending"}
        assert reasons == {"c1ccccc1": f"withheld: {TOO_LARGE}"}
    job.set("limits", max_heavy_atoms=6)
    await job.once()
    await job.once()
    assert job.bought == ALL
    assert await job.conditions() == {}


@pytest.mark.parametrize("index", ["up", "down"])
async def test_a_baseline_that_could_not_be_read_before_the_index_moved_is_not_bought(job: Job, index: str) -> None:
    stack = job.sandbox.fragalysis
    job.set("fragalysis", first_seen="baseline", targets=["A71*"])
    if index == "down":
        stack.add_upload(*A, [("A0400a", "CCCl", "Z9")])
    job.fault("fragalysis", "status", "site_observations", status=503, times=None)
    async with job.run() as runner:
        await job.again(runner)
        job.sandbox.clear_faults()
        if index == "down":
            stack.withdraw(*A)
        else:
            stack.add_upload(*A, [("A0400a", "CCCl", "Z9")])
        await job.again(runner)
        await job.later(runner, minutes=20)
        assert {reason for _, reason in (await job.claims()).values()} == {
            "it was there when the target was first seen"
        }
        if index == "down":  # the next one may hold what was there and could not be read
            stack.add_upload(*A, [("A0400a", "CCCl", "Z9")])
            await job.again(runner)
            await job.later(runner, minutes=20)
        assert job.bought == {}
        stack.add_upload(*A, [("A0500a", "CCBr", "Z10")])
        await job.again(runner)
    assert job.bought == {"CCBr": 1}


IN_THE_HOUSE = ("withheld", "seen in private targets only")


@pytest.mark.parametrize("signed_in", [True, False], ids=["listed as private", "out of sight"])
async def test_a_project_that_closes_between_recording_and_sending_keeps_its_structures(
    job: Job, signed_in: bool
) -> None:
    stack = job.sandbox.fragalysis
    job.set("fragalysis", token=stack.session_token if signed_in else "")
    async with job.run(crash=True) as runner:
        job.fault("molecule_one", "status", status=503, times=None)
        await job.again(runner)
        assert {*(await job.claims()).values()} == {("wanted", None)}
        stack.set_public(A[1], False)
        await job.again(runner)
    assert (await job.claims())["CCO"] == IN_THE_HOUSE
    job.sandbox.clear_faults()
    await job.once()
    assert job.bought == {"CCN": 1, "c1ccccc1": 1}, "what a public target shows too may leave"
    assert (await job.claims())["CCO"] == IN_THE_HOUSE
    stack.set_public(A[1], True)
    await job.once()
    assert job.bought == ALL
    assert await job.conditions() == {}


async def test_what_waited_over_a_restart_is_not_sent_before_the_scan_under_way_has_told(job: Job) -> None:
    stack = job.sandbox.fragalysis
    job.set("fragalysis", token=stack.session_token)
    job.set("limits", compounds_per_day=2)
    await job.once()
    (held,) = set(ALL) - set(job.bought)
    stack.set_public(A[1], False)
    stack.set_public(B[1], False)
    job.clock.advance(timedelta(days=1))
    slow = job.fault("fragalysis", "hold", "target_exp")
    async with settling(job, crash=False) as runner:
        await until(lambda: slow.hits and runner._sending.allowed)
        await runner.turn()
        assert job.posts() == 1
        job.sandbox.clear_faults()
        await until(lambda: not runner._is_under_way("scan"))
    assert (await job.claims())[held] == IN_THE_HOUSE
    assert job.posts() == 1


async def test_late_rows_of_a_project_that_closed_since_the_last_scan_stay_in_the_house(job: Job) -> None:
    stack = job.sandbox.fragalysis
    job.set("fragalysis", token=stack.session_token)
    async with job.run() as runner:
        await job.again(runner)
        stack.add_upload(*A, [("A0500a", "CCCl", "Z7")])
        target = stack.world.find(*A)
        target.uploads.pop()  # so that its rows appear within the first one
        target.published = 1
        stack.set_public(A[1], False)
        await job.later(runner, minutes=11)
        assert (await job.claims())["CCCl"] == IN_THE_HOUSE
        assert [one.open_to_public for one in await job.targets()] == [False, True], "the listing was seen"
        assert job.bought == ALL
        stack.set_public(A[1], True)
        await job.again(runner)
    assert job.bought == ALL | {"CCCl": 1}


async def test_the_limit_of_a_day(job: Job) -> None:
    job.set("limits", compounds_per_day=2)
    async with job.run() as runner:
        await job.again(runner)
        assert len(job.bought) == 2
        await job.later(runner, hours=23)
        assert len(job.bought) == 2
        await job.later(runner, hours=2)
    assert job.bought == ALL
    assert await job.conditions() == {}


async def test_the_limit_of_a_day_holds_over_restarts_and_crashes(job: Job) -> None:
    job.set("limits", compounds_per_day=1)
    job.fault("molecule_one", "hold_after", CREATE, method="POST")
    await crash_while(job, lambda: job.bought)
    job.sandbox.clear_faults()
    for bought in (1, 2):
        for hours, crash in ((8, True), (15, False)):
            job.clock.advance(timedelta(hours=hours))
            async with job.run(crash=crash) as runner:
                await job.again(runner)
            assert len(job.bought) == bought
        job.clock.advance(timedelta(hours=1))
        async with job.run(crash=True) as runner:
            await job.again(runner)
        assert len(job.bought) == bought + 1, "a day after the one before"
    assert job.bought == ALL
    assert await job.conditions() == {}


@contextmanager
def in_zone(zone: str, offset: timedelta, database: str | None) -> Iterator[None]:
    """Let this process, and the sessions of a database, live in a time zone."""
    from tests.support.store import on_server  # a plugin: imported before, its checks would not be rewritten

    if database is not None:
        on_server(f"ALTER DATABASE {database} SET timezone = '{zone}'")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TZ", zone)
            time.tzset()
            assert time.localtime().tm_gmtoff == offset.total_seconds()
            yield
    finally:
        time.tzset()


@pytest.mark.parametrize("where", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def test_time_zones_change_nothing(tmp_path: Path, request: pytest.FixtureRequest, where: str) -> None:
    name = request.getfixturevalue("postgres_database_of_its_own") if where == "postgres" else None
    url = settings_for_database(name).url.get_secret_value() if name else ""
    async with world(tmp_path, database=url) as job:
        job.set("download", enabled=False)
        job.set("limits", compounds_per_day=2)
        with in_zone("Pacific/Kiritimati", timedelta(hours=14), name):
            await job.once()
            rows = await job.rows()
        (batch,) = await job.batches()
        assert START <= batch.sent_at <= job.clock.now()
        assert all(START <= row.scored_at <= job.clock.now() for row in rows if row.scored_at)
        assert len(job.bought) == 2
        with in_zone("Pacific/Pago_Pago", -timedelta(hours=11), name):
            job.clock.advance(timedelta(hours=23))
            await job.once()
            assert len(job.bought) == 2
            assert await job.rows() == rows
            job.clock.advance(timedelta(hours=1))
            await job.once()
        assert job.bought == ALL
        assert {row.disposition for row in await job.rows()} == {"scored"}
        assert await job.conditions() == {}


async def test_the_limit_of_a_scan_waits_for_a_person(job: Job) -> None:
    job.set("limits", new_compounds_per_scan=1)
    async with job.run() as runner:
        await job.again(runner)
        assert len(job.bought) == 1
        assert [*await job.conditions()] == ["molecule_one: scan_limit"]
        assert job.program is not None
        context = job.program.context
        async with context.store.write() as session:
            profile = await profile_in_force(session, context)
            now = job.clock.now()
            await claims.approve(session, [1, 2], who="me", now=now, profile=profile, policy=context.policy)
        await job.later(runner, seconds=1)
        assert job.bought == ALL
    assert await job.conditions() == {}


async def test_another_profile_waits_for_a_person(job: Job) -> None:
    await job.once()
    job.set("molecule_one", detail_level="best_path")
    await job.once()
    assert job.posts() == 1
    assert [*await job.conditions()] == ["molecule_one: profile_waits"]
    assert {row.disposition for row in await job.rows()} == {"scored"}, "the earlier result shows meanwhile"
    await approve(job)
    await job.once()
    assert job.bought == dict.fromkeys(ALL, 2)
    assert await job.conditions() == {}
    assert all(score.route for score in (await job.scores())[3:])


def test_names_that_the_tests_above_rely_on() -> None:
    assert forgotten.READ_BACK
    assert Settings().molecule_one.on_unconfirmed == "hold"
