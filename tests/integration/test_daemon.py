"""The daemon in this process, against the sandbox: start, ready, watch, drain."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import aiohttp
import pytest
from apscheduler.triggers.cron import CronTrigger

from watcher import schedule
from watcher.clock import SystemClock
from watcher.daemon import run
from watcher.errors import AlreadyRunning, Ours
from watcher.pipeline.runner import Runner
from watcher.program import opened
from watcher.sandbox import Sandbox
from watcher.schedule import scan_trigger
from watcher.settings import Settings


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(age="2024", catalogue=None) as sandbox:
        sandbox.fragalysis.add_target("A71EV2A", "lb32627-66")
        sandbox.fragalysis.add_upload("A71EV2A", "lb32627-66", [("A0310a", "CCO", "Z1"), ("A0311a", "CCN", "Z2")])
        yield sandbox


@pytest.fixture
def settings(sandbox: Sandbox, tmp_path: Path, port: int) -> Settings:
    return (
        Settings()
        .replace("fragalysis", stack=sandbox.fragalysis.url, requests_per_second=100)
        .replace(
            "molecule_one",
            base_url=sandbox.molecule_one.url,
            token=sandbox.molecule_one.token,
            requests_per_second=100,
            poll_interval="0.1s",
        )
        .replace("database", url=f"sqlite+aiosqlite:///{tmp_path}/watcher.db")
        .replace("download", directory=tmp_path / "downloads")
        .replace("server", listen=f"127.0.0.1:{port}")
    )


async def until(holds: Callable[[], Awaitable[bool]], running: asyncio.Task[int]) -> None:
    """Return when it holds; fail at once when the daemon ends instead."""
    async with asyncio.timeout(20):
        while not await holds():
            if running.done():
                raise AssertionError(f"the daemon ended with {running.result()}")
            await asyncio.sleep(0.02)


class Asking:
    """Asks the daemon's server."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._url = f"http://127.0.0.1:{port}"

    async def status(self, path: str, **headers: str) -> int:
        try:
            async with self._session.get(self._url + path, headers=headers) as answer:
                return answer.status
        except aiohttp.ClientConnectionError:
            return 0

    async def text(self, path: str) -> str:
        async with self._session.get(self._url + path) as answer:
            return await answer.text()

    async def ready(self) -> bool:
        return await self.status("/readyz") == 200


@pytest.fixture
async def ask(port: int) -> AsyncIterator[Asking]:
    async with aiohttp.ClientSession() as session:
        yield Asking(session, port)


async def stop(running: asyncio.Task[int], number: signal.Signals = signal.SIGTERM) -> int:
    os.kill(os.getpid(), number)
    async with asyncio.timeout(10):
        return await running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_does_the_whole_job_and_ends_in_order(
    settings: Settings, sandbox: Sandbox, ask: Asking, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")  # a service manager that is gone harms nobody
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    running = asyncio.create_task(run(settings))
    await until(ask.ready, running)

    async def scored() -> bool:
        return 'watcher_claims{state="scored"} 2.0' in await ask.text("/metrics")

    await until(scored, running)
    assert await ask.status("/livez") == 200
    assert sandbox.molecule_one.ledger.purchases == {"CCO": 1, "CCN": 1}
    assert await stop(running, number) == 0
    assert await ask.status("/livez") == 0
    assert "NOTIFY_SOCKET" not in os.environ


async def test_a_second_start_buys_nothing_and_takes_up_new_uploads(
    settings: Settings, sandbox: Sandbox, ask: Asking
) -> None:
    for compounds in (2, 3):
        running = asyncio.create_task(run(settings))
        wanted = f'watcher_claims{{state="scored"}} {compounds}.0'

        async def scored(wanted: str = wanted) -> bool:
            return await ask.ready() and wanted in await ask.text("/metrics")

        await until(scored, running)
        assert await stop(running) == 0
        sandbox.fragalysis.add_upload("A71EV2A", "lb32627-66", [("A0310a", "CCO", "Z1"), ("A0400a", "CCC", None)])
    assert sandbox.molecule_one.ledger.purchases == {"CCO": 1, "CCN": 1, "CCC": 1}


async def test_an_outage_of_a_service_does_not_flip_its_health(
    settings: Settings, sandbox: Sandbox, ask: Asking
) -> None:
    await sandbox.molecule_one.close()
    running = asyncio.create_task(run(settings))

    async def told() -> bool:
        return await ask.ready() and "unreachable" in await ask.text("/readyz")

    await until(told, running)
    assert await ask.status("/livez") == 200
    assert await stop(running) == 0


async def test_the_token_guards_everything_but_livez(settings: Settings, ask: Asking) -> None:
    running = asyncio.create_task(run(settings.replace("server", token="open-sesame")))

    async def alive() -> bool:
        return await ask.status("/livez") == 200

    await until(alive, running)
    assert await ask.status("/metrics") == 401
    assert await ask.status("/readyz", Authorization="Bearer wrong") == 401
    assert await ask.status("/metrics", Authorization="Bearer open-sesame") == 200
    assert await stop(running) == 0


async def test_a_port_in_use_is_named(settings: Settings, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)), pytest.raises(Ours, match=str(port)):
        await run(settings)


