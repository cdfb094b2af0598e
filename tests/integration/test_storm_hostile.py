"""Answers that nobody should send: huge, bottomless, bombs; and names that would be a path, a command or a formula."""

import asyncio
import csv
import gzip
import io
import json
import logging
import re
import shutil
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.support.pipeline import Job, world
from tests.support.process import Served, Workplace, environment, shown_by
from tests.support.record import settings_for_database
from watcher import chemistry, log
from watcher.cli.output import clean
from watcher.pipeline.uploads import label_of
from watcher.sandbox import Fault, Sandbox
from watcher.settings import HttpSettings, LogSettings
from watcher.store.schema import Condition, Target

pytest_plugins = ("tests.support.store",)
pytestmark = pytest.mark.slow

BIG = 320 * 2**20
GROWTH = 60 * 2**20
"""What a process may grow by over such an answer: buffers, never the body."""

_ASK = """
import asyncio, resource, sys
from datetime import timedelta
from watcher.answers import Answer
from watcher.http import Http
from watcher.settings import HttpSettings

async def main(url, way, limit):
    settings = HttpSettings(max_response_size=int(limit), trust_env=False)
    async with Http("molecule_one", url, settings, requests_per_second=100, user_agent="x") as http:
        assert (await http.request("GET", "/small", operation="warm")).status == 200
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        said = "nothing"
        try:
            if way == "stream":
                async with http.stream("/big", operation="file") as (_, chunks):
                    total, largest = 0, 0
                    async for chunk in chunks:
                        total, largest = total + len(chunk), max(largest, len(chunk))
                    said = f"{total} {largest}"
            elif way == "once":
                minute = timedelta(seconds=60)
                said = str(await http.send_once("/big", b"{}", operation="create", headers={}, timeout=minute))
            else:
                said = str(await http.request(way, "/big", operation="list"))
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before), said[:300])

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def flood(head: bytes, pieces: Any) -> AsyncIterator[tuple[str, list[int]]]:
    """A server whose `/big` sends `head` and then the pieces as long as somebody reads; and what it has sent."""
    sent = [0]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readline():
                while (await reader.readline()).strip():
                    pass
                if b"/small" in request:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                    continue
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + head + b"\r\n")
                for piece in pieces():
                    writer.write(piece)
                    sent[0] += len(piece)
                    await writer.drain()
                break
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}", sent


def endless(total: int = BIG) -> Iterator[bytes]:
    piece = b'"' + b"x" * (2**16 - 1)
    for _ in range(total // len(piece)):
        yield piece


def chunked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield b"%x\r\n%s\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def squeezed(wbits: int) -> list[bytes]:
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return [*filter(None, (packer.compress(bytes(2**20)) for _ in range(BIG // 2**20))), packer.flush()]


BOMB, DEFLATED = squeezed(31), squeezed(-15)
NESTED = [gzip.compress(b"".join(BOMB))]
WAYS: dict[str, tuple[bytes, Any]] = {
    "announced": (b"Content-Length: %d\r\n" % BIG, endless),
    "chunked": (b"Transfer-Encoding: chunked\r\n", lambda: chunked(endless())),
    "until closed": (b"Connection: close\r\n", endless),
    "gzip bomb": (b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % sum(map(len, BOMB)), lambda: iter(BOMB)),
    "gzip bomb, chunked": (b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", lambda: chunked(iter(BOMB))),
    "deflate bomb": (b"Content-Encoding: deflate\r\nConnection: close\r\n", lambda: iter(DEFLATED)),
    "bomb in a bomb": (b"Content-Encoding: gzip\r\nConnection: close\r\n", lambda: iter(NESTED)),
    "one endless header": (b"X-Long: " + b"x" * 2**22 + b"\r\n", lambda: iter([b"{}"])),
}


async def ask(url: str, way: str, limit: int = 2**20) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _ASK, url, way, str(limit), stdout=asyncio.subprocess.PIPE, env=environment()
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    grown, _, said = out.decode().partition(" ")
    return int(grown), said.strip()


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("way", ["GET", "POST", "once"])
async def test_a_huge_answer_is_cut_and_not_kept(way: str, name: str) -> None:
    async with flood(*WAYS[name]) as (url, sent):
        grown, said = await ask(url, way)
    assert grown < GROWTH, f"grew by {grown >> 20} MB: {said}"
    if name == "bomb in a bomb":  # only the outer one is undone, and what is left is small
        return
    assert said.startswith("NoAnswer" if way == "once" else "Final" if "header" not in name else "Transient"), said
    assert sent[0] < BIG // 4


@pytest.mark.parametrize("announced", [True, False])
async def test_a_gigabyte_costs_no_more_memory_than_the_settings_say(announced: bool) -> None:
    limit = HttpSettings().max_response_size
    head = b"Content-Length: %d\r\n" % 2**30 if announced else b"Transfer-Encoding: chunked\r\n"
    async with flood(head, lambda: endless(2**30) if announced else chunked(endless(2**30))) as (url, sent):
        grown, said = await ask(url, "GET", limit)
    assert said.startswith("Final")
    assert grown < (0 if announced else limit * 1.25) + GROWTH, f"grew by {grown >> 20} MB"
    assert sent[0] < 2**30 // 2


@pytest.mark.parametrize("name", ["chunked", "gzip bomb"])
async def test_a_file_of_any_size_comes_in_pieces(name: str) -> None:
    """The stream has no limit of its own: who writes it to the disk stops. What matters is that pieces stay small."""
    async with flood(*WAYS[name]) as (url, _):
        grown, said = await ask(url, "stream")
    total, largest = map(int, said.split())
    assert total >= BIG * 0.99
    assert largest <= 2**20
    assert grown < GROWTH


@contextmanager
def little_memory() -> Iterator[None]:
    """This process never grows by more than a huge answer may cost."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    before = _peak()
    yield
    grown = _peak() - before
    assert grown < GROWTH, f"grew by {grown >> 20} MB"


