"""What the service manager hears, and that nobody waits for it."""

import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from watcher.systemd import ServiceManager


class Listener:
    """A service manager's socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """The words since the last time, each as it came."""
        words = []
        while True:
            try:
                words.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return words


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def listener(place: str) -> Iterator[Listener]:
    listener = Listener(place)
    yield listener
    listener.socket.close()


def test_it_hears_what_it_is_told(listener: Listener, place: str) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": place})
    manager.tell(READY=1, STATUS="two\nlines, and a\ttab")
    manager.tell(WATCHDOG=1)
    manager.close()
    manager.tell(WATCHDOG=1)
    assert listener.heard() == ["READY=1\nSTATUS=two lines, and a tab", "WATCHDOG=1"]


def test_an_abstract_address() -> None:
    name = f"watcher-test-{os.getpid()}"
    listener = Listener(f"\0{name}")
    manager = ServiceManager({"NOTIFY_SOCKET": f"@{name}"})
    manager.tell(READY=1)
    assert listener.heard() == ["READY=1"]
    manager.close()
    listener.socket.close()


def test_no_child_speaks_in_our_name(place: str) -> None:
    environ = {"NOTIFY_SOCKET": place, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid()), "PATH": "/bin"}
    manager = ServiceManager(environ)
    assert environ == {"PATH": "/bin"}
    assert manager.watchdog == timedelta(seconds=1)
    manager.close()


@pytest.mark.parametrize(("period", "pid"), [("", ""), ("0", ""), ("-1", ""), ("soon", ""), ("1000000", "1")], ids=str)
def test_nobody_watches(place: str, period: str, pid: str) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": place, "WATCHDOG_USEC": period, "WATCHDOG_PID": pid})
    assert manager.listens
    assert manager.watchdog is None
    manager.close()


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "1000000"}, {"NOTIFY_SOCKET": "vsock:2:1"}], ids=str)
def test_nobody_listens(environ: dict[str, str]) -> None:
    manager = ServiceManager(environ)
    manager.tell(READY=1)
    assert not manager.listens
    assert manager.watchdog is None
    manager.close()


def test_a_socket_that_is_not_there_yet_hears_later_what_still_holds(place: str) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": place})
    manager.tell(READY=1, STATUS="first", WATCHDOG=1)
    listener = Listener(place)
    manager.tell(STATUS="second")
    assert listener.heard() == ["READY=1\nSTATUS=second"]
    listener.socket.close()
    manager.close()


def test_a_socket_that_nobody_reads_is_not_waited_for(listener: Listener, place: str) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": place})
    for _ in range(2000):  # far more than any queue holds
        manager.tell(WATCHDOG=1)
    manager.tell(STOPPING=1)
    assert 0 < len(words := listener.heard()) < 2000
    assert set(words) == {"WATCHDOG=1"}
    manager.tell(STATUS="stopping")
    assert listener.heard() == ["STOPPING=1\nSTATUS=stopping"]
    manager.close()
