"""The waits that failures lead to, and what they are a sign of."""

from datetime import timedelta
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.archives import NotAnArchive
from watcher.chemistry_process import ChemistryUnavailable
from watcher.errors import AuthFailure, Failure, Invalid, NotFound, Ours, Transient
from watcher.fragalysis import CannotBuild, NotAMember
from watcher.molecule_one import BatchUnknown
from watcher.pipeline.collect import next_poll
from watcher.pipeline.failures import (
    LONGEST_WAIT,
    NOT_FOUND_BEFORE_QUARANTINE,
    SLOW_WAIT,
    backoff,
    believed,
    wait_after,
    wait_after_doubts,
)
from watcher.pipeline.gate import next_look
from watcher.pipeline.health import fault_of

SECOND = timedelta(seconds=1)


class Least(Random):
    def random(self) -> float:
        return 0.0


@given(st.integers(-1, 10**6), st.integers(0, 2**32))
def test_backoff_is_bounded(attempts: int, seed: int) -> None:
    wait = backoff(attempts, Random(seed))
    assert backoff(attempts, Random(seed), first=timedelta(days=1), longest=timedelta(days=2)) >= timedelta(days=1)
    assert SECOND <= wait <= LONGEST_WAIT * 1.2


@given(st.integers(1, 100), st.integers(1, 3600))
def test_backoff_doubles_up_to_its_cap(attempts: int, first: int) -> None:
    start, longest = timedelta(seconds=first), timedelta(seconds=first * 50)
    now = backoff(attempts, Least(), first=start, longest=longest)
    after = backoff(attempts + 1, Least(), first=start, longest=longest)
    assert start <= now <= after <= longest
    assert after == min(2 * now, longest)


@pytest.mark.parametrize(
    ("asked", "waits"), [(0, 1), (1, 1), (7200, 7200), (0.2, 1)], ids=["nothing", "a second", "hours", "a moment"]
)
def test_what_the_server_asks_for_wins(asked: float, waits: float) -> None:
    failure = Transient("429", retry_after=timedelta(seconds=asked))
    assert wait_after(failure, 9, Random(1)) == timedelta(seconds=waits)


@pytest.mark.parametrize("failure", [Transient("x"), AuthFailure("x"), Invalid("x"), Ours("x")])
def test_else_it_is_backoff(failure: Failure) -> None:
    assert wait_after(failure, 3, Least()) == timedelta(seconds=4)


GONE = "GET /x answered 404: no such thing"
LAST = NOT_FOUND_BEFORE_QUARANTINE - 1


@pytest.mark.parametrize(
    ("tries", "before", "kind"),
    [
        (0, None, Transient),
        (LAST - 1, GONE, Transient),
        (LAST, GONE, NotFound),
        (LAST, "GET /x answered 404: in other words, or under another number", NotFound),
        (LAST, "GET /x answered 404", NotFound),
        (LAST, None, Transient),
        (10 * LAST, "GET /x answered 502: no such thing", Transient),
        (10 * LAST, "GET /x answered 502: it answered 404", Transient),
        (10 * LAST, "GET /x answered 404 with a web page", Transient),
        (10 * LAST, "GET /y answered 404: no such thing", Transient),
        (10 * LAST, GONE, NotFound),
    ],
)
def test_a_404_is_believed_when_it_lasts(tries: int, before: str | None, kind: type[Failure]) -> None:
    failure = believed(NotFound(GONE, action="look"), tries=tries, before=before)
    assert type(failure) is kind
    assert (failure.message, failure.action) == (GONE, "look")


def test_a_404_lasts_for_about_ten_minutes_before_it_is_believed() -> None:
    waits = [backoff(attempts, Least()) for attempts in range(1, NOT_FOUND_BEFORE_QUARANTINE)]
    assert timedelta(minutes=8) < sum(waits, timedelta()) < timedelta(minutes=10)


def test_other_definite_answers_are_believed_at_once() -> None:
    failure = Invalid(GONE)
    assert believed(failure, tries=0, before=None) is failure


@given(st.integers(1, 3600), st.integers(0, 200))
def test_polls_grow_apart_within_bounds(first: int, quiet: int) -> None:
    start = timedelta(seconds=first)
    wait, after = next_poll(start, quiet), next_poll(start, quiet + 1)
    assert start <= wait <= after <= max(start, timedelta(minutes=10))
    assert next_poll(start, 0) == start


def test_looks_for_a_doubtful_batch() -> None:
    waits = [next_look(looks).total_seconds() for looks in range(10)]
    assert waits == [2, 2, 5, 15, 60, 180, 300, 600, 600, 600]


def stage(name: str, service: str | None) -> Any:
    return SimpleNamespace(name=name, service=service)


@pytest.mark.parametrize(
    ("name", "service", "failure", "expected"),
    [
        ("scan", "fragalysis", Transient("x"), ("fragalysis", "unreachable")),
        ("collect", "molecule_one", Transient("x"), ("molecule_one", "unreachable")),
        ("download", "fragalysis", Transient("x"), ("download", "unreachable")),
        ("download", "fragalysis", CannotBuild("x"), None),
        ("download", "fragalysis", NotAMember("x"), None),
        ("download", "fragalysis", NotAnArchive("x"), None),
        ("download", "fragalysis", Invalid("x"), None),
        ("download", "fragalysis", Ours("x"), ("download", "machine")),
        ("extract", "fragalysis", ChemistryUnavailable("x"), ("extract", "machine")),
        ("scan", "fragalysis", AuthFailure("x"), ("fragalysis", "credentials")),
        ("extract", "fragalysis", AuthFailure("x"), ("extract", "credentials")),
        ("download", "fragalysis", AuthFailure("x"), ("download", "credentials")),
        ("collect", "molecule_one", AuthFailure("x"), ("molecule_one", "credentials")),
        ("submit", "molecule_one", AuthFailure("x"), ("molecule_one", "credentials")),
        ("collect", "molecule_one", BatchUnknown("x"), None),
        ("scan", "fragalysis", Invalid("x"), ("fragalysis", "unreadable")),
        ("reconcile", "molecule_one", Invalid("x"), ("molecule_one", "unreadable")),
        ("finish", None, Transient("x"), None),
        ("verify", None, Ours("x"), ("verify", "machine")),
    ],
)
def test_what_a_failure_is_a_sign_of(
    name: str, service: str | None, failure: Failure, expected: tuple[str, str] | None
) -> None:
    fault = fault_of(stage(name, service), failure)
    assert ((fault.subject, fault.kind) if fault else None) == expected
    assert fault is None or fault.action


def test_a_service_that_answers_no_purchase_is_asked_ever_more_rarely() -> None:
    waits = [wait_after_doubts(doubts) for doubts in range(12)]
    assert waits[:2] == [timedelta(), timedelta()], "one lost answer holds up nobody else"
    assert waits[2] == timedelta(minutes=2)
    assert waits == sorted(waits)
    assert waits[-1] == SLOW_WAIT
