"""The way into the record: one engine, transactions with a deadline, failures in the program's own kinds."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Self

import structlog
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from watcher.errors import Ours, SettingsError
from watcher.notices import Subscription
from watcher.points import reach
from watcher.settings import DatabaseSettings
from watcher.store.connections import open_anew, postgres_engine, sqlite_engine
from watcher.store.sqlite_files import create_private, refuse_interrupted_restore

_log = structlog.get_logger(__name__)
_CLEANING_UP_S = 5.0
_UPGRADE_DEADLINE = timedelta(hours=1)
_WRITER_KEY = 0x77726974  # "writ"; the instance lock has another key
_NO_THREAD = "can't start new thread"
"""What Python says at the limit of threads: a connection of SQLite has one of its own."""
_ADVICE = "look at the database and its disk; the program goes on by itself when it answers again"


Session = AsyncSession
"""A transaction, as the other rooms of the program name it."""


class RecordUnavailable(Ours):
    """The database does not answer, or answers with a fault of its own."""


class CommitUnknown(RecordUnavailable):
    """The commit was sent and its answer is missing: look into the record before doing anything again."""


class Conflict(Exception):
    """A constraint refused the change: someone else has done it, or it must not be done."""


class Store:
    """Opens transactions. `read()` never blocks a writer; `write()` is the one writer of this record.

    `subscription` says who is told of the changes; nobody without one. `upgrading` is for changes of the schema: they
    may take long, and tables are taken apart and put together again.
    Raises SettingsError for a database that nothing would remain of.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        subscription: Subscription | None = None,
        read_only: bool = False,
        upgrading: bool = False,
    ) -> None:
        self.url: URL = make_url(settings.url.get_secret_value())
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite and self.url.database in (None, "", ":memory:"):
            raise SettingsError("database.url names no file: a record in memory forgets what was paid for")
        self.read_only = read_only
        self._settings = settings
        self._info = {"subscription": subscription}
        self._deadline = (max(settings.timeout, _UPGRADE_DEADLINE) if upgrading else settings.timeout).total_seconds()
        self._writer = asyncio.Lock()
        self.engine: AsyncEngine = (
            sqlite_engine(self.url, self._deadline, read_only=read_only, foreign_keys=not upgrading)
            if self.is_sqlite
            else postgres_engine(self.url, self._deadline)
        )

    @property
    def sqlite_file(self) -> Path | None:
        """The database file; None for PostgreSQL."""
        return Path(self.url.database) if self.is_sqlite and self.url.database else None

    @property
    def label(self) -> str:
        """How the record is named to people, without a password."""
        return str(self.sqlite_file) if self.sqlite_file else self.url.render_as_string(hide_password=True)

    def for_upgrade(self) -> "Store":
        """Return another way into the same record, for changes of its schema."""
        return Store(self._settings, upgrading=True)

    async def __aenter__(self) -> Self:
        """Make sure that a SQLite file is there, for its owner only, and whole; the first transaction connects."""
        if self.sqlite_file is not None:
            await asyncio.to_thread(refuse_interrupted_restore, self.sqlite_file)
            if not self.read_only:
                await asyncio.to_thread(create_private, self.sqlite_file)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        await self.engine.dispose()

    async def ping(self) -> None:
        """Return when the record can be read. Raises RecordUnavailable when it cannot."""
        async with self.read() as session:
            await session.execute(text("SELECT id FROM instance"))  # SQLite answers `SELECT 1` without its file

    async def probe(self) -> None:
        """Return when the database takes a change: a full disk lets through what only reads. Raises RecordUnavailable.

        The change is taken back in the same transaction. An open connection still works when no other can be opened
        because this machine is out of file descriptors, so SQLite is asked for a new one first.
        """
        if self.sqlite_file is not None:
            try:
                async with asyncio.timeout(self._deadline):
                    await asyncio.to_thread(open_anew, self.sqlite_file)
            except Exception as error:
                if not (isinstance(error, sqlite3.Error) or is_trouble(error)):
                    raise
                raise RecordUnavailable(f"the database {self.label} failed: {error}", action=_ADVICE) from error
        async with self.write() as session:
            await session.execute(text("UPDATE instance SET scan_no = scan_no + 1"))
            await session.execute(text("UPDATE instance SET scan_no = scan_no - 1"))

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Open a snapshot of the record. Raises RecordUnavailable when the database does not answer in time."""
        with _as_ours(self.label):
            async with _deadline(self._deadline), AsyncSession(self.engine, expire_on_commit=False) as session:
                if not self.is_sqlite:
                    snapshot = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
                    await session.connection(execution_options=snapshot)
                yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction that is committed at the end of the block, and rolled back when the block raises.

        There is one at a time for the whole record, whichever process it is in. Raises RecordUnavailable when the
        database does not answer in time, CommitUnknown when only the answer to the commit is missing, Conflict when a
        constraint refuses.
        """
        if self.read_only:
            raise RuntimeError(f"the record {self.label} was opened for reading only")
        with _as_ours(self.label):
            async with asyncio.timeout(self._deadline):
                await self._writer.acquire()
        committing = committed = False
        try:
            with _as_ours(self.label):
                try:
                    async with (
                        _deadline(self._deadline),
                        AsyncSession(self.engine, expire_on_commit=False, info=self._info) as session,
                    ):
                        await self._begin_writing(session)
                        yield session
                        await session.flush()
                        reach("store.committing")
                        committing = True
                        await session.commit()
                        committed = True
                        reach("store.committed")
                        _say(session)
                except IntegrityError as error:
                    raise Conflict(str(error.orig)) from error
                except Exception as error:
                    if committed:  # what fails now is the cleaning up: the change stands, and says so
                        _log.warning("record_connection_not_closed", reason=str(error))
                    elif committing and self._outcome_unknown(error):
                        doubt = f"the database {self.label} did not answer a commit"
                        raise CommitUnknown(doubt, action=_ADVICE) from error
                    else:
                        raise
        finally:
            self._writer.release()

    async def _begin_writing(self, session: AsyncSession) -> None:
        """Begin, once no other process writes: checks and the changes that rest on them must not interleave."""
        await session.connection(execution_options={"immediate": True})
        if not self.is_sqlite:
            # The time-out frees the lock of a program that hangs, or whose machine is gone. The other setting makes a
            # commit wait for the disk whatever the database is set to; what waits for a standby too is kept.
            patience = str(int(1000 * (self._deadline + 2 * _CLEANING_UP_S)))
            await session.execute(
                text(
                    "SELECT set_config('idle_in_transaction_session_timeout', :patience, true),"
                    " set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit')"
                    " IN ('off', 'local') THEN 'on' ELSE current_setting('synchronous_commit') END, true),"
                    " pg_advisory_xact_lock(:key)"
                ),
                {"patience": patience, "key": _WRITER_KEY},
            )

    def _outcome_unknown(self, error: Exception) -> bool:
        # SQLite answers a commit that fails, and the transaction is then rolled back; only silence leaves a doubt.
        return isinstance(error, TimeoutError) or not self.is_sqlite


