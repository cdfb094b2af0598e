"""The way into the record: one engine, transactions with a deadline, failures in the program's own kinds."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import structlog
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from watcher.errors import Ours
from watcher.settings import DatabaseSettings

_log = structlog.get_logger(__name__)
_BUSY_TIMEOUT_S = 20.0
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
    """Opens transactions. `read()` never blocks a writer; `write()` is the one writer of this process."""

    def __init__(self, settings: DatabaseSettings, *, read_only: bool = False) -> None:
        self.url: URL = make_url(settings.url.get_secret_value())
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.read_only = read_only
        self._deadline = settings.timeout.total_seconds()
        self._writer = asyncio.Lock()
        self.engine: AsyncEngine = _sqlite_engine(self.url, read_only) if self.is_sqlite else _postgres_engine(self.url)

    @property
    def sqlite_file(self) -> Path | None:
        """The database file; None for PostgreSQL and for a database in memory."""
        name = self.url.database
        return Path(name) if self.is_sqlite and name and name != ":memory:" else None

    @property
    def label(self) -> str:
        """How the record is named to people, without a password."""
        return str(self.sqlite_file) if self.sqlite_file else self.url.render_as_string(hide_password=True)

    async def __aenter__(self) -> Self:
        """Return self; the first transaction connects."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        await self.engine.dispose()

    async def ping(self) -> None:
        """Return when the database answers. Raises RecordUnavailable when it does not."""
        async with self.read() as session:
            await session.execute(text("SELECT 1"))

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Open a snapshot of the record. Raises RecordUnavailable when the database does not answer in time."""
        with _as_ours(self.label):
            async with asyncio.timeout(self._deadline), AsyncSession(self.engine, expire_on_commit=False) as session:
                yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction that is committed at the end of the block, and rolled back when the block raises.

        Raises RecordUnavailable when the database does not answer in time, CommitUnknown when only the answer to the
        commit is missing, Conflict when a constraint refuses.
        """
        async with self._writer:
            committing = False
            with _as_ours(self.label):
                try:
                    async with (
                        asyncio.timeout(self._deadline),
                        AsyncSession(self.engine, expire_on_commit=False) as session,
                    ):
                        await session.connection(execution_options={"immediate": True})
                        yield session
                        await session.flush()
                        committing = True
                        await session.commit()
                        committing = False
                        for level, name, values in session.info.get("events", ()):
                            _log.log(getattr(logging, level.upper()), name, **values)
                except IntegrityError as error:
                    raise Conflict(str(error.orig)) from error
                except (TimeoutError, DBAPIError) as error:
                    if committing and self._outcome_unknown(error):
                        doubt = f"the database {self.label} did not answer a commit"
                        raise CommitUnknown(doubt, action=_ADVICE) from error
                    raise

    def _outcome_unknown(self, error: Exception) -> bool:
        # SQLite answers a commit that fails, and the transaction is then rolled back; only silence leaves a doubt.
        return isinstance(error, TimeoutError) or not self.is_sqlite


class _as_ours:  # noqa: N801 - reads as a statement
    """Turn what the database layer raises into RecordUnavailable."""

    def __init__(self, label: str) -> None:
        self._label = label

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Translate."""
        if isinstance(error, PoolTimeout | TimeoutError):
            raise RecordUnavailable(f"the database {self._label} did not answer in time", action=_ADVICE) from error
        if isinstance(error, SQLAlchemyError | OSError) and not isinstance(error, IntegrityError):
            detail = str(error.orig) if isinstance(error, DBAPIError) else str(error)
            raise RecordUnavailable(
                f"the database {self._label} failed: {detail.splitlines()[0][:300]}", action=_ADVICE
            ) from error


def _sqlite_engine(url: URL, read_only: bool) -> AsyncEngine:
    file = url.database
    if file and file != ":memory:":
        if read_only:
            url = url.set(database=f"file:{file}", query={"mode": "rw", "uri": "true"})  # never creates a file
        else:
            _create_private(Path(file))
    engine = create_async_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S}, pool_timeout=_BUSY_TIMEOUT_S)

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver must not open transactions by its own rules
        cursor = connection.cursor()
        cursor.execute("PRAGMA query_only=ON" if read_only else "PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        # A read that turns into a write fails at once, whatever the busy time-out: writers say so from the start.
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _postgres_engine(url: URL) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_pre_ping=True,
        pool_size=4,
        connect_args={"timeout": 10, "server_settings": {"application_name": "fragalysis-watcher"}},
    )


def _create_private(file: Path) -> None:
    """Create the file readable by its owner only; SQLite gives its side files the same mode."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise Ours(
            f"the database file {file} cannot be opened: {error.strerror}",
            action="set database.url to a place that this user may write to",
        ) from error
