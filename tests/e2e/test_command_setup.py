"""Settings, `check`, the demo, the sandbox and the record by hand."""

import json
import signal
import sqlite3

import pytest

from tests.support.network import closed_port
from tests.support.process import Served, Workplace
from watcher.sandbox import Fault

SECRET = "t0p-s3cret-opensesame"


def test_all_is_well(desk: Workplace, served: Served) -> None:
    done = desk.call("check")
    assert "anonymous" in done.stdout
    assert {one["subject"]: one["ok"] for one in desk.json("check")} == dict.fromkeys(
        ("settings", "database", "disk", "fragalysis", "molecule_one", "notify"), True
    )
    assert served.posts == 0
    assert [path.name for path in desk.folder.iterdir()] == ["config.toml"]
    desk.set("fragalysis", token=served.sandbox.fragalysis.session_token)
    desk.set("molecule_one", api_version="v2")
    assert "signed in as" in desk.call("check").stdout


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("fragalysis", {"stack": "http://127.0.0.1:{port}"}, "look at the network"),
        ("fragalysis", {"stack": "{molecule_one}"}, "look at fragalysis.stack"),
        ("fragalysis", {"token": SECRET}, "sessionid"),
        ("molecule_one", {"base_url": "http://127.0.0.1:{port}"}, "look at the network"),
        ("molecule_one", {"base_url": "{fragalysis}"}, "look at molecule_one.base_url"),
        ("molecule_one", {"token": SECRET}, "Check the token"),
        ("molecule_one", {"token": ""}, "set molecule_one.token"),
        ("database", {"url": "sqlite+aiosqlite:///config.toml/watcher.db"}, "set database.url"),
        ("download", {"enabled": True, "directory": "config.toml/downloads"}, "set download.directory"),
    ],
)
def test_check_tells_each_fault(
    desk: Workplace, served: Served, section: str, values: dict[str, str | bool], words: str
) -> None:
    places = {"molecule_one": served.sandbox.molecule_one.url, "fragalysis": served.sandbox.fragalysis.url}
    with closed_port() as port:
        filled = {
            key: value.format(port=port, **places) if isinstance(value, str) else value for key, value in values.items()
        }
        desk.set(section, **filled)
        done = desk.call("check", exit_code=1)
    (line,) = [number for number, text in enumerate(done.stdout.splitlines()) if "NOT OK" in text]
    assert words in done.stdout.splitlines()[line + 1]
    assert SECRET not in done.stdout + done.stderr


def test_check_without_a_listing(desk: Workplace, served: Served) -> None:
    served.do(lambda sandbox: setattr(sandbox.molecule_one.listing, "form", "missing"))
    assert "has no list of batches" in desk.call("check").stdout


def test_secrets_are_never_shown(workplace: Workplace, served: Served) -> None:
    workplace.set("molecule_one", token=SECRET)
    workplace.set("fragalysis", token=SECRET, targets=["ZIKV*"])
    workplace.set("server", token=SECRET)
    workplace.set("log", level="debug")
    echo = Fault("molecule_one", "status", status=400, body={"message": f"what is {SECRET}?"}, times=None)
    served.do(lambda sandbox: sandbox.add_fault(echo))
    for arguments in (["config", "show"], ["check"], ["once", "--timeout", "2s"], ["status"]):
        done = workplace.call(*arguments, exit_code=None)
        assert SECRET not in done.stdout + done.stderr, arguments
    assert SECRET.encode() not in workplace.record.read_bytes()


def test_which_settings_count(desk: Workplace) -> None:
    assert "missing.toml" in desk.call("--config", "missing.toml", "config", "show", exit_code=2).stderr
    (desk.folder / "other.toml").write_text("[limits]\ncompounds_per_day = 7\n", encoding="utf-8")
    for arguments, env in ((["--config", "other.toml"], {}), ([], {"WATCHER_CONFIG": "other.toml"})):
        assert "compounds_per_day = 7" in desk.call(*arguments, "config", "show", env=env).stdout
    (desk.folder / "wrong.toml").write_text("[limits]\ncompounds_per_dya = 7\n", encoding="utf-8")
    wrong = desk.call("--config", "wrong.toml", "once", exit_code=2)
    assert "did you mean `limits.compounds_per_day`" in wrong.stderr
    assert not desk.record.exists()


def test_the_record_by_hand(desk: Workplace) -> None:
    for arguments in (["db", "check"], ["db", "backup", "copy.db"], ["retry"], ["approve", "--profile"]):
        assert "there is no record" in desk.call(*arguments, exit_code=1).stderr
    assert "there is no record" in desk.call("status").stdout
    assert desk.json("status")["schema_version"] is None
    desk.call("db", "upgrade")
    assert "already" in desk.call("db", "upgrade").stdout
    desk.call("db", "check")
    desk.call("db", "backup", "copy.db")
    desk.call("db", "backup", "copy.db", exit_code=2)
    assert (desk.folder / "copy.db").stat().st_mode & 0o777 == 0o600

    with sqlite3.connect(desk.record) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    for arguments in (["once"], ["status"], ["plan"], ["export"], ["db", "check"], ["db", "upgrade"]):
        assert "9999" in desk.call(*arguments, exit_code=1).stderr


def test_the_demo(workplace: Workplace, served: Served) -> None:
    done = workplace.call("demo", env={"WATCHER_LIMITS__COMPOUNDS_PER_DAY": "1"})
    assert "Bought: 7 compounds, the new ones alone." in done.stdout
    assert "none bought twice" in done.stdout
    assert "commercially available" in done.stdout
    assert not done.stderr
    folder = workplace.folder / "watcher-demo"
    assert {path.name for path in folder.iterdir()} >= {
        "config.toml", "watcher.db", "downloads", "scores.csv", "demo.log"
    }  # fmt: skip
    assert all(json.loads(line) for line in (folder / "demo.log").read_text(encoding="utf-8").splitlines())
    config = str(folder / "config.toml")
    assert workplace.call("--config", config, "export").stdout == (folder / "scores.csv").read_text(encoding="utf-8")
    assert not served.purchases  # its own servers were used, and its own settings


@pytest.mark.slow
@pytest.mark.parametrize(("age", "version"), [("2024", "v1"), ("2026", "v2")])
def test_the_demo_in_every_form_and_again(workplace: Workplace, age: str, version: str) -> None:
    for _ in range(2):
        done = workplace.call("demo", "--directory", "shown", "--age", age, "--api-version", version)
        assert "Bought: 7 compounds, the new ones alone." in done.stdout


def test_the_sandbox_in_the_foreground(workplace: Workplace) -> None:
    with workplace.running("sandbox", "--ports", "0,0", "--json") as sandbox:
        sandbox.said("}")
        printed = json.loads("".join(sandbox.stdout))
        workplace.set("fragalysis", stack=printed["fragalysis"]["url"], token=printed["fragalysis"]["token"])
        workplace.set("molecule_one", base_url=printed["molecule_one"]["url"], token=printed["molecule_one"]["token"])
        workplace.call("check")
        assert sandbox.stop(signal.SIGINT) == 0
    with workplace.running("sandbox", "--ports", "0,0") as sandbox:
        sandbox.said("Ctrl-C ends it")
        text = "".join(sandbox.stdout)
        assert "[molecule_one]" in text
        assert "/sandbox/publish" in text
        assert sandbox.stop(signal.SIGTERM) == 0
