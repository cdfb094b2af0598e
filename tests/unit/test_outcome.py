"""What became of a purchase, from how far it got and what came back."""

import json
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from watcher import answers
from watcher.molecule_one.outcome import (
    Accepted,
    Later,
    NotSent,
    Outcome,
    Refused,
    ServiceRefused,
    Unknown,
    classify,
    same_words,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PAGE = b"<html><head><title>413 Request Entity Too Large</title></head></html>"
JSON = {"Content-Type": "application/json; charset=utf-8"}


def answer(status: int, body: bytes | str | object = b"", headers: dict[str, str] | None = None) -> answers.Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = CIMultiDictProxy(CIMultiDict(JSON if headers is None else headers))
    return answers.Answer(status, named, SimpleCookie(), content, "POST /api/v1/batch-search", NOW)


def test_what_never_left_was_not_sent_and_what_never_came_back_is_doubt() -> None:
    assert classify(answers.NotSent("no connection")) == NotSent("no connection")
    assert classify(answers.NoAnswer("timed out")) == Unknown("timed out")


@pytest.mark.parametrize(
    ("status", "location", "doubt"),
    [
        (302, "/api/v2/batch-search/7", True),
        (307, "https://elsewhere.example/api/v1/batch-search/a-b?x=1", True),
        (303, "/api/v2/batch-search", True),
        (307, "/api/v2/batch-search/", False),
        (308, "https://elsewhere.example/api/v2/batch-search", False),
        (302, "/sign-in?next=/", False),
    ],
)
def test_a_redirect_to_a_batch_may_be_an_acceptance(status: int, location: str, doubt: bool) -> None:
    outcome = classify(answer(status, b"", {"Location": location}))
    assert isinstance(outcome, Unknown if doubt else ServiceRefused)


@pytest.mark.parametrize("status", [200, 201, 202, 299])
@pytest.mark.parametrize(("sent", "kept"), [("617853b3", "617853b3"), (42, "42"), ("../x", "../x")])
def test_accepted_with_an_id(status: int, sent: object, kept: str) -> None:
    body = {"id": sent, "size": 2, "more": {"nested": []}}
    assert classify(answer(status, body)) == Accepted(kept, json.dumps(body))


def test_an_id_counts_whatever_the_content_type_says() -> None:
    assert classify(answer(200, {"id": "a"}, {"Content-Type": "text/html"})) == Accepted("a", '{"id": "a"}')


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"OK",
        PAGE,
        b'{"id": "a"',
        b"[" * 100_000,
        b"\xff\xfe",
        {"id": ""},
        {"id": "  "},
        {"id": None},
        {"id": True},
        {"id": 1.5},
        {"id": ["a"]},
        {"id": {"id": 1}},
        {},
        {"data": {"id": "a"}},
        ["a"],
        [{"id": "a"}],
        "a",
    ],
)
def test_success_without_a_readable_id_is_doubt(body: object) -> None:
    assert isinstance(classify(answer(200, body)), Unknown)


@pytest.mark.parametrize(
    "status", [100, 101, 406, 408, 409, 410, 415, 418, 423, 425, 451, 499, 500, 502, 503, 504, 520]
)
@pytest.mark.parametrize("body", [b"", PAGE, {"message": "no"}, {"id": "a"}])
def test_everything_doubtful_is_unknown(status: int, body: object) -> None:
    assert isinstance(classify(answer(status, body, JSON | {"Retry-After": "5"})), Unknown)


@pytest.mark.parametrize("status", [301, 302, 304, 307, 308, 401, 402, 403, 404, 405])
@pytest.mark.parametrize("body", [b"", PAGE, {"message": "Unauthorized"}])
def test_the_service_refuses(status: int, body: object) -> None:
    outcome = classify(answer(status, body))
    assert isinstance(outcome, ServiceRefused)
    assert outcome.status == status


def test_the_service_refuses_in_its_own_words() -> None:
    assert classify(answer(402, {"message": "Out of credits"})) == ServiceRefused("402: Out of credits", 402)


@pytest.mark.parametrize(
    ("location", "kind"),
    [("/login", ServiceRefused), ("https://sso.test/", ServiceRefused), ("/api/v1/batch-search/17", Unknown)],
)
def test_see_other_may_lead_to_a_batch_that_was_made(location: str, kind: type[Outcome]) -> None:
    assert isinstance(classify(answer(303, b"", {"Location": location})), kind)


