"""Commands that `tests/support/launch.py` started."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import cast

from tests.support.process import Process, environment

LAUNCH = Path(__file__).parents[1] / "support" / "launch.py"


class Started:
    """What `subprocess.Popen` is to a process that somebody else forked."""

    def __init__(self, watched: Connection, stdout: int, stderr: int) -> None:
        self._watched = watched
        self.pid: int = watched.recv()
        self.returncode: int | None = None
        self.stdout = os.fdopen(stdout, encoding="utf-8")
        self.stderr = os.fdopen(stderr, encoding="utf-8")

    def poll(self, timeout: float = 0) -> int | None:
        """Return the exit code if it ends within the time."""
        if self.returncode is None and self._watched.poll(timeout):
            self.returncode = self._watched.recv()
            self._watched.close()
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Return the exit code."""
        code = self.poll(timeout)
        assert code is not None, "it did not end"
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal if it has not ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


class Launched(Process):
    """A command that the launcher started."""

    def __init__(self, started: Started) -> None:
        self._follow(cast("subprocess.Popen[str]", started))

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._popen.poll() is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._popen.send_signal(number)


class Launcher:
    """The launcher, started when it is first asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def _socket(self) -> socket.socket:
        with self._lock:
            if self._running is None:
                own, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with its:
                    popen = subprocess.Popen([sys.executable, "-P", str(LAUNCH)], stdin=its.fileno(), env=environment())
                self._running = popen, own
            return self._running[1]

    def start(self, folder: Path, arguments: Sequence[str]) -> Launched:
        """Start a command in a folder."""
        (stdout, its_stdout), (stderr, its_stderr), (watched, its_watched) = os.pipe(), os.pipe(), Pipe(duplex=False)
        handles = [its_stdout, its_stderr, its_watched.fileno()]
        socket.send_fds(self._socket(), [json.dumps([str(folder), *arguments]).encode()], handles)
        os.close(its_stdout)
        os.close(its_stderr)
        its_watched.close()
        return Launched(Started(watched, stdout, stderr))

    def end(self) -> None:
        """End it; what it started goes on."""
        if self._running is not None:
            popen, own = self._running
            own.close()
            popen.wait()
            self._running = None


LAUNCHER = Launcher()
