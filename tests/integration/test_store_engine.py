"""The way into the record: transactions, deadlines, and what goes wrong told apart."""
# ruff: noqa: PT012 - a transaction raises at its end, whatever it holds

import asyncio
import stat
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select, text
from sqlalchemy.exc import NoResultFound, StatementError
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from tests.support.clock import START
from tests.support.network import RawServer, raw_server
from tests.support.record import settings_for_database, settings_for_file
from watcher.errors import Ours, SettingsError
from watcher.settings import DatabaseSettings
from watcher.store.conditions import find, open_condition
from watcher.store.engine import CommitUnknown, Conflict, RecordUnavailable, Store
from watcher.store.instance import instance
from watcher.store.schema import ForeignBatch, Instance
from watcher.store.transitions import say_after_commit

pytest_plugins = ("tests.support.store",)
SOON = timedelta(milliseconds=300)


async def pragma(session: AsyncSession, name: str) -> Any:
    return await session.scalar(text(f"PRAGMA {name}"))


def foreign(remote_id: str) -> ForeignBatch:
    return ForeignBatch(remote_id=remote_id, seen_at=START)


async def stored(store: Store) -> set[str]:
    async with store.read() as session:
        return set(await session.scalars(select(ForeignBatch.remote_id)))


async def put(store: Store, remote_id: str) -> None:
    async with store.write() as session:
        session.add(foreign(remote_id))


# SQLite as it must be set


async def test_sqlite_loses_nothing_that_it_committed(sqlite_settings: DatabaseSettings) -> None:
    async with Store(sqlite_settings) as store:
        for transaction in (store.read(), store.write()):
            async with transaction as session:
                assert await pragma(session, "journal_mode") == "wal"
                assert await pragma(session, "synchronous") == 2  # FULL
                assert await pragma(session, "foreign_keys") == 1
                assert await pragma(session, "busy_timeout") == 20_000


async def test_sqlite_files_are_for_their_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "watcher.db"
    async with Store(settings_for_file(file)) as store:
        async with store.write() as session:
            await session.execute(text("CREATE TABLE t (x)"))
        async with store.read() as session:
            await session.execute(text("SELECT * FROM t"))
            modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in file.parent.iterdir()}
    assert modes == {"watcher.db": 0o600, "watcher.db-wal": 0o600, "watcher.db-shm": 0o600}


async def test_a_file_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Ours, match="cannot be opened"):
        async with Store(settings_for_file(tmp_path / "file" / "watcher.db")):
            pass


@pytest.mark.parametrize("url", ["sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:"])
def test_a_record_in_memory_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"database\.url"):
        Store(DatabaseSettings(url=SecretStr(url)))


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    file = tmp_path / "watcher.db"
    file.write_text("this is no database at all, but long enough to be taken for one" * 20)
    async with Store(settings_for_file(file)) as store:
        with pytest.raises(RecordUnavailable, match="not a database"):
            await store.ping()


async def test_a_reader_neither_makes_a_file_nor_writes(sqlite_settings: DatabaseSettings, tmp_path: Path) -> None:
    absent = tmp_path / "absent" / "watcher.db"
    async with Store(settings_for_file(absent), read_only=True) as store:
        with pytest.raises(RecordUnavailable):
            await store.ping()
    assert not absent.parent.exists()
    async with Store(sqlite_settings, read_only=True) as store:
        async with store.read() as session:
            assert (await instance(session)).scan_no == 0
        with pytest.raises(RecordUnavailable, match="readonly"):
            async with store.read() as session:
                await session.execute(text("UPDATE instance SET scan_no = 1"))


async def test_a_reader_opens_files_of_any_name(sqlite_settings: DatabaseSettings, tmp_path: Path) -> None:
    odd = (tmp_path / "watcher.db").rename(tmp_path / "a%20b #1.db")
    url = f"sqlite+aiosqlite:///{str(odd).replace('%', '%25')}"
    reader = Store(DatabaseSettings(url=SecretStr(url)), read_only=True)
    async with reader, reader.read() as session:
        assert (await instance(session)).name


async def test_a_reader_cannot_write(database: DatabaseSettings) -> None:
    async with Store(database, read_only=True) as store:
        with pytest.raises(RuntimeError, match="reading only"):
            await put(store, "r1")
        async with store.read() as session:
            assert (await instance(session)).scan_no == 0


async def test_a_read_writes_nothing(store: Store) -> None:
    try:
        async with store.read() as session:
            session.add(foreign("r1"))
            await session.flush()
    except RecordUnavailable:
        pass  # PostgreSQL refuses it
    assert await stored(store) == set()


