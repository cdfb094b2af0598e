"""What the daemon's server says of a record, over HTTP; how it is part of the daemon is in test_daemon."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event, update

from tests.support.pipeline import A, B, Job, world
from watcher.heartbeat import ILL, SERVICES, Pulse
from watcher.program import Program
from watcher.schedule import Schedule
from watcher.store.conditions import open_condition
from watcher.store.schema import Target
from watcher.web.server import Health, serving

NASTY = 'A "quoted" \\ name\nin two lines'


@dataclass
class Page:
    """The server of one program."""

    program: Program
    health: Health
    url: str

    async def json(self, path: str) -> tuple[int, dict[str, Any]]:
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as answer:
            return answer.status, await answer.json()

    async def samples(self) -> dict[tuple[str, ...], float]:
        """Every sample of a scrape, by its name and the values of its labels, sorted by label name."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as answer:
            assert answer.status == 200
            families = text_string_to_metric_families(await answer.text())
            return {
                (one.name, *(one.labels[label] for label in sorted(one.labels))): one.value
                for family in families
                for one in family.samples
            }


class Running:
    running = True


@asynccontextmanager
async def page(job: Job) -> AsyncIterator[Page]:
    async with job.run():
        assert job.program is not None
        health = Health(job.program, Pulse(job.program))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = job.settings.replace("server", listen=f"127.0.0.1:{port}")
        async with serving(settings.server, health) as address:
            yield Page(job.program, health, f"http://{address}")


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[Job]:
    async with world(tmp_path) as job:
        yield job


async def test_every_number_of_a_scrape_is_that_of_the_record(job: Job, tmp_path: Path) -> None:
    job.set("limits", compounds_per_day=100)
    job.set("fragalysis", scan_interval="20m")
    async with page(job) as server:
        samples = await server.samples()
        assert samples["watcher_last_scan_timestamp_seconds",] == 0
        assert samples["watcher_claims", "scored"] == 0
        await job.again(server.program.runner)
        begin = job.clock.now()
        async with server.program.context.store.write() as session:
            await session.execute(update(Target).where(Target.name == B[0]).values(name=NASTY))
            for subject in ("molecule_one", "fragalysis"):
                await open_condition(session, subject, "unreachable", reason="r", action="a", now=begin)
        samples = await server.samples()
        async with server.program.context.store.write() as session:
            await session.execute(update(Target).where(Target.name == A[0]).values(followed=False))
        later = await server.samples()
    assert samples["watcher_claims", "scored"] == 3
    assert samples["watcher_batches", "collected"] == 1
    assert samples["watcher_uploads", "scoring", "scored"] == 2
    assert samples["watcher_oldest_pending_timestamp_seconds", "submit"] == 0
    assert samples["watcher_limit_compounds_per_day",] == 100
    assert samples["watcher_limit_remaining_compounds",] == 97
    assert samples["watcher_scan_interval_seconds",] == 1200
    assert 0 < samples["watcher_last_scan_timestamp_seconds",] <= begin.timestamp()
    assert samples["watcher_conditions", "unreachable"] == 2
    assert samples["watcher_service_up", "fragalysis"] == 0
    for target, tas in (A, (NASTY, B[1])):
        assert samples["watcher_target_recorded_upload_index", target, tas] == 1
        assert samples["watcher_target_remote_upload_index", target, tas] == 1
        assert samples["watcher_target_last_success_timestamp_seconds", target, tas] <= begin.timestamp()
    assert [name for name in later if name[1:] == A] == []  # left out, it has no series any more
    assert ("watcher_target_recorded_upload_index", NASTY, B[1]) in later
    for of in ("record", "downloads"):
        assert 0 < samples["watcher_disk_free_bytes", of] < samples["watcher_disk_size_bytes", of]
    for name in ("start_time_seconds", "resident_memory_bytes", "cpu_seconds_total", "open_fds"):
        assert samples[f"process_{name}",] > 0


@pytest.mark.parametrize("kind", ILL)
async def test_a_service_is_down_for_whatever_the_status_line_calls_ill(job: Job, kind: str) -> None:
    async with page(job) as server:
        store, now = server.program.context.store, job.clock.now()
        async with store.write() as session:
            await open_condition(session, "batch 1", kind, reason="r", action="a", now=now)
        samples = await server.samples()
        assert {samples["watcher_service_up", service] for service in SERVICES} == {1}
        async with store.write() as session:
            await open_condition(session, "fragalysis", kind, reason="r", action="a", now=now)
        samples = await server.samples()
        assert [samples["watcher_service_up", service] for service in SERVICES] == [0, 1]


async def test_no_limit_and_no_downloads(job: Job) -> None:
    job.set("limits", compounds_per_day=0)
    async with page(job) as server:
        samples = await server.samples()
    assert samples["watcher_limit_compounds_per_day",] == float("inf")
    assert samples["watcher_limit_remaining_compounds",] == float("inf")


async def test_a_scrape_asks_as_little_of_a_large_record_as_of_a_small_one(job: Job) -> None:
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    async with page(job) as server:
        engine = server.program.context.store.engine.sync_engine
        event.listen(engine, "before_cursor_execute", count)
        await server.samples()
        before, statements = statements, 0
        await job.again(server.program.runner)
        statements = 0
        await server.samples()
    assert statements == before <= 16


async def test_ready_tells_each_part_and_what_is_not_well(job: Job) -> None:
    async with page(job) as server:
        status, body = await server.json("/readyz")
        assert (status, body["reason"]) == (503, "the scheduler does not run")
        server.health.schedule = Running()  # type: ignore[assignment]
        async with server.program.context.store.write() as session:
            now = job.clock.now()
            await open_condition(session, "fragalysis", "credentials", reason="401", action="renew it", now=now)
        assert await server.json("/readyz") == (
            200,
            {
                "ready": True,
                "schema_current": True,
                "lock_held": True,
                "scheduler_running": True,
                "conditions": [
                    {
                        "kind": "credentials",
                        "subject": "fragalysis",
                        "reason": "401",
                        "action": "renew it",
                        "since": now.isoformat(),
                    }
                ],
            },
        )
        await server.program.lock.__aexit__()
        status, body = await server.json("/readyz")
        assert (status, body["lock_held"], body["reason"]) == (503, False, "the lock of the record is lost")


async def test_stages_that_hang_are_not_alive(job: Job) -> None:
    async with page(job) as server:
        assert await server.json("/livez") == (200, {"live": True})
        job.clock.advance(91)
        status, body = await server.json("/livez")
        assert (status, body) == (503, {"live": False, "reason": "the stages have had no turn for 91 s"})
        await server.program.runner.turn()
        assert await server.json("/livez") == (200, {"live": True})


async def test_a_record_that_is_gone_is_not_alive_and_is_said_everywhere(job: Job) -> None:
    async with page(job) as server:
        async with server.program.context.store.write() as session:
            await (await session.connection()).exec_driver_sql("ALTER TABLE instance RENAME TO elsewhere")
        status, body = await server.json("/livez")
        assert status == 503
        assert "no such table: instance" in body["reason"]
        async with aiohttp.ClientSession() as http, http.get(f"{server.url}/metrics") as answer:
            assert answer.status == 503
            assert "no such table" in await answer.text()
        async with server.program.context.store.write() as session:
            await (await session.connection()).exec_driver_sql("ALTER TABLE elsewhere RENAME TO instance")


def test_a_schedule_that_has_not_begun_does_not_run() -> None:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    schedule = Schedule(AsyncIOScheduler())
    assert not schedule.running
    assert schedule.next_scan_at is None
