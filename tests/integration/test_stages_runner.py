"""The runner: turns, widths, poisoned units, stopping, settling, and conditions that are told once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.exc import DataError, DBAPIError

from tests.support.pipeline import A, B, Job, until, world
from watcher.chemistry_process import ChemistryUnavailable
from watcher.errors import Failure, Service
from watcher.fragalysis import Fragalysis
from watcher.pipeline.collect import Collect
from watcher.pipeline.extract import Extract
from watcher.pipeline.finish import Finish
from watcher.pipeline.runner import Runner
from watcher.pipeline.settle import PATIENCE, settle
from watcher.pipeline.submit import Submit
from watcher.pipeline.verify import Verify
from watcher.settings import DatabaseSettings
from watcher.store.engine import RecordUnavailable, Session, Store
from watcher.store.instance import instance

pytest_plugins = ("tests.support.store",)

ALL = {"CCO": 1, "CCN": 1, "c1ccccc1": 1}


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[Job]:
    async with world(tmp_path) as job:
        job.set("download", enabled=False)
        yield job


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What each turn returned."""
    seen: list[bool] = []
    original = Runner.turn

    async def turn(self: Runner) -> bool:
        seen.append(await original(self))
        return seen[-1]

    monkeypatch.setattr(Runner, "turn", turn)
    return seen


def poison(monkeypatch: pytest.MonkeyPatch, stage: type, method: str, unit: int | None = None, times: int = 1) -> None:
    """Let a method of a stage show a fault of the program, so many times."""
    original, left = getattr(stage, method), times

    async def broken(self: Any, *arguments: Any) -> Any:
        nonlocal left
        if left and unit in (None, *arguments[:1]):
            left -= 1
            raise ZeroDivisionError("the program is wrong")
        return await original(self, *arguments)

    monkeypatch.setattr(stage, method, broken)


def told(logs: list[Any], event: str, kind: str) -> int:
    return sum(one["event"] == event and one["kind"] == kind for one in logs)


@pytest.mark.slow
async def test_one_poisoned_unit_stops_no_other(job: Job, monkeypatch: pytest.MonkeyPatch, turns: list[bool]) -> None:
    poison(monkeypatch, Extract, "step", unit=1, times=3)
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            await job.again(runner)
            assert job.bought == {"CCN": 1, "c1ccccc1": 1}
            assert [*await job.conditions()] == ["extract 1: unexpected"]
            for _ in range(3):
                await job.later(runner, minutes=6)
    assert job.bought == ALL
    assert await job.conditions() == {}
    assert (told(logs, "condition_opened", "unexpected"), told(logs, "condition_closed", "unexpected")) == (1, 1)
    assert len(turns) < 100


@pytest.mark.parametrize(("stage", "method"), [(Submit, "step"), (Finish, "step"), (Collect, "step"), (Submit, "due")])
async def test_a_fault_of_the_program_is_no_hot_loop(
    job: Job, monkeypatch: pytest.MonkeyPatch, turns: list[bool], stage: type, method: str
) -> None:
    poison(monkeypatch, stage, method, times=10**6)
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            await job.again(runner)
            assert len(turns) < 60
            monkeypatch.undo()
            for _ in range(3):
                await job.later(runner, minutes=6)
    assert any("unexpectedly" in one["event"] for one in logs)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "subject"), [("step", "extract 1"), ("due", "extract"), ("put_off", "extract 1")])
async def test_a_fault_of_the_program_is_logged_and_told_once(
    job: Job, monkeypatch: pytest.MonkeyPatch, method: str, subject: str
) -> None:
    unit = None if method == "due" else 1
    if method == "put_off":
        job.fault("fragalysis", "status", "site_observations/.*target=1", status=500, times=None)
    poison(monkeypatch, Extract, method, unit=unit, times=10**6)
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            await job.again(runner)
            for _ in range(10):
                await job.later(runner, minutes=6)
            assert f"{subject}: unexpected" in await job.conditions()
            monkeypatch.undo()
            job.sandbox.clear_faults()
            for _ in range(4):
                await job.later(runner, minutes=6)
            assert await job.conditions() == {}
    errors = Counter(one["event"] for one in logs if one["log_level"] == "error")
    assert {*errors} <= {"unit_failed_unexpectedly", "stage_failed_unexpectedly", "unit_not_put_off"}
    assert {*errors.values()} == {1}
    assert (told(logs, "condition_opened", "unexpected"), told(logs, "condition_closed", "unexpected")) == (1, 1)
    assert job.bought == ALL


