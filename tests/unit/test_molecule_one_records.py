"""Answers of Molecule.one as records: both spellings, numbers as strings, and whatever else may come."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from watcher.errors import Transient
from watcher.molecule_one.records import (
    Counts,
    RemoteBatch,
    ResultItem,
    read_counts,
    read_details,
    read_id,
    read_item,
    read_listing,
    read_results,
)

FULL_V1 = {
    "targetSmiles": "CCO",
    "status": "ok",
    "result": 7.53411,
    "certainty": 0.58163,
    "price": 5232.5,
    "reactionCount": 5,
    "timedOut": False,
    "synthesis": {"targetId": "1", "reactions": {}},
}
FULL_V2 = {
    "target_smiles": "CCO",
    "status": "ok",
    "result": 7.53411,
    "certainty": 0.58163,
    "price": 5232.5,
    "reaction_count": 5,
    "timed_out": False,
    "synthesis": {"targetId": "1", "reactions": {}},
    "name": "sample",
    "url": "/somewhere",
}


def item(**fields: Any) -> ResultItem:
    return read_item(json.dumps(fields).encode())


def read(value: Any) -> list[ResultItem]:
    return read_results(json.dumps(value).encode(), "the results")


class TestCounts:
    @pytest.mark.parametrize(
        ("counts", "size", "complete"),
        [
            (Counts(0, 0, 0, 0), 3, False),
            (Counts(0, 0, 0, 0), 0, False),
            (Counts(1, 0, 2, 0), 3, False),
            (Counts(0, 1, 2, 0), 3, False),
            (Counts(0, 1, 3, 0), 3, False),
            (Counts(0, 0, 2, 0), 3, False),
            (Counts(0, 0, 2, 1), 3, True),
            (Counts(0, 0, 0, 3), 3, True),
            (Counts(0, 0, 4, 0), 3, True),
        ],
    )
    def test_complete(self, counts: Counts, size: int, complete: bool) -> None:
        assert counts.complete(size) is complete

    @pytest.mark.parametrize(
        ("body", "counts"),
        [
            (b'{"queued":92,"running":4,"finished":104,"error":1}', Counts(92, 4, 104, 1)),
            (b'{"queued":"9","running":4.0,"finished":0,"error":0,"more":[]}', Counts(9, 4, 0, 0)),
            (b'{"queued":9,"running":4,"finished":1}', Counts(9, 4, 1, 0)),
        ],
    )
    def test_are_read(self, body: bytes, counts: Counts) -> None:
        assert read_counts(body, "x") == counts

    @pytest.mark.parametrize(
        "body",
        [b"", b"{}", b"[]", b"null", b'{"message":"wait"}', b'{"error":"busy"}', b'{"queued":null,"running":1}'],
    )
    def test_an_answer_without_them_is_transient(self, body: bytes) -> None:
        with pytest.raises(Transient, match=r"the status of batch 7"):
            read_counts(body, "the status of batch 7")


class TestListing:
    @pytest.mark.parametrize(
        ("value", "ids", "complete"),
        [
            ([], [], True),
            ({"data": [], "total": 0}, [], True),
            ({"data": [{"id": 1}, {"id": "b"}], "total": 2}, ["1", "b"], True),
            ({"data": [{"id": 1}], "total": "1"}, ["1"], True),
            ({"data": [{"id": 1}]}, ["1"], True),
            ({"data": [{"id": 1}], "total": 2}, ["1"], False),
            ({"data": [{"id": 1}, {"id": 1}], "total": 2}, ["1"], False),
            ({"data": [{"id": 1}, {"id": 1}], "total": 1}, ["1"], False),
            ({"data": [{"id": 1}], "total": 1, "next": "/page/2"}, ["1"], False),
            ({"data": [{"id": 1}], "total": "many"}, ["1"], False),
            ([{"id": 1}, {"name": "x"}], ["1"], False),
            ([{"id": 1}, None, 3], ["1"], False),
            ([{"id": 1}, "x", [], {"id": [1]}, {"id": {}}, {"id": True}], ["1"], False),
            ({"data": [{"id": 1}], "next": {"page": 2}}, ["1"], False),
            ({"data": [{"id": 1}], "next": {}, "hasMore": False}, ["1"], True),
            ({"data": [{"id": 1}], "total": [1]}, ["1"], False),
            ({"data": [{"id": 1}], "total": None, "count": 2}, ["1"], False),
        ],
    )
    def test_is_read_and_weighed(self, value: Any, ids: list[str], complete: bool) -> None:
        listing = read_listing(json.dumps(value).encode(), "x")
        assert ([batch.remote_id for batch in listing.batches], listing.complete) == (ids, complete)

    def test_keeps_names_and_sizes(self) -> None:
        body = b'[{"id":"a","name":"watcher/1/t","size":3,"inputParams":{}},{"id":"b","name":null,"size":"x"}]'
        assert read_listing(body, "x").batches == (RemoteBatch("a", "watcher/1/t", 3), RemoteBatch("b", None, None))

    @pytest.mark.parametrize("body", [b"", b"{}", b'{"data":{}}', b'{"message":"wait"}', b"3", b'[{"id":'])
    def test_no_list_is_transient(self, body: bytes) -> None:
        with pytest.raises(Transient, match="the listing"):
            read_listing(body, "the listing")


def test_details() -> None:
    body = b'{"id":"a","name":"n","size":1,"input_params":{},"createdAt":"2021-08-01T04:00:04.223Z"}'
    assert read_details(body, "x") == RemoteBatch("a", "n", 1)
    with pytest.raises(Transient):
        read_details(b'{"name":"n"}', "x")
    with pytest.raises(Transient, match="details"):
        read_details(b'{"id":"a","size":1}', "x")
    assert read_details(b'{"id":"a","name":null}', "x") == RemoteBatch("a", None, None)


@pytest.mark.parametrize(("value", "known"), [("a" * 200, True), ("a" * 201, False), (10**250, False), (" ", False)])
def test_an_id_has_a_length_that_every_database_can_index(value: object, known: bool) -> None:
    assert (read_id(value) is not None) is known


class TestResults:
    @pytest.mark.parametrize("document", [FULL_V1, FULL_V2])
    def test_both_spellings_read_alike(self, document: dict[str, Any]) -> None:
        (got,) = read([document])
        assert got == ResultItem(
            smiles="CCO",
            status="ok",
            result=7.53411,
            certainty=0.58163,
            price_usd=5232.5,
            reaction_count=5,
            timed_out=False,
            route='{"targetId": "1", "reactions": {}}',
            raw=json.dumps(document),
        )

    @pytest.mark.parametrize("key", ["reactionCount", "reactionsCount", "reaction_count", "reactions_count"])
    def test_every_spelling_of_the_reaction_count(self, key: str) -> None:
        assert item(**{key: 0}).reaction_count == 0
        assert item(**{"reactionCount": None, key: 4}).reaction_count == 4

    def test_the_item_is_kept_to_the_letter(self) -> None:
        raw = b'{ "targetSmiles":"C\\u0043O",  "result": 1.50, "unknown": {"b":1 , "a":[ ]} }'
        (got,) = read_results(b"[ " + raw + b" ]", "x")
        assert got.raw.encode() == raw
        assert got.smiles == "CCO"

    @pytest.mark.parametrize(
        ("fields", "kind"),
        [
            ({"status": "ok", "result": 3.2, "price": 1, "certainty": 1}, "scored"),
            ({"status": "ok", "result": 10, "price": 5, "certainty": 0.1}, "scored"),
            ({"status": "ok", "result": 10, "price": None, "certainty": 0}, "scored"),
            ({"status": "ok", "result": 10, "price": None, "certainty": None}, "no_route"),
            ({"status": "ok", "result": "10.0"}, "no_route"),
            ({"status": "ok", "result": -1}, "failed"),
            ({"status": "ok", "result": "-1.00"}, "failed"),
            ({"status": "error", "result": -1}, "failed"),
            ({"status": "error", "result": None}, "failed"),
            ({"status": "ERROR"}, "failed"),
            ({"status": "running"}, "running"),
            ({"status": "running", "result": 3}, "running"),
            ({"status": "queued"}, "running"),
            ({"status": "ok", "result": None}, "running"),
            ({"status": "ok", "result": "NaN"}, "running"),
            ({"status": None, "result": 3}, "scored"),
            ({"result": 3}, "scored"),
            ({"status": "done", "result": 3}, "scored"),
            ({}, "running"),
        ],
    )
    def test_kinds(self, fields: dict[str, Any], kind: str) -> None:
        assert item(targetSmiles="C", **fields).kind == kind

    @pytest.mark.parametrize("value", ["NaN", "inf", "-Infinity", "", "a lot", True, [1], {"a": 1}, None])
    def test_what_is_no_number_is_nothing(self, value: Any) -> None:
        got = item(result=value, certainty=value, price=value, reactionCount=value)
        assert (got.result, got.certainty, got.price_usd, got.reaction_count) == (None, None, None, None)

    @pytest.mark.parametrize(
        ("value", "read_as"), [(True, True), ("false", False), (" True", True), (1, None), ("x", None), (None, None)]
    )
    def test_timed_out(self, value: Any, read_as: bool | None) -> None:
        assert item(timedOut=value).timed_out is read_as

    def test_one_bad_item_hides_no_other(self) -> None:
        body = b'[{"targetSmiles":"C","result":NaN},{"targetSmiles":"N","result":2},{"targetSmiles":"\\ud800"},3,null]'
        got = read_results(body, "x")
        assert [(one.smiles, one.result) for one in got][:2] == [("C", None), ("N", 2.0)]
        assert [one.kind for one in got[2:]] == ["running"] * 3
        for one in got:
            one.raw.encode()
            one.smiles.encode()

    @pytest.mark.parametrize(
        "body", [b"", b"{}", b"null", b'{"message":"wait"}', b"[{}", b"<html>", b"[" * 100_000, b'[{"a":' * 100_000]
    )
    def test_no_list_is_transient(self, body: bytes) -> None:
        with pytest.raises(Transient, match="the results"):
            read_results(body, "the results")

    def test_more_results_than_any_batch_holds_are_not_read(self) -> None:
        with pytest.raises(Transient, match="more than 200000 results"):
            read_results(b"[" + b"0," * 300_000 + b"0]", "x")

    def test_more_batches_than_anybody_has_are_not_read(self) -> None:
        for body in (b"[" + b'{"id":1},' * 200_001 + b"0]", b'{"data":[' + b"0," * 200_001 + b"0]}"):
            with pytest.raises(Transient, match="more than 200000 batches"):
                read_listing(body, "x")

    @pytest.mark.parametrize("read", [read_listing, read_results])
    def test_what_is_nothing_but_commas_is_not_taken_apart(self, read: Callable[[bytes, str], object]) -> None:
        with pytest.raises(Transient, match="x answered with more values than can be told apart"):
            read(b"[" + b"0," * 8_000_001 + b"0]", "x")

    def test_what_is_no_json_is_mended_only_while_it_is_small(self) -> None:
        long = {"targetSmiles": "C", "more": "x" * 4_000_000}
        assert [one.smiles for one in read([long])] == ["C"]
        with pytest.raises(Transient, match=r"JSON that cannot be read: .* above 4000000 bytes nothing is done"):
            read([long, float("nan")])
        assert [one.smiles for one in read([{**long, "more": "x" * 3_000_000}, float("nan")])] == ["C", ""]

    def test_only_plain_values_are_read(self) -> None:
        got = item(targetSmiles=["C"], status={"a": 1}, result=[2], price={}, timedOut=[True], target_smiles="N")
        assert (got.smiles, got.status, got.result, got.price_usd, got.timed_out) == ("", "unknown", None, None, None)

    def test_depth_within_an_item_does_not_crash(self) -> None:
        deep = b'{"targetSmiles":"C","result":2,"synthesis":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        try:
            got = read_results(b"[" + deep + b"]", "x")
        except Transient:
            return
        assert len(got) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
known = st.sampled_from([*FULL_V1, *FULL_V2, "reactionsCount"])


@given(st.dictionaries(known | st.text(max_size=5), json_values, max_size=12))
@example({"targetSmiles": "C", "result": 10**400})
@example({"result": "1" * 400})
@example({"\ud800": 1})
def test_reading_never_raises_on_an_object(document: dict[str, Any]) -> None:
    for text in (json.dumps(document), json.dumps(document, ensure_ascii=False)):
        raw = text.encode("utf-8", "surrogatepass")
        got = read_item(raw)
        assert got.kind in ("scored", "no_route", "failed", "running")
        got.raw.encode()
        got.smiles.encode()


@given(
    result=st.floats(1, 10),
    certainty=st.none() | st.floats(0, 1),
    price=st.none() | st.floats(0, 1e9),
    count=st.integers(0, 99),
)
def test_numbers_as_strings_are_the_same_numbers(
    result: float, certainty: float | None, price: float | None, count: int
) -> None:
    fields = {"result": result, "certainty": certainty, "price": price, "reactionCount": count}
    plain = item(status="ok", **fields)
    text = item(status="ok", **{key: None if value is None else str(value) for key, value in fields.items()})
    same = ("result", "certainty", "price_usd", "reaction_count", "kind")
    assert [getattr(plain, name) for name in same] == [getattr(text, name) for name in same]
