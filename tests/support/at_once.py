"""SQLite in the thread of the loop, and without waiting for the disk: the same statements on the same files.

Handing each statement to another thread takes several times as long as SQLite does. The fixture `sqlite_at_once` does
it for a test, with `pytest_plugins = ("tests.support.at_once",)`; what is about slow, locked or full disks must not use
it.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import Mock

import pytest
from blockbuster import BlockBuster
from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine

from watcher.store.connections import sqlite_engine


class AtOnce:
    """Takes the place of the queue to the thread of a connection, and does what is put into it."""

    def put_nowait(self, work: "tuple[asyncio.Future[Any], Callable[[], Any]]") -> None:
        future, function = work
        try:
            future.set_result(function())
        except Exception as error:  # noqa: BLE001 - it is told to whoever waits
            future.set_exception(error)


_first: list[Engine] = []
"""The engine that was connected first."""


def not_durable(*arguments: Any, **more: Any) -> AsyncEngine:
    engine = sqlite_engine(*arguments, **more)
    for first in _first:  # what one has compiled serves all: they speak one dialect, to records of the same tables
        engine.sync_engine.dialect, engine.sync_engine._compiled_cache = first.dialect, first._compiled_cache

    @event.listens_for(engine.sync_engine, "connect")
    def quick(connection: Any, _: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")
        _first[:] = _first or [engine.sync_engine]

    return engine


@contextmanager
def in_one_thread() -> Iterator[None]:
    """Do all that is asked of SQLite at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aiosqlite.core.SimpleQueue", AtOnce)
        patch.setattr("aiosqlite.core.Thread", Mock)
        patch.setattr("watcher.store.engine.sqlite_engine", not_durable)
        yield


@pytest.fixture
def sqlite_at_once(blockbuster: BlockBuster) -> Iterator[None]:
    for name, function in blockbuster.functions.items():
        if name.startswith("sqlite3."):
            function.deactivate()
    with in_one_thread():
        yield
