"""What a person decides: approving, adopting, releasing, retrying."""

import csv
import io
import json
from collections import Counter

import pytest

from tests.support.process import Served, Workplace
from watcher.cli.output import in_words
from watcher.sandbox import Fault
from watcher.store import standing

PRIVATE = "CHIKV_Mac@lb27995-1"


def doubtful_batch(desk: Workplace, served: Served) -> int:
    """Lose the answer to a purchase, and return the batch; the service has no list to look it up in."""
    served.do(lambda sandbox: setattr(sandbox.molecule_one.listing, "form", "missing"))
    served.do(
        lambda sandbox: sandbox.add_fault(Fault("molecule_one", "close_after", match={"method": "POST"}, times=1))
    )
    desk.set("fragalysis", targets=["ZIKV*"])
    desk.set("molecule_one", unconfirmed_window="1s")  # `once` sits out the looks of the first minute and a half
    assert "watcher batches adopt" in desk.call("once", exit_code=3).stdout
    (batch,) = desk.json("batches", "list", "--state", "unconfirmed")
    return int(batch["id"])


def test_a_limit_waits_for_approval(desk: Workplace, served: Served) -> None:
    desk.set("limits", new_compounds_per_scan=5)
    desk.set("molecule_one", price_per_compound=2.0)
    desk.call("once", exit_code=3)
    assert len(served.purchases) == 5
    assert sum(desk.json("plan")["withheld"].values()) == 95

    ambiguous = desk.call("approve", "Mpro", exit_code=2)
    assert "Mpro@lb18145-1" in ambiguous.stderr
    assert "Mpro@lb32627-66" in ambiguous.stderr
    desk.call("approve", "Nobody", exit_code=2)
    done = desk.call("approve", "Mpro@lb18145-1")
    assert "at a cost of" in done.stdout
    desk.call("once", exit_code=3)
    assert 5 < len(served.purchases) < 100
    for target in ("A71EV2A", "ZIKV_NS5A", "Mpro@lb32627-66"):
        desk.call("approve", target)
    desk.call("once")
    assert len(served.purchases) == 100
    assert "Nothing of A71EV2A" in desk.call("approve", "A71EV2A").stdout


def exported(desk: Workplace) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(desk.call("export").stdout)))


def held_back(desk: Workplace, *reasons: str) -> dict[str, int]:
    """How many compounds each reason holds back: `plan`, `status` and the export say the same, in both their forms."""
    status, plan = desk.json("status"), desk.json("plan")
    found: dict[str, int] = {reason: status["withheld"].get(reason, 0) for reason in reasons}
    assert all(found.values()), found
    lines = desk.call("status").stdout.splitlines()
    assert {f"  withheld    {number}: {reason}" for reason, number in found.items()} <= {*lines}

    assert plan["withheld"] == found
    lines = desk.call("plan").stdout.splitlines()
    for one in plan["targets"]:
        told = f"  {one['target']}@{one['target_access_string']} withheld: {in_words(one['withheld'])}"
        assert (told in lines) == bool(one["withheld"])

    rows = exported(desk)
    objects = [json.loads(line) for line in desk.call("export", "--format", "jsonl").stdout.splitlines()]
    for table in (rows, objects):  # by compound, for targets share some
        held = {row["smiles"]: row["reason"] for row in table if row["disposition"] == "pending"}
        assert Counter(held.values()) == {f"withheld: {reason}": number for reason, number in found.items()}
    return found


def test_what_is_held_back_is_shown_with_its_reason_and_goes_ahead_when_approved(
    desk: Workplace, served: Served
) -> None:
    desk.set("fragalysis", token=served.sandbox.fragalysis.session_token, targets=["A71EV2A"], first_seen="baseline")
    desk.call("once")
    recorded = desk.json("status")["withheld"]
    desk.set("molecule_one", exploratory_search=True)
    desk.call("once", exit_code=3)
    assert held_back(desk, standing.PROFILE) == {standing.PROFILE: recorded[standing.BASELINE]}
    desk.call("approve", "--profile")
    assert not served.purchases

    desk.set("fragalysis", targets=["*"], first_seen="process")
    desk.set("limits", compounds_per_day=10, new_compounds_per_scan=30)
    desk.call("once", exit_code=3)
    assert len(served.purchases) == 10
    held = held_back(desk, standing.DAILY_LIMIT, standing.SCAN_LIMIT, standing.BASELINE, standing.PRIVATE)
    assert held[standing.DAILY_LIMIT] == 20
    for target in ("A71EV2A", "ZIKV_NS5A", "Mpro@lb18145-1", "Mpro@lb32627-66"):
        desk.call("approve", target)
    desk.call("once")
    assert len(served.purchases) == 10 + sum(held.values()) - held[standing.PRIVATE], "past the limit of the day"
    assert set(served.purchases.values()) == {1}
    assert desk.json("plan")["withheld"] == {standing.PRIVATE: held[standing.PRIVATE]}


def test_what_is_larger_than_a_limit_lowered_since_is_held_back_until_it_is_raised(
    desk: Workplace, served: Served
) -> None:
    desk.set("fragalysis", targets=["ZIKV*"], first_seen="baseline")
    desk.call("once")
    desk.set("limits", max_heavy_atoms=15)
    desk.call("once")
    held = held_back(desk, standing.BASELINE, standing.TOO_LARGE)
    stays = f"{held[standing.TOO_LARGE]} compounds stay withheld: {standing.TOO_LARGE}. Approval does not lift it"
    assert stays in desk.call("approve", "ZIKV_NS5A").stdout
    desk.call("once")
    assert len(served.purchases) == held[standing.BASELINE]
    assert standing.TOO_LARGE in desk.call("approve", "ZIKV_NS5A", exit_code=1).stderr
    desk.set("limits", max_heavy_atoms=1000)
    desk.call("once")
    assert len(served.purchases) == sum(held.values())
    assert set(served.purchases.values()) == {1}


