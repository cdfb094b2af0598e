"""Connections to SQLite and PostgreSQL, each set up so that a commit is a commit."""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from watcher.errors import Ours

_BUSY_TIMEOUT_S = 20.0
_CONNECT_TIMEOUT_S = 10.0
RESTORING = ".restoring-"
"""In the name of a copy that is about to take the place of the record; the time follows."""


def sqlite_uri(file: str | Path, mode: str) -> str:
    """Name a database file to SQLite as a URI, whatever characters its name has."""
    return f"file:{quote(str(file))}?mode={mode}"


def interrupted_restore(record: Path) -> Path | None:
    """Return the copy that was about to take the place of a record when `watcher db restore` was interrupted."""
    with suppress(OSError):
        return next(
            (path for path in record.parent.iterdir() if path.name.startswith(f"{record.name}{RESTORING}")), None
        )
    return None


def refuse_interrupted_restore(record: Path) -> None:
    """Raise Ours when a restore of the record was interrupted: what is there may lack what was paid for."""
    if (copy := interrupted_restore(record)) is not None:
        raise Ours(
            f"a restore of the record {record} was interrupted, so that what is there now may lack what was paid for",
            action=f"call `watcher db restore {copy}`, or `watcher db restore` with another copy",
        )


def sqlite_engine(url: URL, deadline: float, *, read_only: bool, foreign_keys: bool) -> AsyncEngine:
    """Return an engine for a SQLite file; with `read_only` the file must be there already."""
    if read_only:  # never creates a file
        # After a crash, closing a writable connection would move the log that is left into the record.
        log = Path(f"{url.database}-wal")
        mode = "ro" if log.exists() and log.stat().st_size else "rw"
        url = url.set(database=f"file:{quote(url.database or '')}", query={"mode": mode, "uri": "true"})
    # SQLite waits for a lock in its own thread, where no deadline reaches: it must give up before.
    busy = min(_BUSY_TIMEOUT_S, 0.8 * deadline)
    engine = create_async_engine(url, connect_args={"timeout": busy}, pool_timeout=deadline)

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver must not open transactions by its own rules
        cursor = connection.cursor()
        cursor.execute("PRAGMA query_only=ON" if read_only else "PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "invalidate")
    def on_invalidate(connection: Any, _: object, __: object) -> None:
        # A statement that was cancelled keeps a closed connection, and with it the lock of its transaction, alive.
        with suppress(Exception):
            connection.rollback()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        # A read that turns into a write fails at once, whatever the busy time-out: writers say so from the start.
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def open_anew(file: Path) -> None:
    """Open a SQLite record beside the connections that there are, read from it, and close it. Raises sqlite3.Error."""
    with closing(sqlite3.connect(sqlite_uri(file, "rw"), uri=True)) as connection:
        connection.execute("SELECT id FROM instance").fetchone()


def postgres_engine(url: URL, deadline: float) -> AsyncEngine:
    """Return an engine for PostgreSQL; the first transaction connects."""
    return create_async_engine(
        url,
        pool_pre_ping=True,
        pool_size=4,
        pool_timeout=deadline,
        connect_args={
            "timeout": min(_CONNECT_TIMEOUT_S, deadline),
            "command_timeout": deadline,
            "server_settings": {"application_name": "fragalysis-watcher"},
        },
    )


def create_private(file: Path) -> None:
    """Create the file, if it is missing, readable by its owner only; SQLite gives its side files the same mode.

    One that is there is never opened here: closing it again would drop the locks that SQLite holds on it in this
    process (POSIX locks belong to the process), and another process would delete the log of a record in use.
    Raises Ours.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            with suppress(FileExistsError):  # another process was faster
                os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise Ours(
            f"the database file {file} cannot be opened: {error.strerror}",
            action="set database.url to a place that this user may write to",
        ) from error