def _peak() -> int:
    (kilobytes,) = re.findall(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return 1024 * int(kilobytes)


DEEP = "[" * 100_000 + "]" * 100_000
BOTTOMLESS = {
    "^/api/targets/": "fragalysis",
    "^/api/target_exp": "fragalysis",
    "^/api/site_obs": "fragalysis",
    "^/api/download_structures": "fragalysis",
    "^/viewer/task_status": "fragalysis",
    "batch-search$": "molecule_one",
    "search-status": "molecule_one",
    "search-result": "molecule_one",
}
SENT = ("^/api/download_structures", "batch-search$")
"""What is also posted to."""
JSON = {"Content-Type": "application/json"}
SHAPES = {
    "list": DEEP,
    "object": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "within rows": '{"count": 1, "next": null, "results": [{"id": 1, "title": ' + DEEP + "}]}",
    "within items": '[{"id": 1, "status": "ok", "result": 2, "synthesis": ' + DEEP + "}]",
    "within counts": '{"queued": 0, "running": 0, "finished": 4, "error": 0, "more": ' + DEEP + "}",
}


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        (path, shape)
        for one, path in enumerate(BOTTOMLESS)
        for other, shape in enumerate(SHAPES)
        if (one + other) % 3 == 2 or (path, shape) == ("search-result", "within items")
    ],
)
async def test_answers_without_a_bottom(tmp_path: Path, path: str, shape: str) -> None:
    async with world(tmp_path) as job:
        where: Any = BOTTOMLESS[path]
        said = {"status": 200, "body": SHAPES[shape], "headers": JSON}
        asked = job.fault(where, "status", path, method="GET", times=4, **said)
        sent = job.fault(where, "status_after", path, method="POST", times=1, **said)
        with structlog.testing.capture_logs() as logs:
            async with job.run() as runner:
                await asyncio.to_thread(chemistry.identify, "C")  # the memory that RDKit takes for itself
                with little_memory():
                    await job.again(runner)
                    for _ in range(4):
                        await job.later(runner, hours=2)
                quarantined = [kind for kind in await job.conditions() if "quarantined" in kind]
        assert not [one for one in logs if "unexpected" in str(one) or "exc_info" in one]
        assert set(await job.conditions()) == set(quarantined)
        assert set(job.bought.values()) <= {1}
        assert quarantined or len(job.bought) == 3
        assert asked.hits
        assert bool(sent.hits) == (path in SENT)


