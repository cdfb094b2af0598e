"""The schema: made, compared with the models, brought up to date, and left alone when it is newer."""
# ruff: noqa: ASYNC240 - nothing else goes on in these tests

import shutil
import sqlite3
import stat
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from blockbuster import BlockBuster
from sqlalchemy import Connection, inspect, select, text

from tests.support.clock import START
from tests.support.record import World, settings_for_database, settings_for_file
from tests.support.schema import shape
from watcher.errors import Ours, WatcherError
from watcher.settings import DatabaseSettings
from watcher.store import migrate
from watcher.store.engine import Store
from watcher.store.instance import instance
from watcher.store.migrate import HEAD, NewerRecord, revision, upgrade
from watcher.store.schema import Base, Upload

pytest_plugins = ("tests.support.store",)
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _alembic_reads_files(blockbuster: BlockBuster) -> None:
    """An upgrade is rare, and nothing else goes on meanwhile."""
    blockbuster.deactivate()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def nothing(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseSettings:
    """A database with nothing in it."""
    if request.param == "sqlite":
        return settings_for_file(tmp_path / "empty.db")
    name: str = request.getfixturevalue("empty_postgres_database")
    return settings_for_database(name)


@pytest.fixture
def empty_postgres_database(postgres_server: None) -> Iterator[str]:
    from tests.support.store import database_like

    with database_like(None) as name:
        yield name


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, sqlite_settings: DatabaseSettings) -> DatabaseSettings:
    """A record whose schema may be changed."""
    if request.param == "sqlite":
        return sqlite_settings
    return settings_for_database(request.getfixturevalue("postgres_database_of_its_own"))


# The revisions and the models


async def test_the_migrations_make_what_the_models_say(nothing: DatabaseSettings) -> None:
    async with Store(nothing) as store, store.write() as session:
        connection = await session.connection()
        await connection.run_sync(migrate._upgrade)

        def differences(sync: Connection) -> list[Any]:
            context = MigrationContext.configure(sync, opts={"compare_type": True, "compare_server_default": True})
            return list(compare_metadata(context, Base.metadata))

        assert await connection.run_sync(differences) == []
        migrated = await connection.run_sync(shape)
        await session.rollback()
    async with Store(nothing) as store:
        await upgrade(store, name="n", now=START)
        async with store.read() as session:
            made = await (await session.connection()).run_sync(shape)
    assert migrated == made
    assert ("uq_batch_item_live", ["claim_id"], True, "live") in made["batch_item"]["indexes"]
    assert [name for name, _ in made["batch"]["checks"]] == ["ck_batch_state"]


def test_this_program_writes_the_newest_revision() -> None:
    scripts = ScriptDirectory.from_config(migrate._config())
    assert scripts.get_heads() == [HEAD]
    assert [script.revision for script in scripts.walk_revisions()][-1] == "0001"


async def test_a_new_record_gets_its_name_once(nothing: DatabaseSettings) -> None:
    async with Store(nothing) as store:
        assert await revision(store) is None
        done = await upgrade(store, name="first", now=START)
        assert (done.before, done.after, done.backup) == (None, HEAD, None)
        assert await revision(store) == HEAD
        again = await upgrade(store, name="second", now=START)
        assert (again.before, again.backup) == (HEAD, None)
        async with store.read() as session:
            assert (await instance(session)).name == "first"


