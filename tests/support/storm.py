"""Storms: every call of both services, every kind of fault, and what must hold when one is over.

A test module asks for `story` with `pytest_plugins = ("tests.support.story",)`.
"""

import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import format_datetime
from itertools import product
from pathlib import Path
from typing import Any, Literal

from tests.support.pipeline import PRIVATE, ROWS_A, A, B, Job, Version, world
from watcher.pipeline.profile import profile_in_force
from watcher.pipeline.runner import Runner
from watcher.pipeline.uploads import subject_of
from watcher.sandbox import Fault
from watcher.sandbox.ledger import Booking
from watcher.store import batches, legs, targets, upload_queues
from watcher.store.conditions import close_condition, find
from watcher.store.profiles import REFUSED as REFUSALS
from watcher.store.profiles import SERVICE, approve_profile

Age = Literal["2024", "2026"]
Place = Literal["fragalysis", "molecule_one"]
BOUGHT = {"CCO": 1, "CCN": 1, "c1ccccc1": 1, "CCBr": 1}
ROWS = 6
BOUGHT_ALONE = {"CCO": 1, "CCN": 1}
ROWS_ALONE = 3
OTHERS = ("CCCCCCC", "CCCCCCCC")
SIDES: dict[Age, Version] = {"2024": "v1", "2026": "v2"}


@dataclass(frozen=True)
class Call:
    """One call of a service, and what an answer to it can lack or get wrong."""

    where: Place
    method: str
    path: str
    drop: str = ""
    wrong: Mapping[str, Any] = field(default_factory=dict)
    holds: Literal["rows", "numbers", "words", "file"] = "rows"
    """The answer: JSON with a list of rows; or one object with numbers in it, or without; or no JSON at all."""
    ages: tuple[Age, ...] = ("2024", "2026")


CALLS: dict[str, Call] = {
    "targets": Call("fragalysis", "GET", "^/api/targets/", "title", {"title": 5}),
    "projects": Call("fragalysis", "GET", "^/api/projects/", "id", {"target_access_string": None}),
    "uploads": Call("fragalysis", "GET", "^/api/target_exp", "commit_datetime", {"upload_version": "x"}),
    "observations": Call("fragalysis", "GET", "^/api/site_obs", "smiles", {"smiles": 5}),
    "landing": Call("fragalysis", "GET", "^/viewer/react/landing", holds="file"),
    "request": Call("fragalysis", "POST", "^/api/download_structures", "file_url", {"file_url": 5}, "words", ("2024",)),
    "request_task": Call(
        "fragalysis", "POST", "^/api/download_structures", "task_status_url", {"task_status_url": 5}, "words", ("2026",)
    ),
    "task": Call("fragalysis", "GET", "^/viewer/task_status", "messages", {"messages": 5}, "words", ("2026",)),
    "file": Call("fragalysis", "GET", "^/api/download_structures", holds="file"),
    "list": Call("molecule_one", "GET", "batch-search$", "id", {"id": None}),
    "details": Call("molecule_one", "GET", "/v2/batch-search/", "id", {"id": None}, "numbers", ("2026",)),
    "create": Call("molecule_one", "POST", "batch-search$", "id", {"id": ["x"]}, "numbers"),
    "status": Call(
        "molecule_one", "GET", "(v1/batch-search|batch-search-status)/", "finished", {"queued": "many"}, "numbers"
    ),
    "results_v1": Call("molecule_one", "GET", "batch-search-result/", "targetSmiles", {"result": {}}, ages=("2024",)),
    "results": Call("molecule_one", "GET", "batch-search-result/", "target_smiles", {"result": {}}, ages=("2026",)),
    "delete": Call("molecule_one", "DELETE", "batch-search/", holds="words"),
}
"""All that the daemon ever asks for; `watcher check` alone asks for `/api/user` too."""
LISTS = ("targets", "projects", "uploads", "observations")
"""The calls that more than one target is read from."""
DOWNLOADS = ("landing", "request", "request_task", "task", "file")
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
    "no_count": {"action": "edit_document", "drop": ["count"]},
    "another_count": {"action": "edit_document", "values": {"count": 10**6}},
    "circle": {"action": "edit_document", "values": {"next": "https://elsewhere.invalid/api/?offset=0"}},
    "400": {"action": "status", "status": 400},
}
WHOLE_LISTS = ("no_count", "another_count", "circle")
"""What befalls the document around the rows of a list."""
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
    if kind in ("held_after", "504_after", "reset_after") and one.method == "GET":
        return False  # what is only read is as it was: the same without "after"
    if kind in WHOLE_LISTS:
        return call in LISTS
    if kind in ("repeated", "skipped"):
        return one.holds == "rows"
    if kind == "strings":
        return one.holds in ("rows", "numbers")
    return kind != "extra" or one.holds != "file"


