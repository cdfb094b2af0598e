"""When the daemon counts as alive, and the line that people read of it."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from tests.support.clock import START, FakeClock
from watcher import heartbeat
from watcher.heartbeat import Heart, Pulse, beating, starting, status_line
from watcher.program import Program
from watcher.schedule import Schedule
from watcher.settings import Settings
from watcher.store.engine import RecordUnavailable
from watcher.store.overview import Pending
from watcher.store.schema import Condition
from watcher.systemd import ServiceManager


class Listening:
    """A service manager that keeps what it is told."""

    listens = True

    def __init__(self, watchdog: timedelta | None = timedelta(seconds=60)) -> None:
        self.watchdog = watchdog
        self.told: list[dict[str, str | int]] = []
        self._told = asyncio.Event()

    def tell(self, **facts: str | int) -> None:
        self.told.append(facts)
        self._told.set()

    async def hears(self, facts: dict[str, str | int], times: int) -> None:
        """Return when it was told so often."""
        while self.told.count(facts) < times:
            self._told.clear()
            await self._told.wait()


class Database:
    """A record that answers, fails, or is silent."""

    label = "watcher.db"

    def __init__(self) -> None:
        self.answer: Callable[[], None] | None = lambda: None

    async def ping(self) -> None:
        if self.answer is None:
            await asyncio.Event().wait()
        else:
            self.answer()


class Life:
    """A daemon of which only the pulse is real."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(heartbeat, "_DEADLINE_S", 0.01)
        self.clock, self.database = FakeClock(), Database()
        self.runner = SimpleNamespace(turned_at=0.0, is_paying=False)
        self.manager = Listening()
        context = SimpleNamespace(clock=self.clock, store=self.database, settings=Settings())
        self.program = cast("Program", SimpleNamespace(context=context, runner=self.runner))
        self.pulse = Pulse(self.program)
        self.line = "40 targets followed"
        self.heart = Heart(
            cast("ServiceManager", self.manager), self.program, self.pulse, cast("Schedule", SimpleNamespace())
        )
        monkeypatch.setattr(self.heart, "line", self.read_line)

    async def read_line(self) -> str:
        return self.line

    async def beat(self) -> list[dict[str, str | int]]:
        self.manager.told.clear()
        await self.heart.beat()
        return self.manager.told.copy()


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Life:
    return Life(monkeypatch)


def unexpected(failure: BaseException) -> None:
    raise AssertionError(failure)


def fail() -> None:
    raise RecordUnavailable("the disk is gone")


async def test_it_feeds_the_watchdog_and_tells_what_changes(life: Life) -> None:
    assert await life.beat() == [{"WATCHDOG": 1}, {"STATUS": "40 targets followed"}]
    assert await life.beat() == [{"WATCHDOG": 1}]
    life.line = "41 targets followed"
    assert await life.beat() == [{"WATCHDOG": 1}, {"STATUS": "41 targets followed"}]


@pytest.mark.parametrize(
    ("answer", "turned", "reason"),
    [
        (fail, True, "the disk is gone"),
        (None, True, "the database watcher.db is silent"),
        (lambda: None, False, "the stages have had no turn for 91 s"),
    ],
    ids=["database fails", "database is silent", "stages hang"],
)
async def test_it_stops_feeding_while_something_stands_still(
    life: Life, answer: Callable[[], None] | None, turned: bool, reason: str
) -> None:
    await life.beat()
    life.clock.advance(91)
    life.runner.turned_at = life.clock.monotonic() if turned else 0.0
    life.database.answer = answer
    with capture_logs() as logs:
        assert await life.pulse.trouble() == reason
        assert await life.beat() == [{"STATUS": reason}]
        assert await life.beat() == []
        life.database.answer = lambda: None
        life.runner.turned_at = life.clock.monotonic()
        assert await life.beat() == [{"WATCHDOG": 1}, {"STATUS": "40 targets followed"}]
    assert [line["event"] for line in logs] == ["watchdog_not_fed", "watchdog_fed_again"]
    assert (logs[0]["reason"], logs[0]["killed_after_seconds"]) == (reason, 60)