def _say(session: AsyncSession) -> None:
    for level, name, values in session.info.get("events", ()):
        _log.log(getattr(logging, level.upper()), name, **values)


@asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    """Raise TimeoutError after so long, and again when cleaning up does not end either, as with a dead network."""
    async with asyncio.timeout(seconds + _CLEANING_UP_S), asyncio.timeout(seconds):
        yield


class _as_ours:  # noqa: N801 - reads as a statement
    """Turn what the database layer raises into RecordUnavailable; faults of the program stay what they are."""

    def __init__(self, label: str) -> None:
        self._label = label

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Translate."""
        if error is None or not is_trouble(error):
            return
        if isinstance(error, PoolTimeout | TimeoutError):
            raise RecordUnavailable(f"the database {self._label} did not answer in time", action=_ADVICE) from error
        said = str(error.orig if isinstance(error, DBAPIError) else error).splitlines()
        detail = said[0][:300] if said else type(error).__name__
        raise RecordUnavailable(f"the database {self._label} failed: {detail}", action=_ADVICE) from error


def is_trouble(error: BaseException) -> bool:
    """Tell trouble with the database from a fault of the program, as is a value that would be refused forever."""
    if isinstance(error, PoolTimeout | OSError | PendingRollbackError):  # TimeoutError is an OSError
        return True
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return True
    if not isinstance(error, DBAPIError) or isinstance(error, IntegrityError | DataError):
        return False
    refused_by_driver = isinstance(error.orig.__cause__, ValueError | TypeError) if error.orig else False
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    return error.connection_invalidated or not (refused_by_driver or sqlstate.startswith("22"))