# One writer at a time, whichever process it is in


async def test_a_writer_begins_by_locking(database: DatabaseSettings) -> None:
    """Two programs that read before they write must not both act on what they read."""
    order: list[str] = []

    async def count_up(store: Store, name: str) -> None:
        async with store.write() as session:
            own = await instance(session)
            order.append(f"{name} reads")
            await asyncio.sleep(0)
            own.scan_no += 1
            await session.flush()
            order.append(f"{name} wrote")

    async with Store(database) as one, Store(database) as other:
        await asyncio.gather(*(count_up(store, f"{name}{n}") for n in range(5) for store, name in
                               ((one, "daemon"), (other, "command"))))  # fmt: skip
        async with one.read() as session:
            assert (await instance(session)).scan_no == 10
    assert [first.split()[0] == second.split()[0] for first, second in zip(order[::2], order[1::2], strict=True)] == (
        [True] * 10
    )


async def test_a_reader_is_not_kept_waiting_by_a_writer(database: DatabaseSettings) -> None:
    async with Store(database) as one, Store(database) as other, one.write() as session:
        session.add(foreign("r1"))
        await session.flush()
        async with other.read() as reading:
            assert await reading.scalar(select(ForeignBatch)) is None


async def test_a_read_sees_one_moment(database: DatabaseSettings) -> None:
    async with Store(database) as one, Store(database) as other:
        async with one.read() as session:
            assert (await session.scalars(select(ForeignBatch))).all() == []
            await put(other, "r1")
            assert (await session.scalars(select(ForeignBatch))).all() == []
        assert await stored(one) == {"r1"}


async def test_waiting_for_another_writer_ends(database: DatabaseSettings) -> None:
    impatient = database.model_copy(update={"timeout": SOON})
    async with Store(database) as one, Store(impatient) as other:
        async with one.write():
            with pytest.raises(RecordUnavailable):
                await put(other, "r1")
        await put(other, "r2")
        assert await stored(one) == {"r2"}


async def test_waiting_within_the_program_ends_too(database: DatabaseSettings) -> None:
    async with Store(database.model_copy(update={"timeout": SOON})) as store:
        await store._writer.acquire()
        with pytest.raises(RecordUnavailable, match="in time"):
            await put(store, "r1")
        store._writer.release()
        await put(store, "r2")
        assert await stored(store) == {"r2"}


# Kinds of failure


async def test_what_a_constraint_refuses_is_a_conflict(store: Store) -> None:
    await put(store, "r1")
    with pytest.raises(Conflict):
        await put(store, "r1")
    with pytest.raises(Conflict):
        async with store.write() as session:
            session.add(foreign("r2"))
            await session.flush()
            await session.execute(text("UPDATE upload SET target_id = 77 WHERE id = -1"))
            session.add(Instance(id=2, name="second", created_at=START, program_version="1"))
    assert await stored(store) == {"r1"}


async def test_a_missing_parent_is_a_conflict(store: Store) -> None:
    with pytest.raises(Conflict):
        async with store.write() as session:
            await session.execute(
                text("INSERT INTO batch_item (batch_id, position, claim_id, live) VALUES (77, 0, 77, true)")
            )


async def test_a_fault_of_the_program_is_not_blamed_on_the_database(store: Store) -> None:
    async with store.write() as session:
        await open_condition(session, "s", "machine", reason="r", action="a", now=START)
    with pytest.raises(NoResultFound):
        async with store.read() as session:
            (await session.scalars(select(ForeignBatch))).one()
    with pytest.raises(StatementError, match="without a time zone"):
        async with store.write() as session:
            session.add(ForeignBatch(remote_id="r", seen_at=START.replace(tzinfo=None)))
    with pytest.raises(Exception, match=r".") as caught:
        async with store.write() as session:
            condition = await find(session, "s", "machine")
            assert condition is not None
            condition.attempts = 2**70
    assert not isinstance(caught.value, RecordUnavailable)
    await put(store, "r1")


async def test_what_the_block_raises_comes_out_and_nothing_is_written(store: Store) -> None:
    with pytest.raises(KeyError):
        async with store.write() as session:
            session.add(foreign("r1"))
            await session.flush()
            raise KeyError("of the caller")
    assert await stored(store) == set()


