"""One `run` or `once` for each record: a file lock beside SQLite, an advisory lock in PostgreSQL, held for life."""

import asyncio
import fcntl
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Self

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from watcher.errors import AlreadyRunning, Ours
from watcher.store.engine import Store

_ADVISORY_KEY = 0x66726167  # "frag"; advisory locks are counted for each database of the server
CHECK_S = 10.0
TAKE_S = 20.0
_ENDING_S = 0.1  # a session that is told to end takes a moment
# The server notices within a minute that the machine of a holder is gone.
_INTRODUCE = text(
    "SELECT set_config('application_name', :me, false), set_config('tcp_keepalives_idle', '30', false),"
    " set_config('tcp_keepalives_interval', '10', false), set_config('tcp_keepalives_count', '3', false)"
)
_MYSELF = text("SELECT pid || ' ' || backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()")
_OWN = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid || ' ' || backend_start = :lost")
_HOLDER = text(
    "SELECT a.application_name || ', since ' || to_char(a.backend_start, 'YYYY-MM-DD HH24:MI TZ')"
    " FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.classid = 0 AND l.objid = :key AND l.objsubid = 1 AND l.granted"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class InstanceLock:
    """Held from entering to leaving the block, and by nobody after the process has died, however it died.

    Raises AlreadyRunning with the holder when another process has it.
    """

    def __init__(self, store: Store, command: str) -> None:
        self._store = store
        self._me = f"`watcher {command}`, process {os.getpid()} on {socket.gethostname()}"
        self._file: IO[str] | None = None
        self._connection: AsyncConnection | None = None
        self._backend = ""
        """Our session at the server that had the lock last."""

    async def __aenter__(self) -> Self:
        """Take the lock."""
        if self._store.is_sqlite:
            await asyncio.to_thread(self._lock_file)
        else:
            await self._lock_database()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give the lock back."""
        if self._file is not None:
            self._file.close()
            self._file = None
        await self._hang_up()

    @property
    def held(self) -> bool:
        """Whether the lock is ours, as far as is known without asking."""
        return self._file is not None or self._connection is not None

    async def check(self) -> None:
        """Make sure that the lock is still ours, and take it again if its connection was lost.

        Raises Ours while the database does not answer, AlreadyRunning when someone else took it meanwhile.
        """
        if self._store.is_sqlite:
            return
        if self._connection is not None:
            try:
                async with asyncio.timeout(CHECK_S):
                    await self._connection.execute(text("SELECT 1"))
            except (SQLAlchemyError, OSError):
                await self._hang_up()
        if self._connection is None:
            await self._lock_database()

    async def _hang_up(self) -> None:
        """End the session at the server: one that went back to the pool would go on holding the lock."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await _end(connection)

    def _lock_file(self) -> None:
        file = self._store.sqlite_file
        if file is None:
            return
        path = Path(f"{file}.lock")
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Ours(f"the lock file {path} cannot be opened: {error.strerror}") from error
        handle = os.fdopen(descriptor, "r+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = handle.read(500).strip() or "another process"
            handle.close()
            raise AlreadyRunning(f"the record {file} is in use by {holder}") from None
        handle.truncate(0)
        handle.write(f"{self._me}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n")
        handle.flush()
        self._file = handle

    async def _lock_database(self) -> None:
        connection: AsyncConnection | None = None
        try:
            async with asyncio.timeout(TAKE_S):
                connection = await self._store.engine.connect()
                connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(_INTRODUCE, {"me": self._me})
                while True:
                    if await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _ADVISORY_KEY}):
                        self._backend = await connection.scalar(_MYSELF) or ""
                        self._connection = connection
                        return
                    # A session of ours whose network broke lives on at the server, with the lock, until that notices.
                    if not await connection.scalar(_OWN, {"lost": self._backend}):
                        break
                    await asyncio.sleep(_ENDING_S)
                holder = await connection.scalar(_HOLDER, {"key": _ADVISORY_KEY})
        except (SQLAlchemyError, OSError) as error:
            raise Ours(f"the lock of the record {self._store.label} could not be asked for: {error}") from error
        finally:
            if connection is not None and self._connection is None:
                await _end(connection)
        raise AlreadyRunning(f"the record {self._store.label} is in use by {holder or 'another process'}")


async def _end(connection: AsyncConnection) -> None:
    with suppress(SQLAlchemyError, OSError):
        async with asyncio.timeout(5):
            await connection.invalidate()
            await connection.close()
