"""Whose an unattributed batch is, told by its results."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.molecule_one import ResultItem
from watcher.molecule_one.records import read_item
from watcher.pipeline.find_batches import Doubtful, attribute, doubtful_of, may_be_ours


def shown(*smiles: str) -> list[ResultItem]:
    return [read_item(json.dumps({"targetSmiles": one, "status": "ok", "result": 2}).encode()) for one in smiles]


ONE = Doubtful(1, frozenset("abc"), frozenset("ab"))
TWO = Doubtful(2, frozenset("cde"), frozenset("de"))


@pytest.mark.parametrize(
    ("results", "whose"),
    [
        (shown(), None),
        (shown("a"), 1),
        (shown("a", "b", "c"), 1),
        (shown("c"), None),
        (shown("d", "c"), 2),
        (shown("a", "x"), None),
        (shown("x"), None),
        (shown("a", "d"), None),
        (shown(""), None),
    ],
    ids=repr,
)
def test_a_string_of_its_own_must_show_and_nothing_that_it_did_not_send(
    results: list[ResultItem], whose: int | None
) -> None:
    assert attribute(results, [ONE, TWO]) == whose


@pytest.mark.parametrize(
    ("results", "may_be"),
    [(shown(), True), (shown("c"), True), (shown("x", ""), True), (shown("a", "x"), False), (shown("a", "d"), False)],
    ids=repr,
)
def test_only_what_it_certainly_did_not_send_makes_a_batch_somebody_elses(
    results: list[ResultItem], may_be: bool
) -> None:
    assert may_be_ours(results, [ONE.strings, TWO.strings]) is may_be


def test_size_proves_nothing() -> None:
    same = [Doubtful(1, frozenset("ab"), frozenset()), Doubtful(2, frozenset("ab"), frozenset())]
    assert attribute(shown("a", "b"), same) is None


@given(st.dictionaries(st.integers(1, 5), st.frozensets(st.sampled_from("abcdef")), max_size=4))
def test_what_is_unique_is_in_no_other(strings: dict[int, frozenset[str]]) -> None:
    for one in doubtful_of(strings):
        assert one.unique <= one.strings == strings[one.batch_id]
        assert all(not one.unique & theirs for other, theirs in strings.items() if other != one.batch_id)
        whole = set.union(set(), *strings.values())
        assert {s for s in one.strings if sum(s in theirs for theirs in strings.values()) == 1} == one.unique <= whole


@given(st.dictionaries(st.integers(1, 4), st.frozensets(st.sampled_from("abcdef"), min_size=1), max_size=4), st.data())
def test_a_part_of_what_one_sent_is_never_taken_for_another(
    strings: dict[int, frozenset[str]], data: st.DataObject
) -> None:
    for batch_id, mine in strings.items():
        part = data.draw(st.frozensets(st.sampled_from(sorted(mine)), min_size=1))
        assert attribute(shown(*part), doubtful_of(strings)) in (None, batch_id)
