"""One `run` or `once` for each record, also when processes are killed and connections break."""
# ruff: noqa: ASYNC240 - nothing else goes on in these tests

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.support.record import settings_for_database, settings_for_file
from watcher.errors import AlreadyRunning, Ours
from watcher.settings import DatabaseSettings
from watcher.store.engine import Store
from watcher.store.lock import InstanceLock

pytest_plugins = ("tests.support.store",)

HOLDER = """
import asyncio, sys
from pydantic import SecretStr
from watcher.settings import DatabaseSettings
from watcher.store.engine import Store
from watcher.store.lock import InstanceLock

async def main():
    async with Store(DatabaseSettings(url=SecretStr(sys.argv[1]))) as store, InstanceLock(store, "run"):
        print("held", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@asynccontextmanager
async def another_process(settings: DatabaseSettings) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that holds the lock of a record until its standard input ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, settings.url.get_secret_value(),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert await process.stdout.readline() == b"held\n"
        yield process
    finally:
        process.stdin.close()
        await process.wait()


async def test_a_second_holder_is_refused_and_told_who_has_it(database: DatabaseSettings) -> None:
    async with another_process(database) as process, Store(database) as store:
        with pytest.raises(AlreadyRunning, match=f"`watcher run`, process {process.pid} on .*since"):
            async with InstanceLock(store, "once"):
                pass
        await store.ping()  # everything else works beside it
    async with Store(database) as store, InstanceLock(store, "once") as lock:
        await lock.check()


async def test_a_killed_holder_frees_it(database: DatabaseSettings) -> None:
    async with another_process(database) as process, Store(database) as store:
        process.send_signal(signal.SIGKILL)
        await process.wait()
        async with asyncio.timeout(20):
            while True:  # the server takes a moment to see it
                with suppress(AlreadyRunning):
                    async with InstanceLock(store, "once"):
                        break


async def test_it_is_free_again_after_its_block(database: DatabaseSettings) -> None:
    """Also while the record stays open: a connection that went back to the pool must not keep the lock."""
    async with Store(database) as one, Store(database) as other:
        for _ in range(2):
            async with InstanceLock(one, "run"):
                await one.ping()
                with pytest.raises(AlreadyRunning):
                    async with InstanceLock(other, "once"):
                        pass
            async with InstanceLock(other, "once"):
                await other.ping()


async def test_two_records_do_not_disturb_each_other(
    database: DatabaseSettings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    async with Store(database) as one, InstanceLock(one, "run"):
        if one.is_sqlite:
            second = settings_for_file(tmp_path / "second.db")
        else:
            second = settings_for_database(request.getfixturevalue("postgres_database_of_its_own"))
        async with Store(second) as other, InstanceLock(other, "run") as lock:
            await lock.check()


async def test_the_lock_file_names_its_holder_and_is_private(sqlite_settings: DatabaseSettings) -> None:
    async with Store(sqlite_settings) as store, InstanceLock(store, "once"):
        file = Path(f"{store.sqlite_file}.lock")
        assert file.read_text().startswith(f"`watcher once`, process {os.getpid()} on ")
        assert file.stat().st_mode & 0o777 == 0o600


async def test_a_lock_file_that_cannot_be_opened_is_said(sqlite_settings: DatabaseSettings) -> None:
    async with Store(sqlite_settings) as store:
        Path(f"{store.sqlite_file}.lock").mkdir()
        with pytest.raises(Ours, match="cannot be opened"):
            async with InstanceLock(store, "run"):
                pass


async def terminate_others(name: str) -> None:
    async with Store(settings_for_database(name)) as store, store.read() as session:
        await session.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                 " WHERE datname = current_database() AND pid <> pg_backend_pid()")
        )  # fmt: skip


async def allow(name: str, *, connections: bool) -> None:
    async with Store(settings_for_database("postgres")) as store, store.engine.connect() as connection:
        await connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {connections}"))
        await connection.commit()


@pytest.mark.postgres
async def test_a_lost_connection_is_noticed_and_the_lock_taken_again(postgres_database_of_its_own: str) -> None:
    settings = settings_for_database(postgres_database_of_its_own)
    async with Store(settings) as store, Store(settings) as other, InstanceLock(store, "run") as lock:
        await lock.check()
        await terminate_others(postgres_database_of_its_own)
        await lock.check()
        with pytest.raises(AlreadyRunning):
            async with InstanceLock(other, "once"):
                pass


@pytest.mark.postgres
async def test_a_lock_that_someone_else_took_meanwhile_is_lost(postgres_database_of_its_own: str) -> None:
    settings = settings_for_database(postgres_database_of_its_own)
    async with Store(settings) as store, Store(settings) as other, InstanceLock(store, "run") as lock:
        await terminate_others(postgres_database_of_its_own)
        async with InstanceLock(other, "once"):
            with pytest.raises(AlreadyRunning, match="watcher once"):
                await lock.check()
        await lock.check()


@pytest.mark.postgres
async def test_checking_goes_on_while_the_database_is_away(postgres_database_of_its_own: str) -> None:
    name = postgres_database_of_its_own
    async with Store(settings_for_database(name)) as store, InstanceLock(store, "run") as lock:
        await allow(name, connections=False)
        async with Store(settings_for_database("postgres")) as server, server.read() as session:
            await session.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name}
            )
        for _ in range(3):
            with pytest.raises(Ours, match="could not be asked for"):
                await lock.check()
        await allow(name, connections=True)
        await lock.check()
        async with Store(settings_for_database(name)) as other:
            with pytest.raises(AlreadyRunning):
                async with InstanceLock(other, "once"):
                    pass