NAMES = (
    '=HYPERLINK("http://x.invalid","x")',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "x;=1+1",
    "\x1b[2J\x1b]0;owned\x07\x1b[31mred",
    "\x9b31mred",
    "\u202egnp.exe\u2066",
    "../../../../etc/passwd",
    "/etc/passwd",
    "..",
    "con",
    "-rf",
    "[bold red]loud[/] [link=http://x.invalid]x[/link]",
    "<script>alert(1)</script>",
    "line\nbreak\r\nSet-Cookie: a=b",
    "nul\x00byte",
    "a@b@c",
    "%s %(x)s {0} ${HOME} `id`",
    "é\u0301 \u200b\ufeff\u2028",
    "x" * 10_000,
    "\u6f22" * 10_000,
    " ",
)
_SMILES = ["C" * (number + 1) + "O" for number in range(len(NAMES))]


def people(sandbox: Sandbox) -> None:
    """A target with each name, and that name in its TAS and codes too."""
    for name, smiles in zip(NAMES, _SMILES, strict=True):
        tas = f"lb1-1{name}" if name.strip(".") else name
        sandbox.fragalysis.add_target(name, tas)
        sandbox.fragalysis.add_upload(name, tas, [(name, smiles, name)])


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served(build_polls=0, catalogue=None, age="2026") as served:
        served.do(people)
        yield served


