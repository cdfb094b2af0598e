"""Starts commands, each in a process of its own, with a signal waiting for it at a point of `watcher.points`.

python -P tests/support/launch.py, which then is told by a socket what to start: [FOLDER,
[--at NAME[:nth] --signal KILL|TERM | --tell NAME] [--checkpoints] [--migrations FOLDER] -- run]

Nothing else arms a point. With `--tell` it says each time that one is reached, and sends nothing. With `--checkpoints`
SQLite empties its log at every commit, so that a kill often meets it; with `--migrations` the program is a newer one,
which knows the revision 0002 of that folder.

The commands are forked from this process, which has imported the program and done nothing else: importing it takes more
time than most of them live.
"""

import argparse
import gc
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sqlalchemy import event
from sqlalchemy.pool import Pool

from watcher import points
from watcher.chemistry_process import Chemistry
from watcher.cli import main as command

REACHED = "launch: reached"
LIGHT_CHEMISTRY = Path(__file__).with_name("light_chemistry.py")
IMPORTED = (
    "watcher.daemon",
    "aiosqlite",
    "apscheduler.executors.asyncio",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
)
"""What the daemon imports at its start."""


class Armed:
    """Sends a signal to its own process when a point is reached for the n-th time."""

    def __init__(self, name: str, nth: int, number: signal.Signals) -> None:
        if name not in points.POINTS:
            raise SystemExit(f"there is no point {name}")
        self._name = name
        self._left = nth
        self._signal = number
        self._lock = threading.Lock()

    def __call__(self, name: str) -> None:
        if name != self._name:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.write(2, f"{REACHED} {name}\n".encode())
                os.kill(os.getpid(), self._signal)


def tell(reached: str, name: str) -> None:
    """Say that a point is reached if it is the one that is asked for."""
    if reached == name:
        os.write(2, f"{REACHED} {name}\n".encode())


def checkpoint_always(connection: Any, _: object) -> None:
    """Let a commit that leaves anything in the log move it into the record at once."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA wal_autocheckpoint=1")
    cursor.close()


def know_more(folder: Path) -> None:
    """Be the program that wrote these migrations."""
    from watcher.store import migrate

    migrate.HEAD = "0002"
    migrate.migrations_directory = lambda: folder


def launch(arguments: Sequence[str]) -> None:
    """Arm what is asked for, and give way to the command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--at")
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    parser.add_argument("--tell", choices=points.POINTS)
    parser.add_argument("--checkpoints", action="store_true")
    parser.add_argument("--migrations", type=Path)
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args(arguments)
    if asked.at:
        name, _, nth = asked.at.partition(":")
        points.hook = Armed(name, int(nth or 1), signal.Signals[f"SIG{asked.signal}"])
    if asked.tell:
        points.hook = partial(tell, name=asked.tell)
    if asked.checkpoints:
        event.listen(Pool, "connect", checkpoint_always)
    if asked.migrations:
        know_more(asked.migrations)
    sys.argv = ["watcher", *asked.command]
    command()


def main() -> None:
    """Start what is asked for, until nobody asks any more."""
    for name in IMPORTED:
        import_module(name)
    patch("watcher.program.Chemistry", partial(Chemistry, command=(sys.executable, "-P", str(LIGHT_CHEMISTRY)))).start()
    assert len([*Path("/proc/self/task").iterdir()]) == 1, "no other thread may be at work when a process is forked"
    gc.freeze()  # a collection would write to every page that the commands share
    asking = socket.socket(fileno=os.dup(0))
    while True:
        message, handles, _, _ = socket.recv_fds(asking, 65536, 3)
        _let_go(wait=not message)
        if not message:
            return
        if os.fork() == 0:
            asking.close()
            _watch(json.loads(message), *handles)
            return
        for handle in handles:
            os.close(handle)


def _let_go(*, wait: bool) -> None:
    """Let go of those that watch commands, and have seen their ends."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, 0 if wait else os.WNOHANG)[0]:
            pass


def _watch(asked: Sequence[str], stdout: int, stderr: int, watched: int) -> None:
    """Start one command, tell its number, and its exit code once it has ended; returns in its process only."""
    folder, *arguments = asked
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for handle, place in ((nothing, 0), (stdout, 1), (stderr, 2)):
            os.dup2(handle, place)
            os.close(handle)
        os.close(watched)
        launch(arguments)
        return
    os.close(stdout)
    os.close(stderr)
    teller = Connection(watched, readable=False)
    teller.send(child)
    teller.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)


if __name__ == "__main__":
    main()
