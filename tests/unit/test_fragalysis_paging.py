"""A listing is read whole or not at all, however it is cut into pages."""

from http.cookies import SimpleCookie
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from tests.support.clock import FakeClock
from tests.support.fragalysis import PROJECTS, TARGETS, answer, rows, stack
from watcher.answers import Answer
from watcher.errors import Failure, Invalid, Transient
from watcher.fragalysis.paging import read_listing
from watcher.fragalysis.records import ObservationRow, TargetRow


def page(body: bytes) -> Answer:
    return Answer(200, CIMultiDictProxy(CIMultiDict[str]()), SimpleCookie(), body, "GET /x/", FakeClock().now())


class Pages:
    """Stands in for a session: pages that were cut beforehand, and `next` links on a foreign host."""

    def __init__(self, pages: list[list[int]], counts: list[int]) -> None:
        self.pages = pages
        self.counts = counts
        self.reads = 0

    async def get(self, path: str, *, operation: str, params: dict[str, Any]) -> Answer:
        index = int(params.get("offset", 0))
        self.reads += index == 0
        more = index + 1 < len(self.pages)
        document = {
            "count": self.counts[index],
            "next": f"http://wrong.example:1/elsewhere/?limit=9&offset={index + 1}" if more else None,
            "results": [{"id": number, "title": f"T{number}"} for number in self.pages[index]],
        }
        return page(msgspec.json.encode(document))

    def json(self, answer: Answer, type_: Any) -> Any:
        return answer.json(type_)


async def ids(pages: Pages) -> set[int]:
    listing = await read_listing(pages, "/api/targets/", TargetRow, operation="targets")  # type: ignore[arg-type]
    assert len({row.id for row in listing}) == len(listing)
    return {int(row.id) for row in listing}


def cut(numbers: list[int], places: set[int]) -> list[list[int]]:
    edges = [0, *sorted(place for place in places if 0 < place < len(numbers)), len(numbers)]
    return [numbers[start:end] for start, end in pairwise(edges)]


@given(st.sets(st.integers(0, 10**6), max_size=30), st.sets(st.integers(0, 30)), st.randoms())
async def test_any_split_gives_the_same(numbers: set[int], places: set[int], random: Any) -> None:
    order = sorted(numbers)
    random.shuffle(order)
    pages = cut(order, places)
    assert await ids(Pages(pages, [len(order)] * len(pages))) == numbers


@given(st.sets(st.integers(0, 10**6), min_size=2, max_size=30), st.sets(st.integers(0, 30)), st.data())
async def test_a_repeat_or_a_skip_never_passes(numbers: set[int], places: set[int], data: st.DataObject) -> None:
    order = sorted(numbers)
    lost = data.draw(st.sampled_from(order))
    seen_twice = data.draw(st.sampled_from([number for number in order if number != lost]))
    changed = [seen_twice if number == lost else number for number in order]
    if data.draw(st.booleans()):
        changed.remove(seen_twice)
    pages = Pages(cut(changed, places), [])
    pages.counts = [len(order)] * len(pages.pages)
    with pytest.raises(Transient, match="does not add up"):
        await ids(pages)
    assert pages.reads == 3


async def test_the_count_of_the_last_page_counts() -> None:
    assert await ids(Pages([[1, 2], [3, 4]], [3, 4])) == {1, 2, 3, 4}


async def test_a_listing_that_adds_up_at_the_second_reading() -> None:
    page, other = {"id": 1, "title": "A"}, {"id": 2, "title": "B"}
    replies = {TARGETS: [rows(page, page), rows(page, other)], PROJECTS: rows()}
    async with stack(replies) as server, server.client() as client:
        assert [target.target_id for target in await client.target_list()] == [1, 2]
        assert [request.query["limit"] for request in server.asked(TARGETS)] == ["5000", "5000"]


