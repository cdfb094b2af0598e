"""Starts the installed command with a signal waiting for it at a point of `watcher.points`.

python -P tests/support/launch.py --at NAME[:nth] --signal KILL|TERM [--checkpoints] [--migrations FOLDER] -- run

Nothing else arms a point. With `--checkpoints` SQLite empties its log at every commit, so that a kill often meets it;
with `--migrations` the program is a newer one, which knows the revision 0002 of that folder.
"""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.pool import Pool

from watcher import points

REACHED = "launch: reached"


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


def main() -> None:
    """Arm what is asked for, and give way to the command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--at")
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    parser.add_argument("--checkpoints", action="store_true")
    parser.add_argument("--migrations", type=Path)
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args()
    if asked.at:
        name, _, nth = asked.at.partition(":")
        points.hook = Armed(name, int(nth or 1), signal.Signals[f"SIG{asked.signal}"])
    if asked.checkpoints:
        event.listen(Pool, "connect", checkpoint_always)
    if asked.migrations:
        know_more(asked.migrations)
    sys.argv = ["watcher", *asked.command]
    from watcher.cli import main as command

    command()


if __name__ == "__main__":
    main()
