"""The chemistry in a process of its own: what happens when molecules, operators and machines misbehave."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from watcher import chemistry_process, child
from watcher.chemistry import identify, version
from watcher.chemistry_process import Chemistry, ChemistryUnavailable
from watcher.chemistry_records import Identity, Rejection

VERSION = version(1000)  # outside of the event loop: it reads a file

# The real child, but some strings make it misbehave; its notes go to the directory of its first argument.
CHILD = """
import os, re, signal, sys, time
from pathlib import Path
from watcher import chemistry_child

notes = Path(sys.argv[1])
starts = notes / "starts"
with starts.open("a") as file:
    file.write(f"{os.getpid()}\\n")
if (notes / "broken").exists():
    sys.exit("no chemistry today")
if (notes / "stuck").exists():
    time.sleep(600)
real = chemistry_child.identify

def identify(raw, *, max_heavy_atoms=1000):
    match raw:
        case "HANG":  # in C, holding the interpreter
            (notes / "busy").touch()
            re.match(r"(a+)+$", "a" * 60 + "b")
        case "CRASH":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "CRASH ONCE":
            if not (notes / "crashed").exists():
                (notes / "crashed").touch()
                os.kill(os.getpid(), signal.SIGSEGV)
            return real("CCO")
        case "BREAK":
            (notes / "broken").touch()
            os.kill(os.getpid(), signal.SIGSEGV)
        case "STOP":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "MEMORY":
            bytearray(8 << 30)
        case "WAIT":
            (notes / "busy").touch()
            while not (notes / "go").exists():
                time.sleep(0.01)
            return real("CCO")
        case "NOISE":
            os.write(1, b"noise of a C library\\n")
            print("noise of Python", flush=True)
            return real("CCO")
        case "NONSENSE":
            return "nonsense" if (notes / "busy").exists() else Path("/")
    return real(raw, max_heavy_atoms=max_heavy_atoms)

chemistry_child.identify = identify
chemistry_child.main()
"""

# A parent that hangs in a molecule (or idles, for any other) until somebody kills it.
PARENT = """
import asyncio, sys
from watcher.chemistry_process import Chemistry

async def main():
    chemistry = Chemistry(molecule_timeout=300, idle_timeout=300, command=sys.argv[2:])
    await chemistry.canonical(['C'])
    print(chemistry.pid, flush=True)
    await chemistry.identify([sys.argv[1]])
    print("idle", flush=True)
    await asyncio.sleep(300)

asyncio.run(main())
"""


@pytest.fixture(autouse=True, scope="module")
def rdkit_loaded() -> None:
    """Load RDKit and its tables outside the event loop: the tests compare with answers of this process."""
    identify("CCO.Cl")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "parent.py").write_text(PARENT)
    return tmp_path


@pytest.fixture
def command(notes: Path) -> list[str]:
    return [sys.executable, str(notes / "child.py"), str(notes)]


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as logs:
        yield logs


def starts(notes: Path) -> int:
    return len((notes / "starts").read_text().splitlines())


def reaped(pid: int | None) -> bool:
    return not Path(f"/proc/{pid}").exists()


def gone(pid: int) -> bool:
    """Gone, or dead and not yet reaped by the machine's first process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - other processes set no asyncio.Event
            await asyncio.sleep(0.01)


def unparsable(verdict: object) -> str:
    assert isinstance(verdict, Rejection)
    assert verdict.reason == "unparsable"
    return verdict.detail


# --- all is well ------------------------------------------------------------------------------------------------------


async def test_same_answers_as_in_process_in_the_same_order() -> None:
    raws = ["C" * number for number in range(1, 251)] + [
        "",
        "c1ccccc",
        "CC\0O",
        "CCO\ud800",
        "\ufeffCCO",
        "\n",
        "CCO |x",
    ]
    async with Chemistry() as chemistry:
        assert await chemistry.identify(raws) == [identify(raw) for raw in raws]
        assert await chemistry.canonical(["OCC", "\ud800", "c1ccccc", "CO"]) == ["CCO", None, None, "CO"]
        assert await chemistry.version() == VERSION


async def test_nothing_to_do_starts_nothing() -> None:
    async with Chemistry() as chemistry:
        assert await chemistry.identify([]) == []
        assert await chemistry.version() == VERSION
        assert chemistry.pid is None


async def test_limit_is_passed_on() -> None:
    async with Chemistry(max_heavy_atoms=5) as chemistry:
        small, large = await chemistry.identify(["CCCCC", "CCCCCC"])
        assert isinstance(small, Identity)
        assert isinstance(large, Rejection)
        assert large.reason == "too_large"
        assert await chemistry.version() == VERSION.replace("1000", "5")


async def test_calls_at_the_same_time_share_one_child(command: list[str], notes: Path) -> None:
    async with Chemistry(command=command) as chemistry:
        answers = await asyncio.gather(*(chemistry.canonical([smiles] * 150) for smiles in ("OCC", "OC", "NC")))
    assert answers == [["CCO"] * 150, ["CO"] * 150, ["CN"] * 150]
    assert starts(notes) == 1


