"""The machine's network fails: names that stop resolving, and a PostgreSQL that is cut off or cut half open."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp.resolver
import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import func, select, text

from tests.support.network import RawServer, raw_server
from tests.support.pipeline import A, Job, until, world
from tests.support.record import SERVER
from watcher.errors import AlreadyRunning, Ours
from watcher.settings import DatabaseSettings
from watcher.store.engine import Store
from watcher.store.lock import InstanceLock
from watcher.store.schema import Claim, Condition

pytestmark = pytest.mark.slow

pytest_plugins = ("tests.support.store",)
ALL = {"CCO": 1, "CCN": 1, "c1ccccc1": 1}


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[Job]:
    async with world(tmp_path) as job:
        job.set("download", enabled=False)
        yield job


def told(logs: list[Any], name: str, **values: str) -> int:
    return sum(one["event"] == name and values.items() <= one.items() for one in logs)


async def test_names_that_stop_resolving(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    for section, key in (("fragalysis", "stack"), ("molecule_one", "base_url")):
        job.set(section, **{key: getattr(job.sandbox, section).url.replace("127.0.0.1", "localhost")})
    resolves = True
    resolve = aiohttp.resolver.ThreadedResolver.resolve

    async def look_up(self: Any, *arguments: Any, **more: Any) -> Any:
        if not resolves:
            raise OSError(None, "Temporary failure in name resolution")
        return await resolve(self, *arguments, **more)

    monkeypatch.setattr(aiohttp.resolver.ThreadedResolver, "resolve", look_up)
    monkeypatch.setattr("aiohttp.connector._DNSCacheTable.expired", lambda *_: True)
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            resolves = False
            await job.again(runner)
            conditions = await job.conditions()
            assert set(conditions) == {"fragalysis: unreachable", "molecule_one: unreachable"}
            assert all("localhost does not resolve" in reason for reason in conditions.values())
            for _ in range(3):
                await job.later(runner, minutes=16)
            assert told(logs, "condition_opened") == 2, "once for each service, however often it is tried"
            resolves = True
            await job.later(runner, minutes=16)
            assert told(logs, "condition_closed") == 2
            assert job.bought == ALL
            # In the middle of the work: a purchase that finds no name was certainly not sent.
            job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
            submit = next(stage for stage in runner.stages if stage.name == "submit")
            reserve = submit._reserve  # type: ignore[attr-defined]

            async def reserve_and_lose(token: str) -> Any:
                nonlocal resolves
                resolves = False
                return await reserve(token)

            submit._reserve = reserve_and_lose  # type: ignore[attr-defined]
            await job.again(runner)
            del submit._reserve  # type: ignore[attr-defined]
            resolves = True
            for _ in range(3):
                await job.later(runner, minutes=16)
    assert job.bought == {**ALL, "CCC": 1}
    assert await job.conditions() == {}
    assert {one.state for one in await job.batches()} <= {"collected", "closed"}
    for service in ("fragalysis", "molecule_one"):
        about = {"kind": "unreachable", "subject": service}
        assert told(logs, "condition_opened", **about) == told(logs, "condition_closed", **about) <= 2
    assert told(logs, "condition_opened", subject="molecule_one") == 2
    assert told(logs, "record_unavailable") == 0


# PostgreSQL behind a wire that can be cut


@asynccontextmanager
async def wire() -> AsyncIterator[tuple[RawServer, asyncio.Event]]:
    """Forward to the server; with the event cleared it is cut half open: nothing passes, and nobody is told."""
    flowing = asyncio.Event()
    flowing.set()
    host, _, port = SERVER.partition(":")

    async def relay(_: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        cut = False

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            nonlocal cut
            while data := await source.read(65536):
                cut = cut or not flowing.is_set()
                await flowing.wait()
                sink.write(data)

        pumps = [asyncio.create_task(pump(reader, back)), asyncio.create_task(pump(there, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in pumps:
                one.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            if cut or not flowing.is_set():  # a wire that was cut tells the server nothing
                lost.append(back)
            else:
                back.close()

    lost: list[asyncio.StreamWriter] = []
    async with raw_server(relay, scheme="postgresql+asyncpg") as server:
        yield server, flowing
    for one in lost:
        one.close()


def through(server: RawServer, name: str, timeout: str) -> DatabaseSettings:
    url = f"postgresql+asyncpg://postgres@127.0.0.1:{server.port}/{name}"
    return DatabaseSettings.model_validate({"url": url, "timeout": timeout})


async def results(job: Job) -> dict[str, int]:
    assert job.program is not None
    async with job.program.context.store.read() as session:
        assert not (await session.scalars(select(Condition).where(Condition.until.is_(None)))).all()
        found = await session.execute(select(Claim.state, func.count()).group_by(Claim.state))
        return dict(found.all())


TIMEOUTS = {"terminated": "30s", "half open": "2s"}
"""How a database is cut off, and when the record gives up waiting for it."""


async def cut_off(name: str, flowing: asyncio.Event, how: str) -> None:
    from tests.support.store import on_server  # a plugin: imported before, its checks would not be rewritten

    if how == "half open":
        flowing.clear()
        return
    await asyncio.to_thread(
        on_server,
        f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()",
    )


async def connect_again(name: str, flowing: asyncio.Event) -> None:
    from tests.support.store import on_server

    flowing.set()
    await asyncio.to_thread(on_server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


@pytest.mark.postgres
@pytest.mark.parametrize("how", TIMEOUTS)
async def test_a_database_that_is_cut_off_is_waited_for(job: Job, how: str, postgres_database_of_its_own: str) -> None:
    name = postgres_database_of_its_own
    async with wire() as (server, flowing):
        job.settings = job.settings.model_copy(update={"database": through(server, name, TIMEOUTS[how])})
        with structlog.testing.capture_logs() as logs:
            async with job.run() as runner:
                assert job.program is not None
                await job.again(runner)
                job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
                await cut_off(name, flowing, how)
                await runner.request_scan()
                for _ in range(2):
                    job.clock.advance(60)
                    await runner.turn()
                    await runner.idle()
                assert told(logs, "record_unavailable") == 1
                await connect_again(name, flowing)
                await job.later(runner, minutes=2)
                await job.program.lock.check()
                assert await results(job) == {"scored": 4}
        assert told(logs, "record_unavailable") == told(logs, "record_available_again") == 1
    assert job.bought == {**ALL, "CCC": 1}


@pytest.mark.postgres
@pytest.mark.parametrize("how", TIMEOUTS)
async def test_an_answer_to_a_purchase_waits_for_a_database_that_was_cut_off(
    job: Job, how: str, postgres_database_of_its_own: str
) -> None:
    """The connections end between the intent and its answer, which is committed as soon as there are new ones."""
    name = postgres_database_of_its_own
    async with wire() as (server, flowing):
        job.settings = job.settings.model_copy(update={"database": through(server, name, TIMEOUTS[how])})
        with structlog.testing.capture_logs() as logs:
            async with job.run() as runner:
                assert job.program is not None
                service = job.program.context.molecule_one
                create = service.create

                async def create_and_cut_off(body: bytes) -> Any:
                    outcome = await create(body)
                    await cut_off(name, flowing, how)
                    return outcome

                service.create = create_and_cut_off  # type: ignore[method-assign]
                async with asyncio.TaskGroup() as under_way:
                    under_way.create_task(job.again(runner))
                    await until(lambda: told(logs, "record_unavailable"))
                    await connect_again(name, flowing)
                assert await results(job) == {"scored": 3}
                assert [one.state for one in await job.batches()] == ["collected"]
        assert told(logs, "record_unavailable") == told(logs, "record_available_again") == 1
    assert job.bought == ALL
    assert job.posts() == 1


@pytest.mark.postgres
async def test_a_lock_whose_connection_was_cut_half_open_is_taken_again(
    postgres_database_of_its_own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server keeps the old session, and the lock with it, for a minute: it must not be taken for somebody else."""
    name = postgres_database_of_its_own
    async with wire() as (server, flowing):
        settings = through(server, name, "10s")
        async with Store(settings) as store, Store(settings) as other, InstanceLock(store, "run") as lock:
            flowing.clear()
            with monkeypatch.context() as impatient:
                impatient.setattr("watcher.store.lock.CHECK_S", 0.3)
                impatient.setattr("watcher.store.lock.TAKE_S", 0.5)
                with pytest.raises(Ours, match="could not be asked for"):
                    await lock.check()
            flowing.set()
            assert await _holders(name) == 1, "the lost session still has it"
            await lock.check()
            await lock.check()
            with pytest.raises(AlreadyRunning):
                async with InstanceLock(other, "once"):
                    pass
        assert await _holders(name) == 0


async def _holders(name: str) -> int:
    url = SecretStr(f"postgresql+asyncpg://postgres@{SERVER}/{name}")
    async with Store(DatabaseSettings(url=url)) as store, store.read() as session:
        found = await session.scalar(
            text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
                 " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")
        )  # fmt: skip
        return int(found or 0)
