"""The unit file, as Debian's systemd reads it."""

import json
import re
import shutil
import subprocess
import sys
from ctypes.util import find_library
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.process import COMMAND, environment
from tests.tools.make_reference import ROOT
from watcher.daemon import MANAGER_RESERVE
from watcher.settings import Settings, parse_duration
from watcher.settings_source import load

UNIT = ROOT / "deploy" / "systemd" / "fragalysis-watcher.service"
DROP_IN = UNIT.with_name("fragalysis-token.conf")
THRESHOLD = 20
"""Ten times the exposure that is allowed."""

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def analyze(*arguments: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def entries(file: Path, name: str) -> list[str]:
    """The values of a key that may come more than once."""
    return re.findall(rf"^{name}=(.*)$", file.read_text(), re.MULTILINE)


def only(file: Path, name: str) -> str:
    (value,) = entries(file, name)
    return value


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit with its drop-in, and a command that is there."""
    unit = tmp_path / UNIT.name
    text = UNIT.read_text().replace("/opt/fragalysis-watcher/bin/watcher", sys.executable)
    assert text != UNIT.read_text()
    unit.write_text(text)
    drop_ins = tmp_path / f"{UNIT.name}.d"
    drop_ins.mkdir()
    shutil.copy(DROP_IN, drop_ins)
    return unit


@needs_systemd
def test_it_verifies(installed: Path) -> None:
    assert analyze("verify", "--man=no", str(installed)) == ""


@needs_systemd
def test_it_is_confined(installed: Path) -> None:
    analyze("security", "--offline=true", f"--threshold={THRESHOLD}", str(installed))


def test_its_command_and_tokens_are_ours(tmp_path: Path) -> None:
    program, option, _, command = only(UNIT, "ExecStart").split()
    assert (Path(program).name, option, command) == ("watcher", "--config", "run")
    for file, service in ((UNIT, "molecule_one"), (DROP_IN, "fragalysis")):
        credential = only(file, "LoadCredential").partition(":")[0]
        name, _, place = only(file, "Environment").partition("=")
        assert place == f"%d/{credential}"
        (tmp_path / credential).write_text("opensesame\n")
        settings = load(environ={"WATCHER_CONFIG": "/dev/null", name: place.replace("%d", str(tmp_path))})
        assert getattr(settings, service).token.get_secret_value() == "opensesame"


def test_its_times_fit_the_daemon() -> None:
    settings = Settings()
    times = {name: parse_duration(only(UNIT, name).replace("min", "m"))
             for name in ("TimeoutStopSec", "WatchdogSec")}  # fmt: skip
    assert times["TimeoutStopSec"] >= settings.daemon.shutdown_timeout + MANAGER_RESERVE
    # a database that is slow, or starts again, is not the daemon's end
    assert times["WatchdogSec"] >= 3 * settings.database.timeout + timedelta(minutes=1)
    assert only(UNIT, "RestartPreventExitStatus") == "2"


@pytest.mark.slow
@needs_systemd
@pytest.mark.skipif(find_library("seccomp") is None, reason="libseccomp is not installed")
def test_the_whole_job_runs_with_the_calls_that_it_allows(tmp_path: Path) -> None:
    """The demo: both services' clients, the record, the archives and the chemistry in its own process."""
    allowed: set[str] = set()
    for line in entries(UNIT, "SystemCallFilter"):
        named = {call for group in line.lstrip("~").split() for call in calls(group)}
        allowed = allowed - named if line.startswith("~") else allowed | named
    assert "setpriority" in allowed
    assert "chown" not in allowed
    confine = [sys.executable, str(ROOT / "tests/support/confine.py"), ",".join(sorted(allowed))]
    refused = [*confine, sys.executable, "-c", "import os; os.chown('.', 0, 0)"]
    assert subprocess.run(refused, cwd=tmp_path, capture_output=True, timeout=60, check=False).returncode == 1
    done = subprocess.run(
        [*confine, *COMMAND, "demo"], cwd=tmp_path, env=environment(), capture_output=True, encoding="utf-8",
        timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none bought twice" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "watcher-demo" / "demo.log").read_text().splitlines()]
    assert not [line for line in lines if line["level"] in ("error", "critical")]


def calls(group: str) -> set[str]:
    """The system calls of a group, with those of the groups in it."""
    if not group.startswith("@"):
        return {group}
    listed = analyze("syscall-filter", group).splitlines()[1:]
    names = [line.strip() for line in listed if line.strip() and not line.strip().startswith("#")]
    return {call for name in names for call in calls(name)}
