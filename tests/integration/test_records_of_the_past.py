"""A record of every schema there ever was, with data of a real run in it, is brought up to date and loses nothing."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from blockbuster import BlockBuster
from sqlalchemy import Connection, select

from tests.support.clock import START
from tests.support.record import settings_for_database, settings_for_file
from tests.support.schema import Rows, content, fill, shape
from tests.tools.make_record import RECORDS
from watcher import __version__
from watcher.settings import DatabaseSettings
from watcher.store import invariants, migrate
from watcher.store.engine import Store
from watcher.store.schema import Base, Instance

pytest_plugins = ("tests.support.store",)
REVISIONS = sorted(script.revision for script in ScriptDirectory.from_config(migrate._config()).walk_revisions())
AGAIN = "the tables have changed: make the record anew with `python -m tests.tools.make_record`"
SIGNED = "program_version"
"""The one column of `instance` that an upgrade is to change."""


@pytest.fixture(autouse=True)
def _alembic_reads_files(blockbuster: BlockBuster) -> None:
    blockbuster.deactivate()


def lay_out(revision: str, file: Path) -> Path:
    """Make the SQLite file of a record of the past."""
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript((RECORDS / f"{revision}.sql").read_text(encoding="utf-8"))
    return file


def stored(file: Path) -> dict[str, Rows]:
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        found = content(connection)
    engine.dispose()
    return found


@pytest.fixture
def postgres_name(postgres_server: None) -> Iterator[str]:
    from tests.support.store import database_like

    with database_like(None) as name:
        yield name


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseSettings:
    """A database with nothing in it."""
    if request.param == "sqlite":
        return settings_for_file(tmp_path / "watcher.db")
    return settings_for_database(request.getfixturevalue("postgres_name"))


async def put_back(revision: str, settings: DatabaseSettings, rows: dict[str, Rows], folder: Path) -> None:
    """Let the database be the record that it was at a revision."""
    async with Store(settings, upgrading=True) as store:
        if store.is_sqlite:
            lay_out(revision, folder / "watcher.db")
            return

        def make(connection: Connection) -> None:
            command.upgrade(migrate._config(connection), revision)
            fill(connection, rows)

        async with store.write() as session:
            await (await session.connection()).run_sync(make)


def test_there_is_a_record_of_every_revision() -> None:
    assert [file.stem for file in sorted(RECORDS.glob("*.sql"))] == REVISIONS
    assert all(file.stat().st_size < 100_000 for file in RECORDS.glob("*.sql"))


def test_the_newest_record_holds_something_of_everything(tmp_path: Path) -> None:
    file = lay_out(migrate.HEAD, tmp_path / "watcher.db")
    rows = stored(file)
    assert sorted(name for name in Base.metadata.tables if not rows.get(name)) == [], AGAIN
    uploads, conditions = rows["upload"], rows["condition"]
    assert {"stored", "pruned"} <= {one["archive_state"] for one in uploads}
    assert {"collected", "unconfirmed"} <= {one["state"] for one in rows["batch"]}
    assert {None} < {one["reason"] for one in rows["alias"]}
    assert conditions
    engine = sa.create_engine(f"sqlite:///{file}")
    fresh = sa.create_engine("sqlite://")
    with engine.connect() as old, fresh.connect() as new:
        migrate._create(new)
        assert shape(old) == shape(new), AGAIN
    engine.dispose()
    fresh.dispose()


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_record_of_the_past_is_brought_up_to_date(
    revision: str, empty: DatabaseSettings, tmp_path: Path
) -> None:
    before = stored(lay_out(revision, tmp_path / "past.db"))
    await put_back(revision, empty, before, tmp_path)
    async with Store(empty) as store:
        assert await migrate.revision(store) == revision
        done = await migrate.upgrade(store, name="another", now=START)
        assert (done.before, done.after) == (revision, migrate.HEAD)
        assert await migrate.written_by(store) == __version__
        async with store.read() as session:
            after = await (await session.connection()).run_sync(content)
            assert await invariants.integrity(session, sqlite=store.is_sqlite) == []
            assert await invariants.broken(session) == []
            assert (await session.scalars(select(Instance))).one().name == before["instance"][0]["name"]
    for table, rows in before.items():
        kept = [name for name in rows[0] if name in after[table][0] and (table, name) != ("instance", SIGNED)]
        assert [{name: row[name] for name in kept} for row in after[table]] == [
            {name: row[name] for name in kept} for row in rows
        ], table