async def test_a_second_daemon_is_refused(settings: Settings, ask: Asking) -> None:
    running = asyncio.create_task(run(settings))
    await until(ask.ready, running)
    with pytest.raises(AlreadyRunning, match=rf"`watcher run`, process {os.getpid()}"):
        async with opened(settings, "once"):
            pass
    assert not running.done()
    assert await stop(running) == 0


async def test_a_background_task_that_fails_ends_the_daemon_with_its_reason(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: Runner) -> bool:
        raise ArithmeticError("the wheel came off")

    monkeypatch.setattr(Runner, "turn", broken)
    async with asyncio.timeout(10):
        assert await run(settings) == 1
    assert any("the wheel came off" in record.getMessage() for record in caplog.records if "daemon" in record.name)


async def test_a_lost_lock_ends_the_daemon(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def taken(_: object) -> None:
        raise AlreadyRunning("someone else has it")

    monkeypatch.setattr("watcher.store.lock.InstanceLock.check", taken)
    monkeypatch.setattr(schedule, "CHECK_LOCK", timedelta(seconds=0.05))
    async with asyncio.timeout(10):
        assert await run(settings) == 1


async def test_a_database_that_is_away_when_the_lock_is_checked_is_waited_for(
    settings: Settings, ask: Asking, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checks = 0

    async def away(_: object) -> None:
        nonlocal checks
        checks += 1
        raise Ours("the database went away")

    monkeypatch.setattr("watcher.store.lock.InstanceLock.check", away)
    monkeypatch.setattr(schedule, "CHECK_LOCK", timedelta(seconds=0.05))
    running = asyncio.create_task(run(settings))

    async def checked() -> bool:
        return await ask.ready() and checks > 3

    await until(checked, running)
    assert await stop(running) == 0
    assert sum("lock_unchecked" in record.getMessage() for record in caplog.records) == 1


async def test_scans_come_in_time_after_the_clock_was_set_back(
    settings: Settings, sandbox: Sandbox, ask: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset = timedelta()

    class SetBack(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(time.time() + offset.total_seconds(), tz)

    def scans() -> int:
        return sum("/api/target_experiment_uploads/" in path for _, path in sandbox.fragalysis.requests)

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", SetBack)
    monkeypatch.setattr(SystemClock, "now", lambda _: SetBack.now(UTC))
    monkeypatch.setattr(schedule, "POLL", timedelta(seconds=0.1))
    running = asyncio.create_task(run(settings.replace("fragalysis", scan_interval="0.2s")))
    await until(ask.ready, running)
    offset = timedelta(hours=-1)
    seen = scans()

    async def scanned() -> bool:
        return scans() > seen + 4

    await until(scanned, running)
    assert await stop(running) == 0


def test_scans_by_interval_with_jitter() -> None:
    trigger = scan_trigger(Settings().replace("fragalysis", scan_interval="10m"))
    now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    times = [trigger.get_next_fire_time(now, now) for _ in range(50)]
    assert all(timedelta(minutes=8) <= time - now <= timedelta(minutes=12) for time in times)
    assert len(set(times)) > 1


def test_scans_by_cron_expression_in_utc() -> None:
    trigger = scan_trigger(Settings().replace("fragalysis", scan_cron="30 6 * * *"))
    assert isinstance(trigger, CronTrigger)
    now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    times = [trigger.get_next_fire_time(None, now) for _ in range(50)]
    assert all(abs(time - datetime(2026, 3, 2, 6, 30, tzinfo=UTC)) <= timedelta(seconds=30) for time in times)
    assert len(set(times)) > 1
