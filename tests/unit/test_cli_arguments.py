"""The command line without services: help, versions, wrong arguments, exit codes, and what importing it costs."""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster
from typer.testing import CliRunner

import watcher
from watcher.cli import app

HEAVY = (
    "rdkit", "alembic", "sqlalchemy", "aiohttp", "apscheduler", "rich", "pydantic", "prometheus_client"
)  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blockbuster: BlockBuster) -> Iterator[None]:
    """An empty folder; what commands do to the logs of the process is undone."""
    blockbuster.deactivate()  # a command may import within its loop: nothing else runs there yet
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def call(*arguments: str, exit_code: int = 0) -> str:
    """Return what a command says; errors apart from results."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == exit_code, result.output
    assert isinstance(result.exception, SystemExit | None)
    if exit_code:
        assert not result.stdout
        return result.stderr
    assert not result.stderr
    return result.stdout


def test_help_names_every_command() -> None:
    said = call("--help")
    for command in ("demo", "run", "once", "plan", "check", "status", "export", "retry", "approve", "batches", "db",
                    "config", "notify", "sandbox"):  # fmt: skip
        assert f"\n  {command} " in said
        assert "Usage: " in call(command, "-h")


def test_version() -> None:
    assert call("--version") == f"watcher {watcher.__version__}\n"


def test_importing_the_command_line_costs_nothing_heavy() -> None:
    code = "import sys, watcher.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()
    assert not set(HEAVY) & set(loaded)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "No such command"),
        (["once", "--nope"], "No such option"),
        (["once", "--timeout", "soon"], "--timeout"),
        (["once", "--timeout", "0s"], "--timeout"),
        (["export", "--format", "xlsx"], "--format"),
        (["approve"], "name a target, or --profile"),
        (["approve", "Mpro", "--profile"], "one of the two"),
        (["batches", "show", "first"], "ID"),
        (["batches", "list", "--state", "paid"], "must be one of"),
        (["batches", "adopt", "1"], "REMOTE_ID"),
        (["sandbox", "--ports", "1"], "two ports"),
        (["sandbox", "--ports", "1,99999"], "two ports"),
        (["--config", "missing.toml", "status"], "missing.toml"),
    ],
)
def test_what_cannot_be_is_exit_code_2(arguments: list[str], words: str) -> None:
    assert words in call(*arguments, exit_code=2)
    assert not list(Path().iterdir())


@pytest.mark.parametrize("command", ["run", "once", "plan", "check", "status", "export", "retry", "config show"])
def test_wrong_settings_stop_every_command(command: str) -> None:
    Path("config.toml").write_text("[limits]\ncompounds_per_day = -1\n[nope]\nx = 1\n", encoding="utf-8")
    said = call(*command.split(), exit_code=2)
    assert "limits.compounds_per_day = -1" in said
    assert "unknown setting `nope`" in said
    assert [path.name for path in Path().iterdir()] == ["config.toml"]


def test_without_a_record() -> None:
    assert "there is no record" in call("status")
    document = json.loads(call("status", "--json"))
    assert (document["schema_version"], document["last_scan_at"], document["needs_attention"]) == (None, None, [])
    assert all(document[name] == {} for name in ("targets", "uploads", "batches", "claims"))
    for command in ("export", "retry", "approve --profile", "batches list", "batches release 1", "db check"):
        assert "there is no record at watcher.db" in call(*command.split(), exit_code=1)
    assert not list(Path().iterdir())


def test_an_example_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "config.toml is written" in call("config", "init")
    assert Path("config.toml").stat().st_mode & 0o777 == 0o600
    assert "is there already" in call("config", "init", exit_code=2)
    assert "cannot be written" in call("config", "init", "missing/config.toml", exit_code=1)
    assert call("config", "init", "-") == Path("config.toml").read_text(encoding="utf-8")
    monkeypatch.setenv("WATCHER_MOLECULE_ONE__TOKEN", "t0p-s3cret-opensesame")
    shown = call("config", "show")
    assert shown.startswith("# from config.toml and the environment\n")
    assert 'token = "***"' in shown
    assert "opensesame" not in shown


def test_a_demo_never_takes_the_place_of_anything_else() -> None:
    Path("mine").mkdir()
    Path("mine", "thesis.txt").write_text("precious", encoding="utf-8")
    assert "no earlier demo" in call("demo", "--directory", "mine", exit_code=2)
    assert "cannot be used" in call("demo", "--directory", "mine/thesis.txt", exit_code=1)
    assert "question mark" in call("demo", "--directory", "what?", exit_code=2)
    assert [path.name for path in Path().iterdir()] == ["mine"]
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.txt"]