async def test_next_is_followed_on_our_origin_with_our_filter() -> None:
    def reply(request: web.Request) -> web.StreamResponse:
        first = "offset" not in request.query
        row = {"id": 1 if first else 2, "code": "A", "smiles": "C"}
        link = "https://user:pw@evil.example//elsewhere/?limit=1&offset=1&target=999" if first else None
        return answer({"count": 2, "next": link, "results": [row]})(request)

    async with stack({"/api/site_observations/": reply}) as server, server.client("t0ken") as client:
        assert [o.observation_id for o in await client.get_target_compound_smiles(5)] == [1, 2]
        assert [dict(request.query) for request in server.requests] == [
            {"limit": "5000", "target": "5"},
            {"limit": "1", "offset": "1", "target": "5"},
        ]


@pytest.mark.parametrize("link", ["/api/targets/?offset=1", "http://[broken"])
async def test_links_that_lead_nowhere(link: str) -> None:
    replies = {TARGETS: rows({"id": 1, "title": "A"}, next=link), PROJECTS: rows()}
    async with stack(replies) as server, server.client() as client:
        with pytest.raises(Transient):
            await client.target_list()
        assert len(server.requests) < 10


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": 7, "code": "A", "smiles": 5}, r"/api/site_observations/ row 7: .*smiles"),
        ({"id": 7, "code": "A"}, r"row 7: .*smiles"),
        ({"id": "x7", "code": "A", "smiles": "C"}, r"row x7: `id` is 'x7'"),
        ({"code": "A", "smiles": "C"}, r"row None: .*id"),
        ({"id": [7], "code": "A", "smiles": "C"}, r"row without an id: .*id"),
        ([1], "site_observations"),
    ],
)
async def test_a_row_of_another_shape_is_named(row: Any, said: str) -> None:
    good = {"id": 1, "code": "A", "smiles": "C"}
    async with stack({"/api/site_observations/": rows(good, row)}) as server, server.client() as client:
        with pytest.raises(Invalid, match=said):
            await client.get_target_compound_smiles(1)


async def test_unknown_and_missing_optional_fields_are_tolerated() -> None:
    old = {"id": "12", "code": None, "smiles": None, "superseded": None, "new_field": {"deep": [1]}}
    gone = {"id": 13, "code": "A", "smiles": "C", "superseded": True}
    async with stack({"/api/site_observations/": rows(old, gone)}) as server, server.client() as client:
        (observation,) = await client.get_target_compound_smiles(1)
    assert (observation.observation_id, observation.code, observation.longcode) == (12, "", "")
    assert (observation.smiles, observation.compound_code) == ("", None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    ["id", "code", "smiles", "longcode", "compound_code", "superseded", "count", "next", "results"]
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(fields, json_values) | json_values)
async def test_any_json_is_read_or_refused_in_our_words(document: Any) -> None:
    class Session:
        async def get(self, path: str, **_: Any) -> Answer:
            return page(msgspec.json.encode(document))

        def json(self, answer: Answer, type_: Any) -> Any:
            return answer.json(type_)

    try:
        await read_listing(Session(), "/x/", ObservationRow, operation="x")  # type: ignore[arg-type]
    except Failure as failure:
        assert failure.message  # noqa: PT017


async def test_pages_without_an_end_are_not_kept() -> None:
    class Session:
        reads = 0

        async def get(self, path: str, **_: Any) -> Answer:
            self.reads += 1
            more = {"next": f"/x/?offset={self.reads}", "more": "x" * 10**7}
            return page(msgspec.json.encode({"count": 1, "results": [{"id": self.reads, "title": "A"}], **more}))

        def json(self, answer: Answer, type_: Any) -> Any:
            return answer.json(type_)

    session = Session()
    with pytest.raises(Transient, match="the pages of the listing /x/ are more than 128000000 bytes"):
        await read_listing(session, "/x/", TargetRow, operation="x")  # type: ignore[arg-type]
    assert session.reads == 13
