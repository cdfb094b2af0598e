"""Storms: every call of both services, every kind of fault, and what must hold when one is over.

A test module asks for `story` with `pytest_plugins = ("tests.support.story",)`.
"""

import os
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Literal

from tests.support.pipeline import PRIVATE, ROWS_A, A, Job, Version, world
from watcher.pipeline.runner import Runner
from watcher.pipeline.uploads import subject_of
from watcher.sandbox import Fault
from watcher.store import batches, targets
from watcher.store.conditions import close_condition

Age = Literal["2024", "2026"]
Place = Literal["fragalysis", "molecule_one"]
BOUGHT = {"CCO": 1, "CCN": 1, "c1ccccc1": 1, "CCBr": 1}
ROWS = 6
BOUGHT_ALONE = {"CCO": 1, "CCN": 1}
ROWS_ALONE = 3
SIDES: dict[Age, Version] = {"2024": "v1", "2026": "v2"}


@dataclass(frozen=True)
class Call:
    """One call of a service, and what an answer to it can lack or get wrong."""

    where: Place
    method: str
    path: str
    drop: str = ""
    wrong: Mapping[str, Any] = field(default_factory=dict)
    rows: bool = True
    ages: tuple[Age, ...] = ("2024", "2026")


CALLS: dict[str, Call] = {
    "targets": Call("fragalysis", "GET", "^/api/targets/", "title", {"title": 5}),
    "projects": Call("fragalysis", "GET", "^/api/projects/", "id", {"target_access_string": None}),
    "uploads": Call("fragalysis", "GET", "^/api/target_exp", "commit_datetime", {"upload_version": "x"}),
    "observations": Call("fragalysis", "GET", "^/api/site_obs", "smiles", {"smiles": 5}),
    "landing": Call("fragalysis", "GET", "^/viewer/react/landing", rows=False),
    "request": Call("fragalysis", "POST", "^/api/download_structures", rows=False, ages=("2024",)),
    "request_task": Call(
        "fragalysis", "POST", "^/api/download_structures", "task_status_url", {"task_status_url": 5}, False, ("2026",)
    ),
    "task": Call("fragalysis", "GET", "^/viewer/task_status", "messages", {"messages": 5}, False, ("2026",)),
    "file": Call("fragalysis", "GET", "^/api/download_structures", rows=False),
    "list": Call("molecule_one", "GET", "batch-search$", "id", {"id": None}),
    "create": Call("molecule_one", "POST", "batch-search$", "id", {"id": ["x"]}, rows=False),
    "status": Call("molecule_one", "GET", "batch-search(-status)?/", "finished", {"queued": "many"}, rows=False),
    "results_v1": Call("molecule_one", "GET", "batch-search-result/", "targetSmiles", {"result": {}}, ages=("2024",)),
    "results": Call("molecule_one", "GET", "batch-search-result/", "target_smiles", {"result": {}}, ages=("2026",)),
}
PAGE = "<!doctype html><html><head><title>Maintenance</title></head></html>"
OK_PAGE = {"action": "status", "status": 200, "body": PAGE}
KINDS: dict[str, dict[str, Any]] = {
    "sign_in_page": {"action": "sign_in_page"},
    "page": OK_PAGE,
    "redirect_302": {"action": "redirect"},
    "redirect_307": {"action": "redirect", "status": 307},
    "redirect_nowhere": {"action": "redirect", "location": "http://[", "status": 302},
    "session_deleted": {"action": "expire_session"},
    "401": {"action": "status", "status": 401},
    "403": {"action": "status", "status": 403},
    "404": {"action": "status", "status": 404},
    "404_page": {"action": "status", "status": 404, "body": PAGE},
    "429_seconds": {"action": "status", "status": 429, "headers": {"Retry-After": "90"}},
    "429_date": {"action": "status", "status": 429, "headers": {"Retry-After": "a date"}},
    "429": {"action": "status", "status": 429},
    "500": {"action": "status", "status": 500, "body": PAGE},
    "502": {"action": "status", "status": 502, "body": ""},
    "503": {"action": "status", "status": 503, "headers": {"Retry-After": "30"}},
    "504": {"action": "status", "status": 504},
    "504_after": {"action": "status_after", "status": 504},
    "reset_before": {"action": "close_before_reading"},
    "reset": {"action": "close_before_answer"},
    "reset_after": {"action": "close_after"},
    "held": {"action": "hold"},
    "held_after": {"action": "hold_after"},
    "half": {"action": "truncate"},
    "wrong_length": {"action": "wrong_length"},
    "invalid_json": {"action": "invalid_json"},
    "null": {"action": "status", "status": 200, "body": "null", "headers": {"Content-Type": "application/json"}},
    "nothing": {"action": "status", "status": 200, "body": "", "headers": {"Content-Type": "application/json"}},
    "number": {"action": "status", "status": 200, "body": "7", "headers": {"Content-Type": "application/json"}},
    "missing": {"action": "edit"},
    "wrong_type": {"action": "edit"},
    "extra": {"action": "edit", "values": {"extra": {"deep": [1, {"x": None}]}, "é\u202e": "\x00"}},
    "strings": {"action": "numbers_as_strings"},
    "repeated": {"action": "repeat_rows"},
    "skipped": {"action": "skip_rows"},
}
HARMLESS = ("extra", "strings")
PATIENCE = timedelta(seconds=0.4)
EVERYTHING = os.environ.get("STORM") == "all"
"""Try every kind of fault on every call with both ages."""