@pytest.fixture(scope="module")
def workplace(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The whole job done on these names by the command itself; its commands look at what came of it."""
    place = Workplace(tmp_path_factory.mktemp("hostile"), served)
    place.set("download", enabled=True)
    done = place.call("once", "--timeout", "50s", exit_code=None)
    (place.folder / "log").write_text(done.stderr, encoding="utf-8")
    assert set(served.purchases.values()) == {1}
    assert len(served.purchases) == len(NAMES)
    return place


def harmless(text: str) -> bool:
    """Say whether nothing but line breaks and the bold of our own moves or colours anything."""
    plain = re.sub(r"\x1b\[[01]m", "", text).replace("\r\n", "").replace("\n", "")
    return plain.isprintable()


def test_no_name_leaves_the_folder(workplace: Workplace) -> None:
    downloads = workplace.folder / "downloads"
    paths = list(downloads.rglob("*"))
    assert len([path for path in paths if path.name == "current"]) >= 10
    assert all(path.resolve().is_relative_to(downloads.resolve()) for path in paths)
    for path in downloads.glob("*/*"):
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._~-]{0,99}", path.name)
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._~-]{0,99}", path.parent.name)
    assert {path.name for path in workplace.folder.iterdir()} <= {
        "config.toml", "downloads", "log", "watcher.db", "watcher.db-shm", "watcher.db-wal", "watcher.db.lock",
        "watcher.lock", ".watcher.db.lock",
    }  # fmt: skip


def test_every_line_of_the_log_is_one_document(workplace: Workplace) -> None:
    lines = (workplace.folder / "log").read_text(encoding="utf-8").split("\n")
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert len(events) > len(NAMES)
    assert not [line[:200] for line in lines if line and not line.startswith("{") and not line.isprintable()]
    assert not [one for one in events if "exception" in one or "unexpected" in one["event"]]
    assert "Traceback" not in "".join(lines)


TURNED, MOVING, BROKEN = "\u202egnp.exe\u2066", "\x1b[2J\x1b]0;owned\x07\x1b[31mred", "line\nbreak\r\nSet-Cookie: a=b"
ESCAPED = [name for name in NAMES if clean(name) != name]
LISTS = (["status"], ["plan"], ["targets"], ["uploads"])
NARROW, WIDE = 40, 200
"""A table whose headers do not fit is a list of its cells."""
CALLS = (
    *((WIDE, command, [TURNED, MOVING]) for command in LISTS),
    *((NARROW, command, NAMES) for command in LISTS),
    *((NARROW, ["history", "--", name], [name]) for name in ESCAPED),
    *((NARROW, ["approve", "--", name], [name]) for name in ESCAPED),
    (NARROW, ["batches", "list"], []),
    (NARROW, ["batches", "show", "1"], []),
    (NARROW, ["export"], []),
    (NARROW, ["db", "check"], [TURNED]),
    (NARROW, ["retry"], [MOVING, BROKEN]),
)
"""How wide the terminal is, a command, and names that it shows."""


@pytest.mark.parametrize("on_a_terminal", [True, False])
def test_people_are_shown_names_and_no_terminal_obeys_one(
    workplace: Workplace, served: Served, tmp_path: Path, on_a_terminal: bool
) -> None:
    place = copy(workplace)
    place.folder = tmp_path / "copy"
    without = shutil.ignore_patterns("files")  # which `db check` has to say
    shutil.copytree(workplace.folder, place.folder, symlinks=True, ignore=without)
    said = {"message": f"{TURNED}{MOVING}{BROKEN}"}
    refusals = [
        Fault("fragalysis", "status", {"path": "^/api/targets/"}, status=400, body=said),
        Fault("molecule_one", "status", status=400, body=said),
    ]
    served.do(lambda sandbox: [sandbox.add_fault(fault) for fault in refusals])
    calls = [(NARROW, ["check"], ["Set-Cookie"]), *CALLS]  # first: it is refused
    found = shown_by(place, [(columns, command) for columns, command, _ in calls], on_a_terminal=on_a_terminal)
    for (_, command, names), (code, shown) in zip(calls, found, strict=True):
        assert code in (0, 1, 3), command
        assert [name for name in names if clean(name) not in shown] == [], command
        if command != ["export"]:  # which quotes what a cell holds
            assert not re.search(r"^\W*(break|Set-Cookie)", shown, re.MULTILINE), command
        elif not on_a_terminal:
            continue
        assert harmless(shown), command
    assert [fault.hits for fault in refusals] == [1, 1]


def test_no_cell_of_the_table_is_a_formula(workplace: Workplace) -> None:
    text = workplace.call("export").stdout
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert len(rows) == len(NAMES) + 1
    numbers = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")
    assert not [
        cell for row in rows for cell in row if cell[:1] in set("=+-@\t\r\n") and cell and not numbers.fullmatch(cell)
    ]
    lines = workplace.call("export", "--format", "jsonl").stdout.split("\n")
    exported = {json.loads(line)["target"] for line in lines if line}
    assert len(exported) == len(NAMES), "each as it is, none lost"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """Shows the log, without colours; what that does to the logs of the process is undone."""
    monkeypatch.setenv("NO_COLOR", "1")
    root, stream = logging.getLogger(), Terminal()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    log.configure(LogSettings(level="debug"), secrets=[], stream=stream)
    yield stream
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("on", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def test_conditions_about_such_targets_fit_any_database_and_any_terminal(
    tmp_path: Path, terminal: Terminal, on: str, request: pytest.FixtureRequest
) -> None:
    """PostgreSQL cannot index a text of more than 2700 bytes, nor store a NUL."""
    database = ""
    if on == "postgres":
        name = request.getfixturevalue("postgres_database_of_its_own")
        database = settings_for_database(name).url.get_secret_value()
    async with world(tmp_path, empty=True, database=database) as job:
        assert isinstance(job, Job)
        job.set("download", enabled=False)
        people(job.sandbox)
        await job.once()
        for target in job.sandbox.fragalysis.world.targets:
            target.vanished = True
        await job.once()
        found = await job.all(Condition)
        assert len(found) == len(NAMES)
        assert max(len(one.subject.encode("utf-8", "surrogatepass")) for one in found) < 2000
        assert len({label_of(one) for one in await job.all(Target)}) == len(NAMES)
        assert {(one.target, one.code, one.compound_code) for one in await job.rows()} == {
            (name, name, name) for name in NAMES
        }
        assert job.bought == dict.fromkeys(_SMILES, 1)
        for target in job.sandbox.fragalysis.world.targets:
            target.vanished = False
        await job.once()
        assert await job.conditions() == {}
    shown = terminal.getvalue()
    assert all(words in shown for words in ("condition_opened", "gnp.exe", "owned", "Set-Cookie"))
    assert harmless(shown)
    assert [line for line in shown.splitlines() if not re.match(r"20\d\d-\d\d-\d\dT[0-9:]+Z ", line)] == []
