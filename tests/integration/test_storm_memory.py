"""What the longest answers that are read cost in memory, whatever is in them: less than the daemon is allowed."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from typing import NamedTuple

import pytest
from aiohttp import web

from tests.support.network import site
from tests.support.process import environment
from watcher.http import SHORT
from watcher.settings import HttpSettings

pytestmark = pytest.mark.slow

ALLOWED = 2 * 10**9
"""`MemoryMax` of the unit and `mem_limit` of the compose file; the chemistry and the notifications are in it too."""
MOST = ALLOWED * 6 // 10
LONG = HttpSettings().max_response_size - 1000

_ASK = """
import asyncio, os, re, sys
from datetime import timedelta
from pathlib import Path
import watcher.daemon
from watcher.clock import SystemClock
from watcher.errors import WatcherError
from watcher.fragalysis import Fragalysis
from watcher.molecule_one import MoleculeOne
from watcher.settings import Settings

CALLS = {
    "create": (MoleculeOne, lambda client: client.create(b"{}")),
    "status": (MoleculeOne, lambda client: client.status("b1")),
    "results": (MoleculeOne, lambda client: client.results("b1")),
    "list": (MoleculeOne, lambda client: client.list_batches()),
    "targets": (Fragalysis, lambda client: client.target_list()),
    "observations": (Fragalysis, lambda client: client.get_target_compound_smiles(1)),
    "user": (Fragalysis, lambda client: client.user()),
}

async def ask(url, name):
    settings = Settings().replace("molecule_one", base_url=url, token="t0ken-of-ours", api_version="v2")
    settings = settings.replace("fragalysis", stack=url).replace("http", trust_env=False)
    kind, call = CALLS[name]
    async with kind(settings, clock=SystemClock()) as client:
        try:
            got = await call(client)
            said = f"{len(got)} {type(got).__name__}" if isinstance(got, (list, dict)) else str(got)
        except WatcherError as error:
            said = f"{type(error).__name__}: {error}"
    peak = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]
    print(1024 * int(peak), said[:200], flush=True)

for line in sys.stdin:
    if (child := os.fork()) == 0:  # nothing is left of one call when the next is measured
        asyncio.run(ask(sys.argv[1], line.strip()))
        os._exit(0)
    os.waitpid(child, 0)
"""


class Case(NamedTuple):
    call: str
    said: str
    """What comes of it."""
    body: Callable[[], bytes]
    status: int = 200


def filled(head: bytes, piece: bytes, tail: bytes, size: int = LONG) -> bytes:
    return head + piece * ((size - len(head) - len(tail)) // len(piece)) + tail


def listed(row: bytes) -> bytes:
    """A listing of Fragalysis with as many rows as fit, each with its own id."""
    number = LONG // (len(row) + 6)
    rows = b",".join([row % (10**6 + one) for one in range(number)])
    return b'{"count":%d,"results":[%s]}' % (number, rows)


OBJECTS = b'{"a":1},'
CASES = {
    "a list of batches": Case("list", "more than 200000", lambda: filled(b"[", b'{"id":1},', b"0]")),
    "a batch with much beside it": Case("list", "Listing", lambda: filled(b'[{"id":1,"x":[', OBJECTS, b"0]}]")),
    "results as short as may be": Case("results", "more than 200000", lambda: filled(b"[", b"[0.25]  ,", b"0]")),
    "results that are no JSON": Case("results", "cannot be read", lambda: filled(b"[NaN,", OBJECTS, b"0]")),
    "a result that is a list": Case("results", "1 list", lambda: filled(b'[{"result":[', OBJECTS, b"0]}]")),
    "a route": Case("results", "1 list", lambda: filled(b'[{"synthesis":["\xf0\x9f\x98\x80', b"x", b'"]}]')),
    "results with routes": Case(
        "results", "list", lambda: filled(b"[", b'{"synthesis":["\xf0\x9f\x98\x80%s"]},' % (b"x" * 300), b"0]")
    ),
    "a refusal": Case("list", "more than 1000000", lambda: filled(b'{"message":[', OBJECTS, b"0]}"), 400),
    "counts": Case("status", "Counts", lambda: filled(b'{"finished":0,"x":[', OBJECTS, b"0]}", SHORT)),
    "an answer to a purchase": Case("create", "without the id", lambda: filled(b'{"x":[', OBJECTS, b"0]}", SHORT)),
    "a bad row": Case(
        "targets", "row x: ", lambda: filled(b'{"count":1,"results":[{"id":"x","title":5,"x":[', OBJECTS, b"0]}]}")
    ),
    "bad rows": Case("targets", "Invalid", lambda: filled(b'{"count":1,"results":[', b"0,", b"0]}")),
    "observations": Case("observations", "list", lambda: listed(b'{"id":%d,"code":"","smiles":""}')),
    "a user": Case("user", "Me", lambda: filled(b'{"user":"Me","x":[', OBJECTS, b"0]}", SHORT)),
}


@pytest.mark.timeout(300)
async def test_the_longest_answers_fit_into_the_memory_of_the_daemon() -> None:
    case, body = next(iter(CASES.values())), b""

    async def handler(request: web.Request) -> web.Response:
        if "projects" in request.path:
            return web.json_response({"count": 0, "results": []})
        return web.Response(status=case.status, body=body, content_type="application/json")

    async with site(handler) as url:
        command = (sys.executable, "-c", _ASK, url)
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=environment())
        assert process.stdin is not None
        assert process.stdout is not None
        for name, case in CASES.items():
            body = case.body()
            process.stdin.write(f"{case.call}\n".encode())
            peak, _, said = (await process.stdout.readline()).decode().strip().partition(" ")
            assert case.said in said, name
            assert int(peak) < MOST, f"{name} took {int(peak) // 10**6} MB: {said}"
        process.stdin.close()
        assert await process.wait() == 0
