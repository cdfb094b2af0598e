"""`targets`, `uploads`, `history`, the details of `status`, what the start says of the settings, and completion."""

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import COMMAND, Done, Workplace, environment
from watcher import __version__


def test_looking_changes_nothing_and_says_everything(desk: Workplace) -> None:
    for arguments in (["targets"], ["uploads"], ["history", "A71EV2A"]):
        assert "no record" in desk.call(*arguments, exit_code=1).stderr
    desk.set("fragalysis", targets=["A71EV2A"])
    desk.set("log", format="json")
    done = desk.call("once")
    (line,) = [one for one in map(json.loads, done.stderr.splitlines()) if one["event"] == "settings_in_force"]
    assert (line["version"], line["schema"], line["targets"]) == (__version__, "0001", ["A71EV2A"])
    assert line["fragalysis"] == desk.settings["fragalysis"]["stack"]
    assert (line["buys"], line["notify"], line["downloads"], line["scan"]) == (True, 0, None, "every 15m")
    assert desk.settings["molecule_one"]["token"] not in done.stderr

    before = desk.record.read_bytes()
    (target,) = desk.json("targets")
    assert (target["target"], target["remote_index"], target["recorded_index"]) == ("A71EV2A", 2, 2)
    assert (target["archive"], target["scoring"], target["next_try_at"]) == ("skipped", "scored", None)
    assert desk.json("status")["targets_detail"] == [target]
    for command in ("targets", "status"):
        (row,) = [one for one in desk.call(command).stdout.splitlines() if one.startswith("A71EV2A")]
        assert row.split()[:6] == ["A71EV2A", "lb32627-66", "2", "2", "skipped", "scored"]
    uploads = desk.json("uploads", "--target", "A71EV2A@lb32627-66")
    assert [(one["upload_index"], one["counts_now"]) for one in uploads] == [(1, False), (2, True)]
    assert "history" in desk.call("uploads").stdout
    assert "no target Nobody" in desk.call("uploads", "--target", "Nobody", exit_code=2).stderr
    story = desk.call("history", "A71EV2A").stdout.splitlines()
    assert story[0] == "A71EV2A@lb32627-66"
    assert story[1].endswith("first seen")
    assert any("has its results in the record" in one for one in story)
    told = desk.json("history", "A71EV2A")
    assert [f"{one['at'][:10]}" for one in told] == [one[:10] for one in story[1:]]
    assert desk.record.read_bytes() == before


def complete(folder: Path, words: str, shell: str = "bash") -> Done:
    """Ask the installed command what could come next, the way a shell does."""
    bash = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    others = {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    asked = {"_WATCHER_COMPLETE": f"complete_{shell}", **(bash if shell == "bash" else others)}
    done = subprocess.run(
        [Path(sys.executable).with_name("watcher")], cwd=folder, env=environment(asked), capture_output=True,
        encoding="utf-8", timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def known(desk: Workplace) -> Path:
    """A folder with a record that knows some targets."""
    desk.call("db", "upgrade")
    add = "INSERT INTO target (stack, remote_id, name, target_access_string, followed, listed, first_seen_at) VALUES"
    with sqlite3.connect(desk.record) as connection:
        for number, (name, tas) in enumerate([("Mpro", "lb1-1"), ("Mpro", "lb2-1"), ("Mac", "lb1-1"), ("Zika", "x")]):
            connection.execute(f"{add} ('s', {number}, '{name}', '{tas}', 1, 1, '2026-01-01')")
    connection.close()
    return desk.folder


def test_completion_of_targets(known: Path) -> None:
    done = complete(known, "watcher history M")
    assert (done.stdout.split(), done.stderr) == (["Mac", "Mpro@lb1-1", "Mpro@lb2-1"], "")
    (known / "config.toml").write_text("[nonsense]\n", encoding="utf-8")
    done = complete(known, "watcher history M")
    assert (done.stdout.strip(), done.stderr) == ("", ""), "a person is typing"


@pytest.mark.slow
def test_completion_everywhere(known: Path) -> None:
    assert complete(known, "watcher hist").stdout.split() == ["history"]
    for command in ("uploads --target", "export --target", "retry --target", "approve"):
        assert "Mpro@lb1-1" in complete(known, f"watcher {command} Mp").stdout, command
    for shell in ("zsh", "fish"):
        assert "Mpro@lb1-1" in complete(known, "watcher history Mp", shell).stdout


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(tmp_path: Path, shell: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("watcher")], cwd=tmp_path,
        env=environment({"_WATCHER_COMPLETE": f"source_{shell}"}), capture_output=True, encoding="utf-8", timeout=60,
        check=False,
    )  # fmt: skip
    assert "_WATCHER_COMPLETE" in done.stdout
    assert "watcher" in done.stdout
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=done.stdout, encoding="utf-8", check=True, timeout=30)


def test_the_variable_of_completion_is_no_setting(desk: Workplace) -> None:
    done = subprocess.run(
        [*COMMAND, "config", "show"], cwd=desk.folder, env=environment({"_WATCHER_COMPLETE": ""}),
        capture_output=True, encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