async def test_it_goes_on_feeding_while_the_answer_to_a_purchase_waits_for_the_record(life: Life) -> None:
    await life.beat()
    life.database.answer, life.runner.is_paying = fail, True
    assert await life.beat() == [{"WATCHDOG": 1}, {"STATUS": "the disk is gone"}]
    life.runner.is_paying = False
    assert await life.beat() == []


async def test_a_turn_may_wait_for_a_slow_database(life: Life) -> None:
    life.clock.advance(89)
    assert await life.pulse.trouble() == ""


async def test_nobody_who_watches_is_told_of_no_watchdog(life: Life) -> None:
    life.manager.watchdog = None
    life.database.answer = fail
    with capture_logs() as logs:
        assert await life.beat() == [{"STATUS": "the disk is gone"}]
    assert logs == []


async def test_from_the_first_word_to_the_last(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT", timedelta(milliseconds=1))
    manager = cast("ServiceManager", life.manager)
    async with starting(manager):
        await life.manager.hears({"STATUS": "starting", "EXTEND_TIMEOUT_USEC": 60_000_000}, times=2)
    life.manager.told.clear()
    async with beating(manager, life.heart, timedelta(seconds=28), unexpected):
        await life.manager.hears({"WATCHDOG": 1}, times=3)
    assert life.manager.told[0] == {"READY": 1, "STATUS": "40 targets followed"}
    assert life.manager.told[1:-1] == [{"WATCHDOG": 1}] * (len(life.manager.told) - 2)  # nothing new, nothing told
    assert life.manager.told[-1] == {"STOPPING": 1, "STATUS": "stopping", "EXTEND_TIMEOUT_USEC": 28_000_000}


async def test_a_heart_that_fails_ends_the_daemon(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> None:
        raise ArithmeticError("it skipped a beat")

    monkeypatch.setattr(life.heart, "beat", broken)
    failed = asyncio.get_running_loop().create_future()
    async with beating(cast("ServiceManager", life.manager), life.heart, timedelta(), failed.set_exception):
        with pytest.raises(ArithmeticError, match="it skipped a beat"):
            await failed


def condition(subject: str, kind: str, **ago: float) -> Condition:
    return Condition(subject=subject, kind=kind, since=START - timedelta(**ago))


@pytest.mark.parametrize(
    ("followed", "units", "conditions", "said"),
    [
        (40, {}, [], "40 targets followed, all settled; next scan 12:15 UTC"),
        (1, {"collect": 2, "finish": 1}, [], "1 target followed, waiting for 2 batches; next scan 12:15 UTC"),
        (
            2,
            {"download": 1, "extract": 1, "submit": 70},
            [],
            "2 targets followed, reading 1 upload, 1 archive to fetch, 70 compounds to send; next scan 12:15 UTC",
        ),
        (2, {"finish": 1}, [], "2 targets followed, 1 upload not scored yet; next scan 12:15 UTC"),
        (
            3,
            {"reconcile": 1},
            [
                condition("molecule_one", "unreachable", minutes=20),
                condition("batch 3", "unconfirmed"),
                condition("fragalysis", "credentials", days=2),
                condition("target Secret lb1-1", "vanished"),
            ],
            (
                "3 targets followed, 1 batch in doubt; Molecule.one unreachable since 11:40 UTC; "
                "Fragalysis refuses us since 2026-02-27 12:00 UTC; "
                "2 things need attention, see `watcher status`; next scan 12:15 UTC"
            ),
        ),
        (0, {}, [condition("batch 3", "lost")],
         "0 targets followed, all settled; 1 thing needs attention, see `watcher status`; next scan 12:15 UTC"),
    ],
)  # fmt: skip
def test_the_line(followed: int, units: dict[str, int], conditions: list[Condition], said: str) -> None:
    pending = {stage: Pending(units.get(stage, 0), None) for stage in ("download", "extract", "submit", "reconcile",
                                                                      "collect", "finish")}  # fmt: skip
    arguments: dict[str, Any] = {"next_scan": START + timedelta(minutes=15), "now": START}
    assert status_line(followed, pending, conditions, **arguments) == said
    assert status_line(followed, pending, conditions, next_scan=None, now=START) == said.rpartition("; next")[0]