async def test_two_programs_that_make_the_same_record_agree(
    nothing: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Store(nothing) as one, Store(nothing) as other:
        look = migrate.revision

        async def late(store: Store) -> str | None:
            found = await look(store)
            monkeypatch.undo()
            await upgrade(other, name="other", now=START)  # between the look and the making
            return found

        monkeypatch.setattr(migrate, "revision", late)
        await upgrade(one, name="one", now=START)
        async with one.read() as session:
            assert (await instance(session)).name == "other"


async def test_a_newer_record_is_left_as_it_is(database: DatabaseSettings, tmp_path: Path) -> None:
    async with Store(database) as store, store.write() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = (tmp_path / "watcher.db").read_bytes() if store.is_sqlite else b""
    async with Store(database) as store:
        with pytest.raises(NewerRecord, match="9999"):
            await upgrade(store, name="n", now=START)
        assert await revision(store) == "9999"
    if store.is_sqlite:
        assert (tmp_path / "watcher.db").read_bytes() == before
        assert sorted(one.name for one in tmp_path.iterdir() if one.suffix != ".lock") == ["watcher.db"]


# An older record. There is one revision so far, so the next one is made up here.

NEXT = '''
"""Made up."""
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("addition", sa.Column("id", sa.Integer(), primary_key=True))
    with op.batch_alter_table("target", recreate="auto") as batch:
        batch.alter_column("name", new_column_name="title")
        batch.add_column(sa.Column("colour", sa.Text()))
    FAIL
'''


@pytest.fixture
def newer_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that knows one revision more; returns the file of that."""
    folder = tmp_path / "migrations"
    shutil.copytree(REPOSITORY / "migrations", folder, ignore=shutil.ignore_patterns("__pycache__"))
    added = folder / "versions" / "0002_made_up.py"
    added.write_text(NEXT.replace("FAIL", ""))
    monkeypatch.setattr(migrate, "migrations_directory", lambda: folder)
    monkeypatch.setattr(migrate, "HEAD", "0002")
    return added


async def filled(settings: DatabaseSettings) -> None:
    async with Store(settings) as store:
        world = await World.begin(store)
        await world.upload(await world.target(), ["C", "N"])


async def test_an_older_record_is_brought_up_to_date(database: DatabaseSettings, newer_program: Path) -> None:
    await filled(database)
    async with Store(database) as store:
        done = await upgrade(store, name="n", now=START)
        assert (done.before, done.after) == ("0001", "0002")
        assert await revision(store) == "0002"
        async with store.read() as session:
            assert (await session.execute(text("SELECT title, colour FROM target"))).all() == [("A", None)]
            # Rows that point at a table that was made anew still point at it.
            assert len((await session.scalars(select(Upload))).all()) == 1
        if store.is_sqlite:
            assert done.backup is not None
            assert done.backup.name == "watcher.db.before-0002-20260301T120000"
            assert stat.S_IMODE(done.backup.stat().st_mode) == 0o600
            with sqlite3.connect(done.backup) as copy:
                assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                assert copy.execute("SELECT name FROM target").fetchall() == [("A",)]
                assert copy.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
            copy.close()
        else:
            assert done.backup is None


async def test_a_failing_upgrade_leaves_the_record_as_it_was(database: DatabaseSettings, newer_program: Path) -> None:
    await filled(database)
    newer_program.write_text(NEXT.replace("FAIL", "raise RuntimeError('in the middle')"))
    async with Store(database) as store:
        with pytest.raises(RuntimeError, match="in the middle"):
            await upgrade(store, name="n", now=START)
        assert await revision(store) == "0001"
        async with store.read() as session:
            assert not await (await session.connection()).run_sync(lambda sync: inspect(sync).has_table("addition"))
            assert (await session.execute(text("SELECT name FROM target"))).all() == [("A",)]
        assert (await World(store).broken()) == []


async def test_an_upgrade_that_would_orphan_rows_is_undone(
    sqlite_settings: DatabaseSettings, newer_program: Path
) -> None:
    await filled(sqlite_settings)
    newer_program.write_text(NEXT.replace("FAIL", "op.execute('DELETE FROM target')"))
    async with Store(sqlite_settings) as store:
        with pytest.raises(WatcherError, match="point at nothing"):
            await upgrade(store, name="n", now=START)
        assert await revision(store) == "0001"


async def test_no_upgrade_without_its_backup(sqlite_settings: DatabaseSettings, newer_program: Path) -> None:
    await filled(sqlite_settings)
    async with Store(sqlite_settings) as store:
        assert store.sqlite_file is not None
        with store.sqlite_file.open("r+b") as file:
            file.seek(8 * 4096)
            file.write(b"\xff" * 4096)
        with pytest.raises(Ours, match="could not be written"):
            await upgrade(store, name="n", now=START)
        assert await revision(store) == "0001"
        assert not [path for path in store.sqlite_file.parent.iterdir() if "before" in path.name]


async def test_a_start_within_the_second_of_one_that_was_killed_makes_a_copy_of_its_own(
    sqlite_settings: DatabaseSettings, newer_program: Path, tmp_path: Path
) -> None:
    await filled(sqlite_settings)
    name = "watcher.db.before-0002-20260301T120000"
    taken = tmp_path / name
    taken.write_text("precious")
    async with Store(sqlite_settings) as store:
        done = await upgrade(store, name="n", now=START)
    assert done.backup == tmp_path / f"{name}.2"
    assert taken.read_text() == "precious"


async def test_an_upgrade_that_does_not_come_to_its_end_leaves_one_backup(
    sqlite_settings: DatabaseSettings, newer_program: Path
) -> None:
    await filled(sqlite_settings)
    newer_program.write_text(NEXT.replace("FAIL", "raise RuntimeError('in the middle')"))

    async def fail(minute: int) -> set[str]:
        async with Store(sqlite_settings) as store:
            assert store.sqlite_file is not None
            with pytest.raises(RuntimeError, match="in the middle"):
                await upgrade(store, name="n", now=START + timedelta(minutes=minute))
            return {path.name for path in store.sqlite_file.parent.glob("*.before-*")}

    await fail(0)
    assert await fail(1) == {"watcher.db.before-0002-20260301T120100"}
    async with Store(sqlite_settings) as store, store.write() as session:
        await session.execute(text("UPDATE target SET name = 'B'"))
    assert len(await fail(2)) == 2, "another content is another backup"


# Packaging


def test_the_wheel_carries_the_migrations() -> None:
    installed = {str(file) for file in distribution("fragalysis-watcher").files or ()}
    if "watcher/__init__.py" not in installed:
        pytest.skip("installed in editable mode, so that no wheel was built")
    expected = {
        f"watcher/migrations/{file.relative_to(REPOSITORY / 'migrations')}"
        for file in (REPOSITORY / "migrations").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert expected
    assert expected <= installed


def test_the_migrations_are_found_in_a_checkout() -> None:
    assert (migrate.migrations_directory() / "env.py").is_file()