async def test_large_records_do_not_block_each_other() -> None:
    raws = [f"C |{number}," + "x" * 19_000 for number in range(200)]
    async with Chemistry() as chemistry:
        assert [verdict.cxsmiles for verdict in await chemistry.identify(raws)] == [raw[2:] for raw in raws]


async def test_noise_does_not_reach_the_records(command: list[str], notes: Path) -> None:
    async with Chemistry(command=command) as chemistry:
        assert await chemistry.identify(["NOISE", "CCO"]) == [identify("CCO")] * 2
    assert starts(notes) == 1


async def test_child_is_let_go_when_idle_and_started_again(command: list[str], notes: Path, logs: list[Any]) -> None:
    async with Chemistry(command=command, idle_timeout=0.05) as chemistry:
        await chemistry.identify(["CCO"])
        first = chemistry.pid
        assert first
        await until(lambda: reaped(first))
        assert chemistry.pid is None
        assert await chemistry.identify(["CCO"]) == [identify("CCO")]
        assert starts(notes) == 2
    assert logs == []


async def test_child_inherits_neither_secrets_nor_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WATCHER_MOLECULE_ONE__TOKEN", "a-secret")
    open_file = os.open(tmp_path / "open", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(open_file, True)
    try:
        async with Chemistry() as chemistry:
            await chemistry.canonical(["C"])
            process = Path(f"/proc/{chemistry.pid}")
            names = {entry.partition(b"=")[0].decode() for entry in (process / "environ").read_bytes().split(b"\0")}
            assert names <= {"", *child._INHERITED, *child._ENVIRONMENT}
            assert not [link for link in (process / "fd").iterdir() if str(link.readlink()).startswith("/")]
            assert resource.prlimit(chemistry.pid or 0, resource.RLIMIT_CORE) == (0, 0)
            assert resource.prlimit(chemistry.pid or 0, resource.RLIMIT_AS)[1] <= 3 << 30
    finally:
        os.close(open_file)


async def test_nothing_is_left_behind(command: list[str]) -> None:
    chemistry = Chemistry(command=command)
    await chemistry.canonical(["C"])
    pid = chemistry.pid
    await chemistry.aclose()
    assert pid
    assert reaped(pid)
    with pytest.raises(ChemistryUnavailable, match="closed"):
        await chemistry.canonical(["C"])
    await chemistry.aclose()


# --- molecules misbehave ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("culprit", "words", "timeout"),
    [("CRASH", "signal 11, Segmentation fault", 60), ("HANG", "out of time", 1), ("MEMORY", "MemoryError", 60)],
)
async def test_culprit_alone_is_rejected(
    command: list[str], notes: Path, culprit: str, words: str, timeout: float, logs: list[Any]
) -> None:
    raws = ["CC", "CCC", culprit, "CCCC", culprit, "CCCCC"]
    async with Chemistry(command=command, molecule_timeout=timeout) as chemistry:
        verdicts = await chemistry.identify(raws)
    for raw, verdict in zip(raws, verdicts, strict=True):
        if raw == culprit:
            assert words in unparsable(verdict)
        else:
            assert verdict == identify(raw)
    assert starts(notes) == 5
    assert ["is rejected" in one["action"] for one in logs] == 2 * [False, True], "each end is said, and what follows"
    assert all(words in one["reason"] for one in logs)


async def test_silence_is_noticed_without_the_childs_alarm(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chemistry_process, "_GRACE", 0.1)
    async with Chemistry(command=command, molecule_timeout=0.9) as chemistry:
        verdicts = await chemistry.identify(["CC", "STOP", "CCC"])
    assert verdicts[::2] == [identify("CC"), identify("CCC")]
    assert "no answer in 1 s" in unparsable(verdicts[1])


async def test_culprit_is_tried_again_before_it_is_blamed(command: list[str], notes: Path) -> None:
    async with Chemistry(command=command) as chemistry:
        assert await chemistry.identify(["CCO", "CRASH ONCE", "CCO"]) == [identify("CCO")] * 3
    assert starts(notes) == 2


async def test_unencodable_answer_is_a_lost_child(command: list[str]) -> None:
    async with Chemistry(command=command) as chemistry:
        verdicts = await chemistry.identify(["NONSENSE", "CCO"])
    assert "TypeError" in unparsable(verdicts[0])
    assert verdicts[1] == identify("CCO")


# --- operators and machines misbehave ---------------------------------------------------------------------------------


async def test_killed_while_idle(command: list[str], logs: list[Any]) -> None:
    async with Chemistry(command=command) as chemistry:
        for is_noticed in (False, True):
            await chemistry.canonical(["C"])
            assert chemistry.pid
            os.kill(chemistry.pid, signal.SIGKILL)
            if is_noticed:
                await until(lambda: chemistry.pid is None)
            assert await chemistry.identify(["CCO", "CC"]) == [identify("CCO"), identify("CC")]
    assert [one["reason"] for one in logs] == 2 * ["signal 9, Killed"]