def cases() -> Iterator[tuple[Age, str, str]]:
    """Every kind of fault on every call, with one of the services' ages in turn; with all ages if so asked."""
    for (row, call), (column, kind) in product(enumerate(CALLS), enumerate(KINDS)):
        ages = [age for age in SIDES if fits(call, kind, age)]
        yield from ((age, call, kind) for age in (ages if EVERYTHING else ages[(row + column) % 2 :][:1] or ages))


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


REFUSED = ("redirect_302", "redirect_307", "session_deleted", "401", "403")
"""A service does not let us in."""
STRANGE = ("no_count", "400", "404", "null", "number", "missing", "wrong_type")
"""A definite answer, and none that is known."""
FAILED = ("500", "504", "504_after")
"""The server did not build; 502 and 503 say that it is away."""
PROCESSED = ("504_after", "reset_after", "held", "held_after", "half", "wrong_length", "invalid_json", *STRANGE[-2:])
"""A purchase is made, now or in the end, so that it is found in the service's list."""
SIGNS: dict[str, dict[str, tuple[str, ...]]] = {
    # What is not in JSON has no shape, and no page of a session that ended is told from another.
    "landing": {
        "": ("wrong_length", "invalid_json"),  # it sets a CSRF token, and nothing else of it is read
        "unreachable": ("400", "404", "page", "null", "nothing", "number"),  # it sets none
    },
    # Of a server that is being changed, until it has lasted for some ten minutes.
    "observations": {"unreachable scoring_quarantined": ("404",)},
    "request": {"archive_unavailable": FAILED, "unreachable archive_quarantined": ("404",)},
    "request_task": {"archive_unavailable": FAILED, "unreachable archive_quarantined": ("404",)},
    "file": {
        "archive_unavailable": ("sign_in_page", "page", "null", "nothing", "number", "invalid_json"),  # no archive
        "archive_quarantined": ("wrong_length",),  # half an archive, whole by what it says of itself
        "unreachable": ("404",),  # a link that has expired
    },
    "task": {
        "archive_unavailable": ("404", "404_page"),  # the server forgets its builds
        "": ("missing",),  # no message names the file: the same request, posted again, does
    },
    "list": {  # waited for where it could show a batch of ours: where it has names
        "read_back": ("404:2026", "missing:2026", "wrong_type:2026", "repeated:2026"),
        "": ("404", "404_page:2024", "missing", "wrong_type", "repeated", "skipped"),  # a bare list can be cut unseen
        "read_back unreadable": ("400:2026",),  # it has one, and does not show it
        "unreadable": ("400:2024",),
    },
    "details": {
        "": HARMLESS,
        # Also a refusal, for it may be of this batch alone; and what the service lists, but does not know.
        "read_back unreachable": (*KINDS,),
    },
    "create": {
        "unreachable": ("429_seconds", "429_date", "429"),
        "credentials": (*REFUSED, "redirect_nowhere", "404", "404_page"),
        "submissions_refused": ("400",),  # of each part with the same words: no molecule is to blame
    },
    "status": {"lost": ("404",), "unreadable": ("400",)},
    "results_v1": {"lost": ("404",), "unreadable": ("400", *STRANGE[-2:]), "": ("repeated", "skipped")},
    "results": {"lost": ("404",), "unreadable": ("400", *STRANGE[-2:]), "": ("repeated", "skipped")},
    # Any good answer will do, and what is gone is as good as deleted; what is refused is given up, with one line.
    "delete": {"": ("400", "404", "wrong_length", "invalid_json", "null", "nothing", "number")},
}
"""What is told of a call, by the kind of condition (nothing if empty), where it is not what `sign_of` says of all."""