async def test_events_are_said_after_the_commit_and_only_then(store: Store) -> None:
    with capture_logs() as logs:
        async with store.write() as session:
            say_after_commit(session, "it_happened", level="warning", number=1)
            assert logs == []
        assert logs == [{"event": "it_happened", "log_level": "warning", "number": 1}]
        with pytest.raises(KeyError):
            async with store.write() as session:
                say_after_commit(session, "it_did_not")
                raise KeyError
        await put(store, "r1")
        with pytest.raises(Conflict):
            async with store.write() as session:
                say_after_commit(session, "it_did_not")
                session.add(foreign("r1"))
    assert len(logs) == 1


async def test_a_deadline_ends_a_transaction(database: DatabaseSettings) -> None:
    async with Store(database.model_copy(update={"timeout": SOON})) as store:
        with pytest.raises(RecordUnavailable, match="in time"):
            async with store.write() as session:
                session.add(foreign("r1"))
                await session.flush()
                await asyncio.Event().wait()
        with pytest.raises(RecordUnavailable, match="in time"):
            async with store.read() as session:
                await session.execute(select(ForeignBatch))
                await asyncio.Event().wait()
        assert await stored(store) == set()


async def test_a_disk_that_hangs_holds_no_probe_up(
    sqlite_settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    monkeypatch.setattr("watcher.store.engine.open_anew", lambda _: over.wait(60))
    async with Store(sqlite_settings.model_copy(update={"timeout": SOON})) as store:
        try:
            with pytest.raises(RecordUnavailable):
                await store.probe()
        finally:
            over.set()


async def test_want_of_threads_is_trouble_with_the_database(
    sqlite_settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each connection of SQLite has a thread: without one more the program goes on, and tries again."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with Store(sqlite_settings) as store:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            for use in (store.ping, store.probe):
                with pytest.raises(RecordUnavailable, match="can't start new thread"):
                    await use()
        await store.probe()


async def test_a_commit_without_an_answer_is_a_doubt(
    database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = AsyncSession.commit

    async def answer_is_lost(session: AsyncSession) -> None:
        await commit(session)
        await asyncio.Event().wait()

    async with Store(database.model_copy(update={"timeout": SOON})) as store:
        monkeypatch.setattr(AsyncSession, "commit", answer_is_lost)
        with capture_logs() as logs, pytest.raises(CommitUnknown):
            await put(store, "r1")
        monkeypatch.undo()
        assert logs == []
        await put(store, "r2")
        assert await stored(store) == {"r1", "r2"}


async def test_trouble_after_the_commit_does_not_undo_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    close = AsyncSession.close

    async def fail(session: AsyncSession) -> None:
        await close(session)
        raise ConnectionResetError

    monkeypatch.setattr(AsyncSession, "close", fail)
    with capture_logs() as logs:
        async with store.write() as session:
            session.add(foreign("r1"))
            say_after_commit(session, "it_happened")
    monkeypatch.undo()
    assert [log["event"] for log in logs] == ["it_happened", "record_connection_not_closed"]
    assert await stored(store) == {"r1"}


async def test_a_commit_that_sqlite_refuses_is_no_doubt(
    sqlite_settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(session: AsyncSession) -> None:
        await session.execute(text("SELECT * FROM nowhere"))

    async with Store(sqlite_settings) as store:
        monkeypatch.setattr(AsyncSession, "commit", fail)
        with pytest.raises(RecordUnavailable) as caught:
            await put(store, "r1")
        assert not isinstance(caught.value, CommitUnknown)
        monkeypatch.undo()
        assert await stored(store) == set()


# Cancelling


@pytest.mark.parametrize("moment", range(12))
async def test_cancelling_leaves_no_lock_behind(database: DatabaseSettings, moment: int) -> None:
    """Wherever a transaction is cancelled, the next one works, also in another program."""
    async with Store(database) as store, Store(database) as other:

        async def work() -> None:
            async with store.write() as session:
                session.add(foreign("cancelled"))
                await session.flush()
                await session.execute(select(ForeignBatch))
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        for _ in range(moment * 3):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await put(other, "r1")
        await put(store, "r2")
        assert await stored(store) == {"r1", "r2"}


async def test_cancelling_a_wait_for_the_lock_leaves_no_lock_behind(database: DatabaseSettings) -> None:
    async with Store(database) as one, Store(database) as other:
        async with one.write():
            waiting = asyncio.create_task(put(other, "cancelled"))
            for _ in range(100):
                await asyncio.sleep(0)
            waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await put(one, "r1")
        await put(other, "r2")
        assert await stored(one) == {"r1", "r2"}


async def test_cancelling_a_read_keeps_the_pool_whole(database: DatabaseSettings) -> None:
    async with Store(database) as store:

        async def read() -> None:
            async with store.read() as session:
                await session.execute(select(ForeignBatch))
                await asyncio.Event().wait()

        for _ in range(20):
            task = asyncio.create_task(read())
            for _ in range(30):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await put(store, "r1")
        assert store.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


# PostgreSQL


@pytest.mark.postgres
async def test_a_terminated_connection_costs_one_transaction(postgres_settings: DatabaseSettings) -> None:
    async with Store(postgres_settings) as store, Store(postgres_settings) as other:
        with pytest.raises(RecordUnavailable):
            async with store.write() as session:
                session.add(foreign("r1"))
                await session.flush()
                pid = await session.scalar(text("SELECT pg_backend_pid()"))
                async with other.read() as killing:
                    await killing.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
                await session.execute(text("SELECT 1"))
        await put(store, "r2")
        assert await stored(store) == {"r2"}


@pytest.mark.postgres
async def test_a_connection_terminated_before_the_commit_is_a_doubt(postgres_settings: DatabaseSettings) -> None:
    async with Store(postgres_settings) as store, Store(postgres_settings) as other:
        with pytest.raises(CommitUnknown):
            async with store.write() as session:
                session.add(foreign("r1"))
                await session.flush()
                pid = await session.scalar(text("SELECT pg_backend_pid()"))
                async with other.read() as killing:
                    await killing.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        await put(store, "r2")
        assert await stored(store) == {"r2"}


@pytest.mark.postgres
async def test_idle_connections_that_died_are_replaced(postgres_settings: DatabaseSettings) -> None:
    async with Store(postgres_settings) as store, Store(postgres_settings) as other:
        await put(store, "r1")
        async with other.read() as session:
            await session.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                     " WHERE datname = current_database() AND pid <> pg_backend_pid()")
            )  # fmt: skip
        await put(store, "r2")
        assert await stored(store) == {"r1", "r2"}


@pytest.mark.postgres
@pytest.mark.parametrize(
    "url",
    ["postgresql+asyncpg://postgres@127.0.0.1:1/x", "postgresql+asyncpg://postgres@127.0.0.1:5432/does_not_exist"],
)
async def test_a_database_that_cannot_be_reached_is_unavailable(url: str, postgres_server: None) -> None:
    async with Store(DatabaseSettings(url=SecretStr(url))) as store:
        with pytest.raises(RecordUnavailable):
            await store.ping()
        with pytest.raises(RecordUnavailable):
            await put(store, "r1")


@pytest.mark.postgres
async def test_the_server_takes_the_lock_from_a_writer_that_stands_still(postgres_settings: DatabaseSettings) -> None:
    async with Store(postgres_settings.model_copy(update={"timeout": SOON})) as store, store.write() as session:
        allowed = await session.scalar(text("SHOW idle_in_transaction_session_timeout"))
    assert allowed == "10300ms"


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("database_says", "writes_with"),
    [("off", "on"), ("local", "on"), ("on", "on"), ("remote_write", "remote_write"), ("remote_apply", "remote_apply")],
)
async def test_postgresql_loses_nothing_that_it_committed(
    postgres_database_of_its_own: str, database_says: str, writes_with: str
) -> None:
    """Whatever the database is set to; what is stronger stays."""
    name = postgres_database_of_its_own
    async with Store(settings_for_database(name)) as store, store.write() as session:
        await session.execute(text(f"ALTER DATABASE {name} SET synchronous_commit = {database_says}"))
    async with Store(settings_for_database(name)) as store:
        for _ in range(2):  # on one connection
            async with store.write() as session:
                assert await session.scalar(text("SHOW synchronous_commit")) == writes_with


@pytest.mark.postgres
async def test_a_network_that_goes_silent_does_not_hang_the_program(postgres_settings: DatabaseSettings) -> None:
    flowing = asyncio.Event()
    flowing.set()

    async def relay(_: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", 5432)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                await flowing.wait()
                sink.write(data)

        try:
            await asyncio.gather(pump(reader, back), pump(there, writer))
        finally:
            back.close()

    async with raw_server(relay, scheme="postgresql+asyncpg") as server:
        url = postgres_settings.url.get_secret_value().replace(":5432", f":{server.port}")
        async with Store(DatabaseSettings(url=SecretStr(url), timeout=SOON)) as store:
            await put(store, "r1")
            flowing.clear()
            async with asyncio.timeout(30):
                for _ in range(2):
                    with pytest.raises(RecordUnavailable):
                        await store.ping()
                    with pytest.raises(RecordUnavailable):
                        await put(store, "r2")
            flowing.set()
            await put(store, "r3")
            assert await stored(store) >= {"r1", "r3"}