async def test_killed_while_busy(command: list[str], notes: Path, logs: list[Any]) -> None:
    raws = ["CC"] * 50 + ["WAIT"] + ["CCC"] * 150
    async with Chemistry(command=command, molecule_timeout=60) as chemistry:
        call = asyncio.create_task(chemistry.identify(raws))
        await until((notes / "busy").exists)
        (notes / "go").touch()
        assert chemistry.pid
        os.kill(chemistry.pid, signal.SIGKILL)
        verdicts = await call
    assert verdicts == [identify("CC")] * 50 + [identify("CCO")] + [identify("CCC")] * 150
    assert [one["reason"] for one in logs] == ["signal 9, Killed"]


async def test_signals_for_the_parent_do_not_end_the_child(command: list[str], notes: Path) -> None:
    async with Chemistry(command=command) as chemistry:
        await chemistry.canonical(["C"])
        assert chemistry.pid
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(chemistry.pid, number)
        await chemistry.identify(["CCO"])
    assert starts(notes) == 1


async def test_child_that_does_not_start(command: list[str], notes: Path) -> None:
    (notes / "broken").touch()
    async with Chemistry(command=command) as chemistry:
        with pytest.raises(ChemistryUnavailable, match="exit status 1: no chemistry today"):
            await chemistry.identify(["CCO"])
        assert starts(notes) == 3
        (notes / "broken").unlink()
        assert await chemistry.identify(["CCO"]) == [identify("CCO")]


async def test_program_that_is_not_there(tmp_path: Path) -> None:
    async with Chemistry(command=[str(tmp_path / "nothing")]) as chemistry:
        with pytest.raises(ChemistryUnavailable, match="No such file"):
            await chemistry.canonical(["C"])


async def test_program_that_talks_nonsense() -> None:
    async with Chemistry(command=["/bin/sh", "-c", "echo hello; read line"]) as chemistry:
        with pytest.raises(ChemistryUnavailable, match="unreadable answer"):
            await chemistry.canonical(["C"])


async def test_child_that_is_stuck_in_its_start(command: list[str], notes: Path) -> None:
    (notes / "stuck").touch()
    async with Chemistry(command=command, start_timeout=0.3) as chemistry:
        with pytest.raises(ChemistryUnavailable, match=r"no answer in 0\.3 s"):
            await chemistry.canonical(["C"])


async def test_fault_of_the_machine_is_not_blamed_on_the_molecule(command: list[str], notes: Path) -> None:
    async with Chemistry(command=command) as chemistry:
        with pytest.raises(ChemistryUnavailable):
            await chemistry.identify(["CC", "BREAK", "CCC"])


async def test_cancelled_call_leaves_the_object_usable(command: list[str], notes: Path) -> None:
    async with Chemistry(command=command, molecule_timeout=60) as chemistry:
        call = asyncio.create_task(chemistry.identify(["CC", "HANG", "CCC"]))
        await until((notes / "busy").exists)
        pid = chemistry.pid
        assert pid
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await chemistry.identify(["CCO"]) == [identify("CCO")]
        assert reaped(pid)


async def test_cancelled_start_leaves_the_object_usable(command: list[str], notes: Path) -> None:
    (notes / "stuck").touch()
    async with Chemistry(command=command) as chemistry:
        call = asyncio.create_task(chemistry.canonical(["C"]))
        await until((notes / "starts").exists)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        (notes / "stuck").unlink()
        assert await chemistry.canonical(["OCC"]) == ["CCO"]


async def test_closing_does_not_wait_for_a_call(command: list[str], notes: Path, logs: list[Any]) -> None:
    chemistry = Chemistry(command=command, molecule_timeout=300)
    call = asyncio.create_task(chemistry.identify(["HANG"]))
    await until((notes / "busy").exists)
    await chemistry.aclose()
    with pytest.raises(ChemistryUnavailable, match="closed"):
        await call
    assert logs == []


@pytest.mark.parametrize("raw", ["HANG", "CCO"], ids=["busy", "idle"])
def test_child_does_not_outlive_a_killed_parent(command: list[str], notes: Path, raw: str) -> None:
    parent = [sys.executable, str(notes / "parent.py"), raw, *command]
    with subprocess.Popen(parent, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        deadline = time.monotonic() + 30
        if raw == "HANG":
            while not (notes / "busy").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
        else:
            assert process.stdout.readline() == "idle\n"
        assert not gone(pid)
        process.kill()
        while not gone(pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_alarm_alone_ends_an_orphan_that_is_stuck(command: list[str]) -> None:
    """Where the kernel cannot tie a child to its parent, and nobody reads its answers."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    with process:
        assert process.stdin
        process.stdin.write(b'{"id": 0, "op": "identify", "text": "HANG", "timeout": 0.3}\n')
        process.stdin.close()
        assert process.wait(30) == -signal.SIGALRM


def test_child_by_hand() -> None:
    lines = b'{"id": 7, "op": "canonical", "text": "OCC"}\n{"id": 8, "op": "canonical", "text": "?"}\n'
    command = [sys.executable, "-m", "watcher.chemistry_child"]
    done = subprocess.run(command, input=lines, capture_output=True, timeout=60, check=True)
    assert done.stdout == b'{"id":7,"result":"CCO"}\n{"id":8,"result":null}\n'
    assert done.stderr == b""
