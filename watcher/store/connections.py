"""Connections to SQLite and PostgreSQL, each set up so that a commit is a commit."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from watcher.store.sqlite_files import mode_to_read, sqlite_uri

_BUSY_TIMEOUT_S = 20.0
_CONNECT_TIMEOUT_S = 10.0


def sqlite_engine(url: URL, deadline: float, *, read_only: bool, foreign_keys: bool) -> AsyncEngine:
    """Return an engine for a SQLite file; with `read_only` the file must be there already."""
    if read_only:  # never creates a file
        file = url.database or ""
        url = url.set(database=f"file:{quote(file)}", query={"mode": mode_to_read(Path(file)), "uri": "true"})
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