def fits(call: str, kind: str, age: Age) -> bool:
    """Say whether a kind of fault can befall a call at all."""
    one = CALLS[call]
    if age not in one.ages or (kind == "session_deleted" and one.where != "fragalysis"):
        return False
    if kind in ("missing", "wrong_type") and not one.drop:
        return False
    if kind == "held_after" and one.method != "POST":  # nobody can tell the difference
        return False
    return one.rows or kind not in ("repeated", "skipped")


def fault(call: str, kind: str, job: Job, **more: Any) -> Fault:
    """Put a fault of a kind on a call."""
    one, rule = CALLS[call], {**KINDS[kind], "times": None, **more}
    if kind == "missing":
        rule["drop"] = [one.drop]
    elif kind == "wrong_type":
        rule["values"] = one.wrong
    elif kind == "429_date":
        rule["headers"] = {"Retry-After": format_datetime(job.clock.now() + timedelta(seconds=90), usegmt=True)}
    return job.fault(one.where, rule.pop("action"), one.path, method=one.method, **rule)


class Story:
    """What was logged, and how often a turn was given."""

    def __init__(self) -> None:
        self.logs: list[Any] = []
        self.turns = 0

    def told(self, event: str) -> Counter[tuple[str, str]]:
        """Count an event by subject and kind of the condition."""
        return Counter((one["subject"], one["kind"]) for one in self.logs if one["event"] == event)

    @property
    def broken(self) -> list[Any]:
        """What shows a fault of the program."""
        words = ("unexpected", "traceback")
        return [
            one
            for one in self.logs
            if "exc_info" in one or one["log_level"] in ("error", "critical") or any(w in str(one) for w in words)
        ]


@asynccontextmanager
async def storm(
    folder: Path, age: Age = "2026", *, alone: bool = False, patient: bool = True, **more: Any
) -> AsyncIterator[Job]:
    """A sandbox with a private target besides, whose compounds may be sent; with one target only if it is `alone`.

    A client that is not `patient` does not wait for answers that are held.
    """
    async with world(folder, age=age, version=SIDES[age], empty=alone, **more) as job:
        job.set("fragalysis", token=job.sandbox.fragalysis.session_token)
        job.set("limits", submit_private=True)
        if not patient:
            job.set("http", read_timeout=PATIENCE)
            job.set("molecule_one", submit_timeout=PATIENCE)
        key, rows = (A, ROWS_A) if alone else (PRIVATE, [("S0001a", "CCBr", "Z6")])
        job.sandbox.fragalysis.add_target(*key, public=alone)
        job.sandbox.fragalysis.add_upload(*key, rows)
        yield job


async def held(job: Job) -> Sequence[Any]:
    return [one for one in await job.batches() if one.state == "unconfirmed"]


async def help_out(job: Job) -> None:
    """Do what a person is asked to: `watcher batches adopt | release`, `watcher retry`."""
    assert job.program is not None
    now = job.clock.now()
    async with job.program.context.store.write() as session:
        for batch in await batches.in_state(session, "unconfirmed"):
            (condition,) = [one for one in await job.open_conditions() if one.subject == f"batch {batch.id}"]
            assert f"`watcher batches adopt {batch.id} REMOTE_ID`" in condition.action
            assert f"`watcher batches release {batch.id}`" in condition.action
            assert not any(one.name and batch.token in one.name for one in job.sandbox.molecule_one.ledger.batches)
            await batches.release(session, batch, who="me", why="it is not in the vendor's list", now=now)
            await close_condition(session, f"batch {batch.id}", "unconfirmed", now=now)
        for stuck in await targets.stuck_legs(session, None):
            upload, target = await targets.upload_with_target(session, stuck.id)
            if upload.archive_state in ("quarantined", "unavailable"):
                targets.set_archive_state(session, upload, "wanted", now=now, why="asked", who="me")
            if upload.scoring_state == "quarantined":
                targets.set_scoring_state(session, upload, "detected", now=now, why="asked", who="me")
            kinds = ("archive_quarantined", "archive_unavailable", "scoring_quarantined")
            await close_condition(session, subject_of(target, upload), *kinds, now=now)


async def calm(job: Job, runner: Runner, *hours: float) -> None:
    """No faults any more, and time passes; by default as long as an archive waits that could not be built."""
    job.sandbox.clear_faults()
    for wait in hours or (1, 4, 4):
        await job.later(runner, hours=wait)
        if not hours and all(one.archive_state != "unavailable" for one in await job.uploads()):
            return


async def ends_right(job: Job, bought: dict[str, int] | None = None, rows: int | None = ROWS) -> None:
    """Everything is exported, and the vendor's books hold each molecule once."""
    open_still = await job.conditions()
    assert open_still == {}, open_still
    assert job.bought == (BOUGHT if bought is None else bought)
    exported = await job.rows()
    assert {row.disposition for row in exported} == {"scored"}
    assert rows in (None, len(exported))
    followed = {one.current_upload_id for one in await job.targets()}
    legs = [(one.archive_state, one.scoring_state) for one in await job.uploads() if one.id in followed]
    assert legs == [("stored", "scored")] * len(legs)


def told_once(story: Story) -> None:
    """Nothing of it is the program's fault, and each condition was told once when it opened and once when it ended."""
    assert story.broken == []
    opened, closed = story.told("condition_opened"), story.told("condition_closed")
    assert opened == closed
    assert opened.most_common(1) == [] or opened.most_common(1)[0][1] == 1, opened