def sign_of(call: str, kind: str, age: Age) -> str:
    """Say what kinds of conditions a kind of fault on a call opens when it lasts; none if it is empty."""
    for sign, kinds in SIGNS.get(call, {}).items():
        if kind in kinds or f"{kind}:{age}" in kinds:
            return sign
    if kind in HARMLESS:
        return ""
    if call == "create":  # any doubt
        return "unconfirmed"
    at_fragalysis = CALLS[call].where == "fragalysis"
    if kind in REFUSED or (kind == "sign_in_page" and at_fragalysis):
        return "credentials"
    if kind in STRANGE and at_fragalysis:
        items = {"observations": "scoring_quarantined"} | dict.fromkeys(DOWNLOADS, "archive_quarantined")
        return items.get(call, "unreadable")
    return "unreachable"  # of Molecule.one, also what is strange: what is paid is never given up


def expected(call: str, kind: str, age: Age) -> set[tuple[str, str]]:
    """Say which conditions a fault opens that lasts for more than an hour, by subject and kind."""
    return {one for sign in sign_of(call, kind, age).split() for one in _conditions(call, sign)}


def _conditions(call: str, sign: str) -> set[tuple[str, str]]:
    where = CALLS[call].where
    if sign.startswith(("archive", "scoring")):
        keys = (A, B, PRIVATE) if call in LISTS else (A,)
        return {(f"{name}@{tas} upload 1", sign) for name, tas in keys}
    if sign in ("unconfirmed", "lost") or ((sign, where) == ("unreadable", "molecule_one") and call != "list"):
        return {("batch 1", sign)}
    stages = dict.fromkeys(DOWNLOADS, "download") | ({"observations": "extract"} if sign == "credentials" else {})
    return {(stages.get(call, where) if sign in ("unreachable", "credentials") else where, sign)}


def is_alone(call: str, kind: str) -> bool:
    """Say whether one target is enough to see what a fault does; lists are read for several.

    A refusal of everything is seen for what it is before a molecule stands alone if there are more than two.
    """
    return call not in LISTS and (call, kind) != ("create", "400")


def left_to_a_person(call: str, kind: str, age: Age) -> set[tuple[str, str]]:
    """Say which of these conditions stay when the fault is over, until a person does something."""
    kinds = {"archive_quarantined", "scoring_quarantined", "submissions_refused"}
    kinds |= set() if kind in PROCESSED else {"unconfirmed"}
    return {one for one in expected(call, kind, age) if one[1] in kinds}


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


async def make_asked(job: Job, call: str, age: Age) -> None:
    """Let there be a reason for the calls that the job does not always make; before the program is opened."""
    vendor = job.sandbox.molecule_one
    if call in ("list", "details"):  # a list that is empty cannot be wrong
        for smiles in OTHERS:
            batch = vendor.batches.create(
                [smiles], version=SIDES[age], name="theirs", metadata={}, settings={}, detailed=False
            )
            vendor.ledger.book(Booking(batch.id, batch.name, batch.version, batch.created_at, batch.targets))
        async with job.run():
            pass  # a record that this very start makes has forgotten nothing
    if call == "details":
        vendor.listing.names = False
    if call == "delete":
        job.set("molecule_one", delete_after_collect=True)