def test_later_with_and_without_a_time() -> None:
    slow = {"message": "Slow down"}
    assert classify(answer(429, slow, JSON | {"Retry-After": "90"})) == Later("429: Slow down", timedelta(seconds=90))
    assert classify(answer(429, PAGE)) == Later("429: a web page", None)


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "Invalid target"}, "Invalid target"),
        ({"errors": ["a", "b"]}, "a; b"),
        ({"message": "Bad", "errors": {"targets.0": ["no\nSMILES"]}}, "Bad: targets.0: no SMILES"),
        ({"detail": "Too many"}, "Too many"),
        ({"code": 7}, '{"code": 7}'),
        ([1], "[1]"),
        (b"Invalid SMILES: C(C", "Invalid SMILES: C(C"),
    ],
)
def test_the_content_is_refused_in_the_vendors_words(status: int, body: object, words: str) -> None:
    assert classify(answer(status, body)) == Refused(words, status)


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("body", [b"", b"  \n", PAGE, b"<?xml version='1.0'?><Error/>"])
def test_a_refusal_that_is_not_the_vendors_blames_no_compound(status: int, body: bytes) -> None:
    assert isinstance(classify(answer(status, body)), ServiceRefused)


def test_words_are_short_and_printable() -> None:
    outcome = classify(answer(400, {"message": "a\x00\x1b[31m\n" * 1000}))
    assert isinstance(outcome, Refused)
    assert len(outcome.reason) <= 500
    assert outcome.reason.isprintable()


@pytest.mark.parametrize("depth", [11, 600])
def test_words_that_are_nested_too_deep_are_left_out(depth: int) -> None:
    body = b'{"message": "no", "errors": ' + b"[" * depth + b"1" + b"]" * depth + b"}"
    assert classify(answer(400, body)) == Refused("no: ...", 400)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "message", "errors"]), inner),
    max_leaves=6,
)
bodies = st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()) | st.just(PAGE)
header_sets = st.dictionaries(
    st.sampled_from(["Content-Type", "Location", "Retry-After"]), st.text(max_size=20), max_size=3
)


@given(st.integers(100, 599), header_sets, bodies)
@example(200, {}, b'{"id": 99999999999999999999999999}')
@example(400, {}, b'{"message": ' + b"[" * 5000 + b"]" * 5000 + b"}")
def test_every_answer_has_an_outcome_and_only_an_id_is_an_acceptance(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    outcome = classify(answer(status, body, headers))
    assert isinstance(outcome, Outcome)
    assert not isinstance(outcome, NotSent)
    if isinstance(outcome, Accepted):
        assert 200 <= status < 300
        assert outcome.remote_id
        assert '"id"' in outcome.answer or "\\u" in outcome.answer
    if status >= 500 or status in (408, 409):
        assert isinstance(outcome, Unknown)


class TestSameWords:
    @pytest.mark.parametrize(
        ("a", "b"),
        [
            ("", ""),
            ("Invalid SMILES: 'CCO'", "invalid smiles: 'c1ccccc1'"),
            ("Invalid SMILES: CCO", "Invalid SMILES: c1ccccc1C(=O)[O-]"),
            ('Invalid target "CC" at 3', 'Invalid target "CN" at 17.'),
            ("Request 617853b3-fc8b-47c6-a060-9dcae9a860de failed", "Request 1f failed"),
            ("Bad: targets.0: no SMILES", "Bad: targets.0: no SMILES; targets.12: no SMILES"),
        ],
    )
    def test_same(self, a: str, b: str) -> None:
        assert same_words(a, b)

    @pytest.mark.parametrize(
        ("a", "b"),
        [
            ("Invalid SMILES: 'CCO'", "Too many atoms: 'CCO'"),
            ("Out of credits", ""),
            ("Unknown detail level", "Unknown preset"),
        ],
    )
    def test_not_the_same(self, a: str, b: str) -> None:
        assert not same_words(a, b)

    @given(st.text(), st.text())
    def test_is_symmetric_and_reflexive(self, a: str, b: str) -> None:
        assert same_words(a, a)
        assert same_words(a, b) == same_words(b, a)

    @given(st.sampled_from(["CCO", "c1ccccc1", "C[C@H](N)C(=O)O", "[Na+].[Cl-]", "C/C=C\\C"]), st.integers())
    def test_quoted_molecules_and_numbers_do_not_count(self, smiles: str, number: int) -> None:
        assert same_words(f"Invalid target '{smiles}' at {number}", "Invalid target 'C' at 0")
