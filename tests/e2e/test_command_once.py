"""`watcher once`, as people call it: a pass, a pass with nothing new, one with more, one with less."""

import csv
import io
import json
import signal
from pathlib import Path

from tests.support.process import Served, Workplace, eventually
from watcher.chemistry import identify
from watcher.chemistry_records import Identity
from watcher.cli.output import in_words
from watcher.sandbox import Fault
from watcher.store.export import COLUMNS

NEW = ("A71EV2A", "lb32627-66")


def files(folder: Path) -> dict[str, bytes]:
    """Everything that a command must not change; the lock file names its last holder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("config.toml", "watcher.db.lock")
    }


def exported(workplace: Workplace, *arguments: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(workplace.call("export", *arguments).stdout)))


def test_everything_once_and_nothing_twice(workplace: Workplace, desk: Workplace, served: Served) -> None:
    desk.settings = workplace.settings
    workplace.set("download", enabled=True)
    workplace.set("fragalysis", targets=["A71EV2A", "ZIKV*"], max_concurrent_downloads=2)
    workplace.set("molecule_one", price_per_compound=1.5)

    first = workplace.call("once")
    bought = served.purchases
    assert set(bought.values()) == {1}
    assert f"{len(bought)} compounds in" in first.stdout
    assert "archives       2 stored" in first.stdout
    assert served.downloads == 2
    current = workplace.folder / "downloads" / "lb32627-66" / "A71EV2A" / "current"
    assert current.resolve().name == "2"
    assert (current / "files" / "metadata.csv").is_file()

    before = files(workplace.folder)
    plan = desk.json("plan")
    assert (plan["compounds"], plan["batches"], sum(target["download"] for target in plan["targets"])) == (0, 0, 0)
    assert files(workplace.folder) == before
    workplace.call("once")
    assert (served.purchases, served.downloads) == (bought, 2)

    served.do(lambda sandbox: sandbox.fragalysis.publish(*NEW))
    plan = desk.json("plan")
    (changed,) = [target for target in plan["targets"] if target["uploads_new"]]
    assert (changed["target"], changed["uploads_new"], changed["download"]) == ("A71EV2A", [3], True)
    assert plan["cost"] == plan["compounds"] * 1.5
    workplace.call("once")
    new = {smiles: times for smiles, times in served.purchases.items() if smiles not in bought}
    assert len(new) == plan["compounds"] > 0
    assert set(served.purchases.values()) == {1}
    assert served.downloads == 3
    assert current.resolve().name == "3"

    served.do(lambda sandbox: sandbox.fragalysis.withdraw(*NEW))
    everything = served.purchases
    workplace.call("once")
    assert (served.purchases, served.downloads) == (everything, 3)
    assert current.resolve().name == "2"
    assert {row["upload_index"] for row in exported(desk, "--target", "A71EV2A")} == {"2"}

    status = desk.json("status")
    assert set(status) >= {
        "targets", "uploads", "batches", "claims", "needs_attention", "last_scan_at", "schema_version"
    }  # fmt: skip
    assert status["needs_attention"] == []
    assert status["uploads"]["stored"] == 3
    assert all(isinstance(number, int) for kind in ("targets", "uploads", "batches", "claims")
               for number in status[kind].values())  # fmt: skip
    assert "A71EV2A" in desk.call("status").stdout
    desk.call("db", "check")
    (current.resolve() / "A71EV2A.tar.gz").write_bytes(b"damaged")
    assert "does not agree with its digest" in desk.call("db", "check", exit_code=1).stdout


def test_a_plan_needs_no_record_and_leaves_none(desk: Workplace, served: Served) -> None:
    plan = desk.json("plan")
    assert [path.name for path in desk.folder.iterdir()] == ["config.toml"]
    assert served.posts == 0
    assert plan["compounds"] > 0
    assert sum(sum(target["rejected"].values()) for target in plan["targets"]) > 0
    desk.set("limits", compounds_per_day=10)
    limited = desk.json("plan")
    assert (limited["compounds"], sum(limited["withheld"].values())) == (10, plan["compounds"] - 10)
    desk.set("limits", compounds_per_day=0)
    desk.call("once")
    assert len(served.purchases) == plan["compounds"]
    assert "It would send 0 compounds" in desk.call("plan").stdout


def test_export_in_both_forms(desk: Workplace) -> None:
    desk.call("export", exit_code=1)
    desk.call("once")
    text = desk.call("export").stdout
    assert text.splitlines()[0] == ",".join(COLUMNS)
    rows = exported(desk)
    objects = [json.loads(line) for line in desk.call("export", "--format", "jsonl").stdout.splitlines()]
    assert [row["smiles_input"] for row in rows] == [one["smiles_input"] for one in objects]
    assert all(list(one) == list(COLUMNS) for one in objects)
    assert {row["disposition"] for row in rows} == {"scored", "no_route", "failed", "rejected"}
    assert all(float(row["score"]) >= 1 for row in rows if row["disposition"] == "scored")
    assert {row["target_access_string"] for row in exported(desk, "--target", "Mpro@lb18145-1")} == {"lb18145-1"}
    assert len({row["target_access_string"] for row in exported(desk, "--target", "Mpro")}) == 2
    desk.call("export", "--target", "Nobody", exit_code=2)
    desk.call("export", "--output", "scores.csv")
    assert (desk.folder / "scores.csv").read_text(encoding="utf-8") == text
    desk.call("export", "--output", "missing/scores.csv", exit_code=1)
    assert not list(desk.folder.glob("*.part"))


def test_what_is_too_large_is_rejected_and_never_bought(desk: Workplace, served: Served) -> None:
    desk.set("fragalysis", targets=["ZIKV*"])
    desk.set("limits", max_heavy_atoms=15)
    plan = desk.json("plan")
    (target,) = plan["targets"]
    desk.call("once")
    assert f"rejected: {in_words(target['rejected'])}" in desk.call("plan").stdout
    rows = exported(desk)
    found = {row["smiles_input"]: identify(row["smiles_input"]) for row in rows}
    large = {raw for raw, one in found.items() if isinstance(one, Identity) and one.heavy_atoms > 15}
    assert {row["smiles_input"] for row in rows if row["reason"] == "too_large"} == large
    assert {row["disposition"] for row in rows if row["smiles_input"] in large} == {"rejected"}
    assert target["rejected"]["too_large"] == sum(row["smiles_input"] in large for row in rows)
    assert len(served.purchases) == plan["compounds"] > 0


def test_what_needs_attention_is_exit_code_3(desk: Workplace, served: Served) -> None:
    desk.set("molecule_one", token="")
    desk.set("fragalysis", targets=["ZIKV*"])
    done = desk.call("once", exit_code=3)
    assert "no token is set" in done.stdout
    (attention,) = desk.json("status")["needs_attention"]
    assert set(attention) == {"kind", "subject", "reason", "action", "since"}
    assert "no token is set" in desk.call("status").stdout
    assert not served.purchases
    desk.set("molecule_one", token=served.sandbox.molecule_one.token)
    desk.call("once", "--timeout", "0s", exit_code=2)
    desk.call("once", "--timeout", "soon", exit_code=2)


def test_only_one_at_a_time_and_a_stop_loses_nothing(workplace: Workplace, served: Served) -> None:
    served.do(lambda sandbox: setattr(sandbox.molecule_one.pace, "manual", True))
    with workplace.running("once") as first:
        eventually(lambda: served.purchases)
        second = workplace.call("once", exit_code=1)
        assert "in use by `watcher once`, process" in second.stderr
        status = workplace.json("status")
        assert sum(status["claims"].values()) > 0
        assert workplace.json("batches", "list")
        assert first.stop(signal.SIGTERM) == 1
    assert "Stopped after" in "".join(first.stdout)
    stopped = workplace.call("once", "--timeout", "1s", exit_code=1)
    assert "Stopped by --timeout" in stopped.stdout
    served.do(lambda sandbox: setattr(sandbox.molecule_one.pace, "manual", False))
    workplace.call("once")
    assert set(served.purchases.values()) == {1}


def test_run_stops_on_sigterm_and_goes_on_where_it_was(workplace: Workplace, served: Served) -> None:
    def scored() -> bool:
        claims = workplace.json("status")["claims"]
        return bool(claims.get("scored")) and not {"wanted", "reserved"} & set(claims)

    with workplace.running("run") as daemon:
        daemon.said("daemon_ready")
        eventually(scored)
        assert daemon.stop(signal.SIGTERM) == 0
    assert all(json.loads(line) for line in daemon.stderr)
    bought = served.purchases
    served.do(lambda sandbox: sandbox.fragalysis.publish(*NEW))
    with workplace.running("run") as daemon:
        eventually(lambda: len(served.purchases) > len(bought) and scored())
        assert daemon.stop(signal.SIGINT) == 0
    assert set(served.purchases.values()) == {1}


def test_a_pass_without_fragalysis_ends_with_attention(desk: Workplace, served: Served) -> None:
    served.do(lambda sandbox: sandbox.add_fault(Fault("fragalysis", "status", times=None, status=503)))
    done = desk.call("once", "--timeout", "2s", exit_code=3)
    assert "fragalysis" in done.stdout
    assert desk.call("plan", exit_code=1).stderr.startswith("error: ")


def test_the_older_services_end_alike(tmp_path: Path) -> None:
    with Served(age="2024") as served:
        workplace = Workplace(tmp_path, served)
        workplace.set("molecule_one", api_version="v2")
        workplace.call("once")
        assert set(served.purchases.values()) == {1}
        assert len(served.purchases) == 100
