"""The installed command as a process, and a sandbox that serves it from a thread of the test's own process."""

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from typer.testing import CliRunner

from watcher.cli import app
from watcher.sandbox import Sandbox

T = TypeVar("T")
COMMAND = (sys.executable, "-m", "watcher")
DEADLINE = 60.0


class Served:
    """A sandbox in a thread with a loop of its own; whatever touches it is done there."""

    def __init__(self, **options: Any) -> None:
        self.sandbox = Sandbox(**options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sandbox")

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait(self.sandbox.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self.sandbox.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)
        self._loop.close()

    def do(self, action: Callable[[Sandbox], T]) -> T:
        """Do something to the sandbox."""

        async def there() -> T:
            return action(self.sandbox)

        return self._wait(there())

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE)

    @property
    def purchases(self) -> Mapping[str, int]:
        """How often each SMILES was bought."""
        return self.do(lambda sandbox: dict(sandbox.molecule_one.ledger.purchases))

    @property
    def downloads(self) -> int:
        """How many builds were asked for."""
        posts = self.do(lambda sandbox: list(sandbox.fragalysis.requests))
        return sum(method == "POST" and path.startswith("/api/download_structures/") for method, path in posts)

    @property
    def posts(self) -> int:
        """How many requests could have changed something."""
        requests = self.do(lambda sandbox: [*sandbox.fragalysis.requests, *sandbox.molecule_one.requests])
        return sum(method != "GET" for method, _ in requests)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str


def _call(folder: Path, arguments: Sequence[str], env: Mapping[str, str]) -> Done:
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=DEADLINE,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def _call_here(folder: Path, arguments: Sequence[str], env: Mapping[str, str]) -> Done:
    with chdir(folder):
        result = CliRunner().invoke(app, [*arguments], env=dict(env))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


class Workplace:
    """A folder with settings for a sandbox, from which commands are called.

    With `in_process` they are called in this process, which saves the time of starting one.
    """

    def __init__(self, folder: Path, served: Served, *, in_process: bool = False) -> None:
        self.folder = folder
        self._in_process = in_process
        self.settings: dict[str, dict[str, Any]] = {
            "fragalysis": {"stack": served.sandbox.fragalysis.url, "requests_per_second": 100.0, "settle": "0s"},
            "download": {"enabled": False},
            "molecule_one": {
                "base_url": served.sandbox.molecule_one.url,
                "token": served.sandbox.molecule_one.token,
                "requests_per_second": 100.0,
                "poll_interval": "0.2s",
            },
            "http": {"trust_env": False},
            "server": {"listen": ""},
        }

    @property
    def record(self) -> Path:
        return self.folder / "watcher.db"

    def set(self, section: str, **values: Any) -> None:
        """Change some settings."""
        self.settings.setdefault(section, {}).update(values)

    def configure(self) -> None:
        """Write the settings."""
        lines = []
        for section, values in self.settings.items():
            lines += [f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
        (self.folder / "config.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def call(self, *arguments: str, exit_code: int | None = 0, env: Mapping[str, str] | None = None) -> "Done":
        """Call the command, and check its exit code (None: any)."""
        self.configure()
        call = _call_here if self._in_process else _call
        done = call(self.folder, arguments, env or {})
        assert exit_code in (None, done.exit_code), f"exit code {done.exit_code}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, exit_code: int = 0) -> Any:
        """Call the command with --json, and read what it prints."""
        return json.loads(self.call(*arguments, "--json", exit_code=exit_code).stdout)

    @contextmanager
    def running(self, *arguments: str) -> Iterator["Process"]:
        """Start the command; it is killed at the end if it still runs."""
        self.configure()
        process = Process([*COMMAND, *arguments], self.folder)
        try:
            yield process
        finally:
            process.end()


class Process:
    """A command that runs; its log is read as it comes."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._follow(
            subprocess.Popen(
                command,
                cwd=folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
        )

    def _follow(self, popen: "subprocess.Popen[str]") -> None:
        self._popen = popen
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._readers = [
            threading.Thread(target=_read, args=(stream, lines))
            for stream, lines in ((self._popen.stdout, self.stdout), (self._popen.stderr, self.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def said(self, words: str) -> None:
        """Return when a line of the log, or of the output, holds these words."""
        eventually(lambda: any(words in line for line in [*self.stderr, *self.stdout]) or self._is_over(words))

    def _is_over(self, words: str) -> bool:
        if self._popen.poll() is None:
            return False
        raise AssertionError(f"it ended with {self._popen.returncode} without {words!r}: {''.join(self.stderr)}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self._popen.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Return the exit code once it has ended."""
        code = self._popen.wait(DEADLINE)
        for reader in self._readers:
            reader.join(DEADLINE)
        return code

    def end(self) -> None:
        """Kill it if it still runs, and let go of its pipes."""
        if self._popen.poll() is None:
            self._popen.kill()
        self.wait()
        for stream in (self._popen.stdout, self._popen.stderr):
            assert stream is not None
            stream.close()


def _read(stream: Iterable[str] | None, lines: list[str]) -> None:
    for line in stream or ():
        lines.append(line)  # noqa: PERF402 - each line must be seen as soon as it comes


_CALLS = """
import json, os
from watcher.cli import app
for columns, arguments in json.load(open("calls.json")):
    os.environ["COLUMNS"] = str(columns)
    try:
        app(arguments)
    except SystemExit as ended:
        print(f"{chr(10)}ended with {ended.code}", flush=True)
"""


def shown_by(
    place: Workplace, calls: Sequence[tuple[int, Sequence[str]]], *, on_a_terminal: bool = False
) -> list[tuple[int, str]]:
    """Return the exit code of each command, and what it shows; each comes with the width of the terminal.

    All run in one process, which saves starting many.
    """
    place.configure()
    (place.folder / "calls.json").write_text(json.dumps(calls), encoding="utf-8")
    ours, theirs = pty.openpty() if on_a_terminal else os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", _CALLS],
        cwd=place.folder, env=environment({"TERM": "xterm"}), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    with suppress(OSError):  # what a terminal says at its end
        while piece := os.read(ours, 2**16):
            seen += piece
    os.close(ours)
    assert process.wait(DEADLINE) == 0, seen[-2000:]
    *pieces, _ = re.split(r"\r?\nended with (\d+)\r?\n", seen.decode("utf-8"))
    return list(zip(map(int, pieces[1::2]), pieces[::2], strict=True))


def eventually(condition: Callable[[], object]) -> None:
    """Return when the condition holds; fail when it never does."""
    give_up = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < give_up, "it never came true"
        time.sleep(0.05)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a command: without settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WATCHER_")}
    return {**kept, **(more or {})}