async def test_a_stage_whose_question_the_record_refuses_stops_no_other(
    job: Job, database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL answers nothing more in a snapshot in which it has refused a question."""
    job.set("database", url=database.url)

    async def refused(_: Verify, session: Session) -> list[int]:
        with pytest.raises(DBAPIError) as refusal:
            await session.execute(text("SELECT nothing FROM nowhere"))
        raise DataError("a value that is refused for ever", {}, refusal.value)

    monkeypatch.setattr(Verify, "due", refused)
    with structlog.testing.capture_logs() as logs:
        await job.once()
    assert job.bought == ALL
    assert [one["stage"] for one in logs if one["event"] == "stage_failed_unexpectedly"] == ["verify"]
    assert not any(one["event"] == "record_unavailable" for one in logs)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a question", "a unit"])
async def test_what_the_record_refuses_alone_is_told_once_and_stops_no_other(
    job: Job, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """As from a damaged page, or in a transaction that outlasts its deadline each time."""
    refused = 0
    step, due = Extract.step, Verify.due

    async def refuse(session: Session) -> None:
        nonlocal refused
        refused += 1
        await session.execute(text("SELECT nothing FROM nowhere"))

    async def ask(self: Verify, session: Session) -> Any:
        await refuse(session)
        return await due(self, session)

    async def read(self: Extract, unit: int) -> None:
        if unit == 1:
            async with self._context.store.write() as session:
                await refuse(session)
        await step(self, unit)

    subject = "extract" if what == "a unit" else "verify"
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            with monkeypatch.context() as patch:
                patch.setattr(Verify, "due", ask) if what == "a question" else patch.setattr(Extract, "step", read)
                await runner.scan.request()
                for _ in range(360):
                    await runner.turn()
                    await runner.idle()
                    job.clock.advance(10)
                assert [*await job.conditions()] == [f"{subject}: machine"]
                assert job.bought == (ALL if what == "a question" else {"CCN": 1, "c1ccccc1": 1})
                assert 5 <= refused <= 20, "tried again every few minutes"
            for _ in range(3):
                await job.later(runner, minutes=6)
            assert await job.conditions() == {}
    events = Counter(one["event"] for one in logs)
    assert (events["record_unavailable"], events["record_available_again"]) == (1, 1)
    assert (told(logs, "condition_opened", "machine"), told(logs, "condition_closed", "machine")) == (1, 1)
    assert job.bought == ALL


async def test_what_comes_after_a_refused_question_is_asked_of_a_new_snapshot(job: Job) -> None:
    async with job.run() as runner:
        broken, after = Asked(DataError("a value that is refused for ever", {}, ValueError())), Asked()
        runner.stages = [broken, after]
        runner.changed.clear()
        with structlog.testing.capture_logs():
            await runner.turn()
        assert (after.times, runner.changed.is_set()) == (0, True), "the next turn comes at once"
        await runner.turn()
        assert (broken.times, after.times) == (1, 1)


class Asked:
    """A stage that is asked what is due, and has nothing to do."""

    service: Service | None = None
    width = 1
    finishes_on_stop = False

    def __init__(self, error: Exception | None = None) -> None:
        self.name = "broken" if error else "sound"
        self.times = 0
        self._error = error

    async def due(self, _: Session) -> list[int]:
        self.times += 1
        if self._error:
            raise self._error
        return []

    async def step(self, unit: int) -> None:
        raise AssertionError(unit)

    async def put_off(self, unit: int, failure: Failure) -> None:
        raise AssertionError(unit) from failure


async def test_what_ends_while_the_record_is_read_is_not_begun_again_in_the_same_turn(job: Job) -> None:
    """The snapshot is from before its end, and still says that it is due."""
    async with job.run() as runner:
        await job.again(runner)
        stage = Ending(runner)
        runner.stages = [stage]
        await runner.turn()
        await until(lambda: stage.steps == 1)
        for steps in (1, 2):
            await runner.turn()
            await runner.idle()
            assert stage.steps == steps
        assert stage.ended


class Ending:
    """A stage whose unit ends while the stage is asked what is due."""

    name = "ending"
    service: Service | None = None
    width = 2
    finishes_on_stop = False

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.steps = 0
        self.ended = False
        self._end = asyncio.Event()

    async def due(self, _: Session) -> list[int]:
        if self.steps:
            self._end.set()
            await self.runner.idle()
            self.ended = True
        return [7]

    async def step(self, _: int) -> None:
        self.steps += 1
        await self._end.wait()

    async def put_off(self, unit: int, failure: Failure) -> None:
        raise AssertionError(unit) from failure


@pytest.mark.parametrize("stage", [Extract, Submit])
async def test_nor_is_one_in_putting_off(
    job: Job, monkeypatch: pytest.MonkeyPatch, turns: list[bool], stage: type
) -> None:
    poison(monkeypatch, stage, "step", times=10**6)
    poison(monkeypatch, stage, "put_off", times=10**6)
    with structlog.testing.capture_logs():
        async with job.run() as runner:
            await job.again(runner)
            assert len(turns) < 80


async def test_no_more_units_at_a_time_than_a_stage_is_wide(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        job.sandbox.fragalysis.add_target(f"T{number}", "lb00001-1")
        job.sandbox.fragalysis.add_upload(f"T{number}", "lb00001-1", [(f"T{number}", "C" * (number + 4), None)])
    original, now, most = Extract.step, 0, 0

    async def counted(self: Extract, unit: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            await original(self, unit)
        finally:
            now -= 1

    monkeypatch.setattr(Extract, "step", counted)
    await job.once()
    assert most == Extract.width == 2
    assert len(job.bought) == 9
    assert job.posts() == 1, "batches fill up while uploads are read"


async def test_a_batch_is_not_held_up_for_long_by_uploads_that_are_read(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = asyncio.Event()
    original = Fragalysis.get_target_compound_smiles

    async def slowly(self: Fragalysis, target_id: int) -> Any:
        if target_id == 2:
            await reached.wait()
        return await original(self, target_id)

    monkeypatch.setattr(Fragalysis, "get_target_compound_smiles", slowly)
    async with job.run() as runner:
        await runner.scan.request()
        settling = asyncio.create_task(settle(runner))
        await until(job.claims)
        assert job.posts() == 0
        job.clock.advance(timedelta(minutes=2))
        await runner.turn()
        await until(job.posts)
        reached.set()
        async with asyncio.timeout(20):
            await settling
    assert (job.bought, job.posts()) == (ALL, 2)


async def test_settling_ends_when_only_longer_waits_are_left(job: Job, turns: list[bool]) -> None:
    started = job.clock.now()
    await job.once()
    assert job.clock.now() - started < timedelta(minutes=2), "not for the second reading in ten minutes"
    assert len(turns) < 60


async def test_settling_waits_for_a_service_at_work_without_a_busy_loop(job: Job, turns: list[bool]) -> None:
    job.sandbox.molecule_one.pace.seconds_per_molecule = 900.0
    job.sandbox.molecule_one.pace.parallel = 1
    await job.once()
    assert job.bought == ALL
    assert {row.disposition for row in await job.rows()} == {"scored"}
    assert len(turns) < 60 + 2 * 3 * 900 / PATIENCE.total_seconds()


@pytest.mark.slow
async def test_settling_does_not_spin_while_a_unit_is_under_way(job: Job, turns: list[bool]) -> None:
    job.set("download", enabled=True)
    job.sandbox.fragalysis.downloads.pace.seconds = 1800.0
    await job.once()
    assert [one.archive_state for one in await job.uploads()] == ["stored", "stored"]
    assert len(turns) < 200


async def test_an_outage_is_told_once_and_healed_once(job: Job) -> None:
    with structlog.testing.capture_logs() as logs:
        job.fault("fragalysis", "status", status=503, times=30)
        job.fault("molecule_one", "status", method="GET", status=502, times=30)
        async with job.run() as runner:
            await job.again(runner)
            for _ in range(8):
                await job.later(runner, minutes=5)
    assert job.bought == ALL
    assert await job.conditions() == {}
    assert len(await job.ever("unreachable")) == 2
    assert told(logs, "condition_opened", "unreachable") == told(logs, "condition_closed", "unreachable") == 2


@pytest.mark.slow
async def test_what_works_does_not_heal_what_does_not(job: Job) -> None:
    """One target's observations fail while everything else works: one condition, not one for each try."""
    job.fault("fragalysis", "status", "site_observations/.*target=1", status=500, times=15)
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            await job.again(runner)
            for _ in range(8):
                await job.again(runner)
                await job.later(runner, minutes=2)
    assert told(logs, "condition_opened", "unreachable") == told(logs, "condition_closed", "unreachable") == 1
    assert job.bought == ALL


async def test_a_unit_that_does_not_come_back_leaves_nothing_open(job: Job) -> None:
    job.fault("fragalysis", "status", "site_observations/.*target=1", status=500, times=None)
    async with job.run() as runner:
        await job.again(runner)
        assert [*await job.conditions()] == ["fragalysis: unreachable"]
        job.sandbox.clear_faults()
        job.sandbox.fragalysis.withdraw("A71EV2A", "lb32627-66")
        await job.again(runner)
        job.clock.advance(timedelta(hours=1))
        await job.again(runner)
    assert await job.conditions() == {}


@pytest.mark.parametrize("what", ["a purchase", "an archive"])
async def test_nor_does_one_that_was_the_last_of_its_kind(job: Job, what: str) -> None:
    """Nothing is left to succeed there: what was open ends when nothing has failed for long, and not before."""
    job.set("download", enabled=what == "an archive")
    subject = "download" if what == "an archive" else "molecule_one"
    if what == "an archive":
        job.fault("fragalysis", "truncate", "download_structures/.*file_url", method="GET", times=None)
    else:
        job.fault("molecule_one", "status", "batch-search", method="POST", status=429, times=None)
    async with job.run() as runner:
        await job.again(runner)
        assert f"{subject}: unreachable" in await job.conditions()
        for name, tas in (A, B):
            job.sandbox.fragalysis.withdraw(name, tas)
        job.sandbox.clear_faults()
        await job.again(runner)
        for _ in range(2):
            await job.later(runner, hours=3)
            await runner.keep_house()
        assert f"{subject}: unreachable" in await job.conditions()
        await job.later(runner, hours=7)
        await runner.keep_house()
        assert await job.conditions() == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("listing", "how"),
    [
        ("target_experiment_uploads", {"drop": ["upload_version"]}),
        ("target_experiment_uploads", {"values": {"project": "abc"}}),
        ("/api/targets/", {"values": {"project": -1}}),
    ],
)
async def test_a_contract_that_is_broken_is_told(job: Job, listing: str, how: dict[str, Any]) -> None:
    job.fault("fragalysis", "edit", listing, times=None, **how)
    await job.once()
    assert [*await job.conditions()] == ["fragalysis: unreadable"]
    job.sandbox.clear_faults()
    async with job.run() as runner:
        await job.later(runner, minutes=20)
    assert await job.conditions() == {}
    assert job.bought == ALL


