"""Fixtures: an empty record of its own for each test, on SQLite and on PostgreSQL.

A test module asks for them with `pytest_plugins = ("tests.support.store",)`; helpers are in `tests.support.record`.
Making a record is done once a session for each database; a test gets a copy.
"""

import asyncio
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from tests.support.clock import START
from tests.support.record import SERVER, World, settings_for_database, settings_for_file
from watcher.settings import DatabaseSettings
from watcher.store.engine import Store
from watcher.store.migrate import upgrade
from watcher.store.schema import Base

INSTANCE = "a-record-of-tests"
_CONNECTING = ("_connect", "_parse_connect_arguments", "_parse_connect_dsn_and_args", "_dot_postgresql_path")


def on_server(*statements: str, database: str = "postgres") -> None:
    """Run statements on the PostgreSQL server; from a thread of its own, since a loop may be running here."""
    import asyncpg

    async def run() -> None:
        connection = await asyncpg.connect(f"postgresql://postgres@{SERVER}/{database}", timeout=5)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, run()).result()


@contextmanager
def database_like(template: str | None) -> Iterator[str]:
    """A database with a random name, dropped at the end."""
    name = f"watcher_test_{uuid.uuid4().hex}"
    on_server(f"CREATE DATABASE {name} TEMPLATE {template or 'template0'}")
    on_server(f"ALTER DATABASE {name} SET synchronous_commit = off")  # quicker, but for what the program writes
    try:
        yield name
    finally:
        on_server(f"DROP DATABASE {name} WITH (FORCE)")


def _make(settings: DatabaseSettings) -> None:
    async def run() -> None:
        async with Store(settings) as store:
            await upgrade(store, name=INSTANCE, now=START)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, run()).result()


@pytest.fixture(autouse=True)
def _connecting_may_look_around(blockbuster: BlockBuster) -> None:
    """The driver looks for a password file and certificates, once for each connection."""
    for function in ("os.stat", "io.BufferedReader.read", "io.TextIOWrapper.read", "os.path.abspath"):
        if function in blockbuster.functions:
            blockbuster.functions[function].can_block_in("asyncpg/connect_utils.py", set(_CONNECTING))


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite record as it begins."""
    file = tmp_path_factory.mktemp("template") / "watcher.db"
    _make(settings_for_file(file))
    return file


@pytest.fixture(scope="session")
def postgres_server() -> None:
    """Skips where there is no PostgreSQL, or no driver for it; fails there if NEED_POSTGRES is 1."""
    without = pytest.fail if os.environ.get("NEED_POSTGRES") == "1" else pytest.skip
    try:
        on_server("SELECT 1")
    except ImportError:
        without("asyncpg is not installed")
    except (OSError, TimeoutError) as error:
        without(f"no PostgreSQL server on {SERVER}: {error}")


@pytest.fixture(scope="session")
def postgres_template(postgres_server: None) -> Iterator[str]:
    """A PostgreSQL record as it begins."""
    with database_like(None) as name:
        _make(settings_for_database(name))
        yield name


@pytest.fixture(scope="session")
def shared_postgres_database(postgres_template: str) -> Iterator[str]:
    """A PostgreSQL record that tests take turns with, since emptying one is quicker than making one."""
    with database_like(postgres_template) as name:
        yield name


@pytest.fixture
def sqlite_settings(tmp_path: Path, sqlite_template: Path) -> DatabaseSettings:
    """An empty record in a SQLite file."""
    file = tmp_path / "watcher.db"
    shutil.copyfile(sqlite_template, file)
    file.chmod(0o600)
    return settings_for_file(file)


@pytest.fixture
def postgres_settings(shared_postgres_database: str) -> DatabaseSettings:
    """An empty record in a PostgreSQL database."""
    emptied = (table for table in reversed(Base.metadata.sorted_tables) if table.name != "instance")
    statements = [f'DELETE FROM "{table.name}"' for table in emptied]
    forget = "UPDATE instance SET scan_no = 0, scan_attempts = 0, last_scan_at = NULL, scan_due_at = NULL"
    on_server("; ".join([*statements, forget]), database=shared_postgres_database)
    return settings_for_database(shared_postgres_database)


@pytest.fixture
def postgres_database_of_its_own(postgres_template: str) -> Iterator[str]:
    """The name of a PostgreSQL database with an empty record, for a test that would spoil it for others."""
    with database_like(postgres_template) as name:
        yield name


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest) -> DatabaseSettings:
    """An empty record, on each database in turn."""
    settings: DatabaseSettings = request.getfixturevalue(f"{request.param}_settings")
    return settings


@pytest.fixture
async def store(database: DatabaseSettings) -> AsyncIterator[Store]:
    """The way into an empty record, on each database in turn."""
    async with Store(database) as opened:
        yield opened


@pytest.fixture
async def world(store: Store) -> World:
    """An empty record with a profile, and words to fill it, on each database in turn."""
    return await World.begin(store)
