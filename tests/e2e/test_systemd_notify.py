"""The installed daemon as systemd starts it, and as a container's health check asks it."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.process import COMMAND, Served, Workplace, environment, eventually
from watcher.cli import app

TARGET = ("A71EV2A", "lb32627-66")
WATCHDOG_USEC = 400_000
HEAVY = ("pydantic_settings", "aiohttp", "sqlalchemy", "apscheduler", "watcher.settings_source")


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Manager:
    """Keeps what it hears, with the fields of each word."""

    def __init__(self, listening: socket.socket) -> None:
        self.words: list[dict[str, str]] = []
        self._socket = listening

    def listen(self) -> None:
        while word := self._socket.recv(65536).decode():
            self.words.append(dict(line.split("=", 1) for line in word.split("\n")))

    def heard(self, field: str) -> list[str]:
        return [word[field] for word in self.words if field in word]


@contextmanager
def listening(place: Path) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(place))
        manager = Manager(bound)
        thread = threading.Thread(target=manager.listen)
        thread.start()
        try:
            yield manager
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"", str(place))
            thread.join()


def test_from_ready_to_stopping(
    workplace: Workplace, served: Served, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.set("fragalysis", targets=[TARGET[0]])
    workplace.set("server", listen=f"0.0.0.0:{port}", token="open-sesame")  # `health` asks at loopback
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", str(WATCHDOG_USEC))
    with listening(tmp_path / "notify") as manager:
        with workplace.running("run") as daemon:
            eventually(lambda: manager.heard("READY") or daemon._is_over("READY"))
            monkeypatch.delenv("NOTIFY_SOCKET")
            monkeypatch.delenv("WATCHDOG_USEC")
            assert manager.words[0]["STATUS"] == "starting"
            assert int(manager.words[0]["EXTEND_TIMEOUT_USEC"]) > 0
            ready = next(word for word in manager.words if "READY" in word)

            # what it does, as it changes, and that it lives
            assert "followed" in ready["STATUS"]
            eventually(lambda: any(one.startswith("1 target followed, ") for one in manager.heard("STATUS")))
            before = len(manager.heard("WATCHDOG"))
            eventually(lambda: len(manager.heard("WATCHDOG")) > before + 2)
            told = [status for status in manager.heard("STATUS") if status != "starting"]
            assert all(one != other for one, other in pairwise(told))

            _is_well(workplace)
            _port_is_taken(workplace, served, port, tmp_path / "other")
            assert not any("watchdog_not_fed" in line for line in daemon.stderr)
            assert daemon.stop() == 0
        assert manager.heard("STOPPING") == ["1"]
        assert manager.words[-1]["STATUS"] == "stopping"
        assert int(manager.words[-1]["EXTEND_TIMEOUT_USEC"]) > 8_000_000


def _is_well(workplace: Workplace) -> None:
    """`watcher health` says so, and loads nothing heavy for it."""
    call = [COMMAND[0], "-X", "importtime", *COMMAND[1:], "health"]
    done = subprocess.run(
        call, cwd=workplace.folder, env=environment(), capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive\n")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "watcher.cli.health" in loaded
    assert loaded.isdisjoint(HEAVY)
    here = partial(CliRunner().invoke, app, ["--config", str(workplace.folder / "config.toml"), "health", "--ready"])
    assert (here().exit_code, here().stdout) == (0, "ready\n")
    refused = here(env={"WATCHER_SERVER__TOKEN": "another"})
    assert refused.exit_code == 1
    assert "does not know this server.token" in refused.stderr


def _port_is_taken(workplace: Workplace, served: Served, port: int, folder: Path) -> None:
    """A second daemon, on a record of its own, says which port it cannot have."""
    folder.mkdir()
    second = Workplace(folder, served)
    second.set("server", listen=f"127.0.0.1:{port}")
    done = second.call("run", exit_code=1)
    assert f"server.listen = '127.0.0.1:{port}' cannot be listened on" in done.stderr
    assert "in use" in done.stderr