async def test_an_observation_that_breaks_the_contract_sets_one_upload_aside(job: Job) -> None:
    job.fault("fragalysis", "edit", "site_observations/.*target=1", drop=["smiles"], times=None)
    await job.once()
    assert [*await job.conditions()] == ["A71EV2A@lb32627-66 upload 1: scoring_quarantined"]
    assert job.bought == {"CCN": 1, "c1ccccc1": 1}
    job.sandbox.clear_faults()
    job.sandbox.fragalysis.touch("A71EV2A", "lb32627-66")
    await job.once()
    assert await job.conditions() == {}
    assert job.bought == ALL


async def test_chemistry_that_does_not_start_is_this_machine_and_no_service(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_: Any) -> Any:
        raise ChemistryUnavailable("no memory for a child")

    with monkeypatch.context() as patch:
        patch.setattr("tests.support.pipeline.QuickChemistry.identify", down)
        async with job.run() as runner:
            await job.again(runner)
            assert [*await job.conditions()] == ["extract: machine"]
    await job.once()
    assert job.bought == ALL
    assert await job.conditions() == {}


@pytest.mark.slow
async def test_a_record_that_is_gone_stops_everything_and_is_told_once(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = 0
    write, read = Store.write, Store.read

    def failing(original: Any) -> Any:
        @asynccontextmanager
        async def opening(self: Store) -> AsyncIterator[Any]:
            nonlocal gone
            if 0 < gone <= 20:
                gone += 1
                raise RecordUnavailable("the database is gone")
            async with original(self) as session:
                yield session

        return opening

    monkeypatch.setattr(Store, "write", failing(write))
    monkeypatch.setattr(Store, "read", failing(read))
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            await runner.scan.request()
            gone = 1
            async with asyncio.timeout(20):
                await settle(runner)
    assert gone == 21
    assert job.bought == ALL
    assert [one["event"] for one in logs if "record_" in one["event"]].count("record_unavailable") == 1
    assert [one["event"] for one in logs if "record_" in one["event"]].count("record_available_again") == 1


async def test_stopping_cancels_what_can_be_taken_up_again(job: Job) -> None:
    job.set("download", enabled=True)
    job.sandbox.fragalysis.downloads.pace.polls = 10**6
    job.fault("fragalysis", "hold", "/viewer/task_status", times=None)
    async with job.run() as runner:
        await runner.scan.request()
        settling = asyncio.create_task(settle(runner))
        await until(lambda: job.asked("/viewer/task_status"))
        await runner.stop(timedelta(seconds=8))
        await settling
        assert not runner._under_way
        assert await runner.turn() is False
    job.sandbox.clear_faults()
    job.sandbox.fragalysis.downloads.pace.polls = 2
    await job.once()
    assert [one.archive_state for one in await job.uploads()] == ["stored", "stored"]
    assert job.bought == ALL


async def test_a_unit_that_is_cancelled_within_a_transaction_leaves_the_record_free(job: Job) -> None:
    async with job.run():
        assert job.program is not None
        store = job.program.context.store

        async def writing() -> None:
            async with store.write() as session:
                (await instance(session)).scan_no += 1
                await session.flush()
                await instance(session)

        for number in range(40):
            task = asyncio.create_task(writing())
            await asyncio.sleep(number * 0.0001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            async with asyncio.timeout(5):
                await writing()


async def test_leaving_the_program_leaves_nothing_under_way(job: Job) -> None:
    job.fault("fragalysis", "hold", "site_observations", times=None)
    async with job.run() as runner:
        await runner.scan.request()
        async with asyncio.timeout(10):
            while not job.asked("site_observations"):
                await runner.turn()
                await asyncio.sleep(0.01)
        tasks = list(runner._under_way.values())
        assert tasks
    assert all(task.done() for task in tasks)


async def test_what_is_logged_of_one_unit_is_not_told_of_another(job: Job) -> None:
    structlog.contextvars.bind_contextvars(told_by="the caller")
    try:
        async with job.run() as runner:
            await job.again(runner)
            assert structlog.contextvars.get_contextvars() == {"told_by": "the caller"}
    finally:
        structlog.contextvars.clear_contextvars()