def test_approval_never_lifts_privacy(desk: Workplace, served: Served) -> None:
    desk.set("fragalysis", token=served.sandbox.fragalysis.session_token, targets=["CHIKV*"])
    desk.call("once")
    assert not served.purchases
    assert desk.json("status")["withheld"]
    refused = desk.call("approve", PRIVATE, exit_code=1)
    assert "submit_private" in refused.stderr
    desk.call("once")
    assert not served.purchases


def test_a_new_profile_waits_for_approval(desk: Workplace, served: Served) -> None:
    desk.set("fragalysis", targets=["ZIKV*"])
    desk.call("once")
    bought = len(served.purchases)
    desk.set("molecule_one", exploratory_search=True, price_per_compound=3.0)
    assert "approve --profile" in desk.call("plan").stdout
    desk.call("once", exit_code=3)
    assert set(served.purchases.values()) == {1}
    done = desk.call("approve", "--profile")
    assert f"{bought} compounds" in done.stdout
    desk.call("once")
    assert set(served.purchases.values()) == {2}
    desk.call("approve", exit_code=2)
    desk.call("approve", "ZIKV_NS5A", "--profile", exit_code=2)


def test_a_doubtful_batch_is_adopted(desk: Workplace, served: Served) -> None:
    batch = doubtful_batch(desk, served)
    (remote,) = served.do(lambda sandbox: [booking.batch_id for booking in sandbox.molecule_one.ledger.batches])
    assert "name       none" in desk.call("batches", "show", str(batch)).stdout
    desk.call("batches", "adopt", str(batch + 1), remote, exit_code=2)
    desk.call("batches", "adopt", str(batch), f" {remote} ")  # as it is copied from a web page
    refused = desk.call("batches", "release", str(batch), exit_code=1)
    assert f"batch {batch} is submitted" in refused.stderr
    shown = desk.json("batches", "show", str(batch))
    assert shown["remote_id"] == remote
    assert shown["history"][-1]["who"] != "watcher"
    desk.call("once")
    assert set(served.purchases.values()) == {1}
    assert "collected" in desk.call("batches", "show", str(batch)).stdout
    assert desk.json("status")["needs_attention"] == []
    desk.call("batches", "adopt", str(batch), remote, exit_code=1)


def test_a_doubtful_batch_is_shown_under_the_name_that_the_vendor_knows(desk: Workplace, served: Served) -> None:
    desk.set("molecule_one", api_version="v2", detail_level="score")
    batch = doubtful_batch(desk, served)
    (name,) = served.do(lambda sandbox: [booking.name for booking in sandbox.molecule_one.ledger.batches])
    assert f"name       {name}\n" in desk.call("batches", "show", str(batch)).stdout
    assert desk.json("batches", "show", str(batch))["name"] == name


def test_lists_without_a_doubtful_batch_are_counted(desk: Workplace, served: Served) -> None:
    lost = Fault("molecule_one", "close_before_answer", match={"method": "POST"}, times=1)
    served.do(lambda sandbox: sandbox.add_fault(lost))
    desk.set("fragalysis", targets=["ZIKV*"])
    desk.set("molecule_one", unconfirmed_window="1s")
    desk.call("once", exit_code=3)
    (batch,) = desk.json("batches", "list", "--state", "unconfirmed")
    lists = desk.json("batches", "show", str(batch["id"]))["lists_without_it"]
    assert lists > 0
    assert f"not found   in {lists} complete list" in desk.call("batches", "show", str(batch["id"])).stdout


def test_a_doubtful_batch_is_released_and_bought_again(desk: Workplace, served: Served) -> None:
    batch = doubtful_batch(desk, served)
    done = desk.call("batches", "release", str(batch))
    assert "paid for twice" in done.stderr
    desk.call("once")
    assert set(served.purchases.values()) == {2}  # what the warning said
    known = next(one["remote_id"] for one in desk.json("batches", "list") if one["remote_id"])
    assert "already" in desk.call("batches", "adopt", str(batch), known, exit_code=1).stderr


def test_what_was_set_aside_is_taken_up(desk: Workplace, served: Served) -> None:
    assert "no record" in desk.call("retry", exit_code=1).stderr
    desk.set("download", enabled=True, max_archive_size="1kB")
    desk.set("fragalysis", targets=["ZIKV*"])
    desk.call("once", exit_code=3)
    bought = served.purchases
    assert "Nothing is set aside" not in desk.call("retry", "--target", "ZIKV_NS5A").stdout
    assert desk.json("status")["needs_attention"] == []
    desk.set("download", max_archive_size="1GB")
    desk.call("once")
    assert desk.json("status")["uploads"]["stored"] == 1
    assert served.purchases == bought
    assert "Nothing is set aside" in desk.call("retry").stdout


@pytest.mark.parametrize("arguments", [["adopt", "1", "x"], ["release", "1"], ["show", "1"]])
def test_batches_that_are_not_there(desk: Workplace, arguments: list[str]) -> None:
    desk.call("batches", *arguments, exit_code=1)
    desk.call("db", "upgrade")
    assert "there is no batch 1" in desk.call("batches", *arguments, exit_code=2).stderr