def ours(job: Job) -> dict[str, int]:
    """How often each molecule was bought, but for what somebody else buys with the same account."""
    return {smiles: times for smiles, times in job.bought.items() if smiles not in OTHERS}


async def held(job: Job) -> Sequence[Any]:
    return [one for one in await job.batches() if one.state == "unconfirmed"]


async def help_out(job: Job) -> None:
    """Do what a person is asked to: `watcher batches adopt | release`, `watcher retry`, `watcher approve --profile`."""
    assert job.program is not None
    now, context = job.clock.now(), job.program.context
    async with context.store.write() as session:
        if await find(session, SERVICE, REFUSALS) is not None:
            profile = await profile_in_force(session, context)
            await approve_profile(session, profile, context.policy, who="me", now=now)
        for batch in await batches.in_state(session, "unconfirmed"):
            (condition,) = [one for one in await job.open_conditions() if one.subject == f"batch {batch.id}"]
            assert f"`watcher batches adopt {batch.id} REMOTE_ID`" in condition.action
            assert f"`watcher batches release {batch.id}`" in condition.action
            assert not any(one.name and batch.token in one.name for one in job.sandbox.molecule_one.ledger.batches)
            await batches.release(session, batch, who="me", why="it is not in the vendor's list", now=now)
            await close_condition(session, f"batch {batch.id}", "unconfirmed", now=now)
        for stuck in await upload_queues.stuck_legs(session, None):
            upload, target = await targets.upload_with_target(session, stuck.id)
            if upload.archive_state in ("quarantined", "unavailable"):
                legs.set_archive_state(session, upload, "wanted", now=now, why="asked", who="me")
            if upload.scoring_state == "quarantined":
                legs.set_scoring_state(session, upload, "detected", now=now, why="asked", who="me")
            kinds = ("archive_quarantined", "archive_unavailable", "scoring_quarantined")
            await close_condition(session, subject_of(target, upload), *kinds, now=now)


async def calm(job: Job, runner: Runner, *hours: float) -> None:
    """No faults any more, and time passes; by default as long as an archive waits that could not be built."""
    job.sandbox.clear_faults()
    for wait in hours or (1, 1):  # the first counts of a batch read 0, and prove nothing of it
        await job.later(runner, hours=wait)
    if not hours and any(one.archive_state == "unavailable" for one in await job.uploads()):
        await job.later(runner, hours=7)


async def ends_right(job: Job, bought: dict[str, int] | None = None, rows: int | None = ROWS) -> None:
    """Everything is exported, and the vendor's books hold each molecule once."""
    open_still = await job.conditions()
    assert open_still == {}, open_still
    assert ours(job) == (BOUGHT if bought is None else bought)
    exported = await job.rows()
    assert {row.disposition for row in exported} == {"scored"}
    assert rows in (None, len(exported))
    followed = {one.current_upload_id for one in await job.targets()}
    states = [(one.archive_state, one.scoring_state) for one in await job.uploads() if one.id in followed]
    assert states == [("stored", "scored")] * len(states)


WHO = ("target", "upload_index", "stage", "unit", "subject", "kind", "old", "new")
"""What sets a line of the log apart from others of its event. Not the batch: each try to buy makes one of its own."""
MOST_LINES = 3
"""An upload is read twice and, when its archive could not be had for long, asked for again; a try is made much oftener.
"""


def told_once(story: Story, conditions: set[tuple[str, str]], *, most: int = MOST_LINES) -> None:
    """Each of the conditions was told once when it opened and once when it ended, and nothing else with each try."""
    assert story.broken == []
    opened, closed = story.told("condition_opened"), story.told("condition_closed")
    assert opened == closed == Counter(conditions)
    told = (one for one in story.logs if one["log_level"] != "debug")
    lines = Counter((one["event"], *(str(one.get(name)) for name in WHO)) for one in told)
    too_often = {line: times for line, times in lines.items() if times > most}
    assert not too_often, too_often
