"""Fixtures for every test."""

import gc
import os
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import aiohttp
import hypothesis
import pytest
import stamina
from aioresponses import aioresponses
from blockbuster import BlockBuster, blockbuster_ctx

from tests.support.clock import FakeClock

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_collection_finish() -> None:
    """Leave alone what is imported by now: looking through it for cycles takes an eighth of the time of the tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings and no proxies from whoever runs the tests."""
    for name in os.environ:
        if name.startswith("WATCHER_") or name.lower() in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_waiting_between_tries() -> Iterator[None]:
    """Retries happen, as often as in earnest, but at once."""
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """Blocking calls of ours on the event loop raise."""
    with blockbuster_ctx("watcher") as active:
        # Reads certificates once, when the first client opens.
        active.functions["io.BufferedReader.read"].can_block_in("ssl.py", "create_default_context")
        # Asks for the working directory once, when the record is opened.
        active.functions["os.path.abspath"].can_block_in("pysqlite.py", "create_connect_args")
        # Looks once for a log that a crash left, when the record is opened for reading.
        active.functions["os.stat"].can_block_in("connections.py", "sqlite_engine")
        yield active


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class _Response(aiohttp.ClientResponse):
    """aiohttp 3.14 asks for a stream writer that aioresponses 0.7.9 does not know of."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, stream_writer=Mock(output_size=0), **kwargs)


@pytest.fixture
def responses(monkeypatch: pytest.MonkeyPatch) -> Iterator[aioresponses]:
    """Answers for aiohttp requests, without a network: `responses.get(url, payload=...)`."""
    monkeypatch.setattr("aioresponses.core.ClientResponse", _Response)
    with aioresponses() as mocked:
        yield mocked
