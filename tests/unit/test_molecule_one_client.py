"""The client in both dialects: what it sends, and what it makes of each answer."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aioresponses import aioresponses
from yarl import URL

from tests.support.clock import FakeClock
from tests.support.network import site
from watcher.errors import AuthFailure, Failure, Invalid, SettingsError, Transient
from watcher.molecule_one import (
    Accepted,
    BatchUnknown,
    Counts,
    Later,
    Listing,
    MoleculeOne,
    NotSent,
    RemoteBatch,
    ServiceRefused,
    Unknown,
)
from watcher.molecule_one.dialects import V1, V2
from watcher.settings import Settings

BASE = "https://vendor.test"
TOKEN = "t0ken-of-ours"
PAGE = "<html><title>404 Not Found</title></html>"
OWN_404 = {"message": "Batch search not found"}


def make(version: str = "v1", token: str = TOKEN, **values: Any) -> MoleculeOne:
    own = {"base_url": BASE, "api_version": version, "token": token, "requests_per_second": 100, **values}
    return MoleculeOne(Settings().replace("molecule_one", **own), clock=FakeClock())


@pytest.fixture(params=["v1", "v2"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def client(version: str) -> AsyncIterator[MoleculeOne]:
    async with make(version) as made:
        yield made


def status_url(version: str) -> str:
    return f"{BASE}/api/v1/batch-search/b1" if version == "v1" else f"{BASE}/api/v2/batch-search-status/b1"


class TestPayload:
    def test_v1(self) -> None:
        body = make(priority=7, exploratory_search=True, parameters={"more": [1]}).payload(["CC", "C#N"], "ignored")
        assert json.loads(body) == {
            "targets": ["CC", "C#N"],
            "params": {"exploratorySearch": True, "detailLevel": "score", "priority": 7, "more": [1]},
        }

    def test_v2(self) -> None:
        client = make("v2", preset="mine", detail_level="best_path", parameters={"length": "short"})
        assert json.loads(client.payload(["CC"], "watcher/1/token")) == {
            "targets": ["CC"],
            "parameters": {"length": "short"},
            "detail_level": "best_path",
            "priority": 5,
            "invalid_target_strategy": "pass",
            "name": "watcher/1/token",
            "preset": "mine",
        }
        assert "preset" not in json.loads(make("v2").payload(["CC"], "n"))

    def test_the_same_order_gives_the_same_bytes(self, version: str) -> None:
        smiles = ["C[C@H](N)C(=O)O", "C/C=C\\C", "[NH4+].[Cl-]"]
        assert make(version).payload(smiles, "n") == make(version).payload(tuple(smiles), "n")
        assert json.loads(make(version).payload(smiles, "n"))["targets"] == smiles

    @pytest.mark.parametrize("smiles", [[], ["CC", "CC"]])
    def test_nothing_is_paid_twice_within_a_batch(self, version: str, smiles: list[str]) -> None:
        with pytest.raises(ValueError, match="distinct"):
            make(version).payload(smiles, "n")


@pytest.mark.parametrize("dialect", [V1, V2])
@pytest.mark.parametrize(
    "remote_id", ["..", ".", "../../admin", "a/b", "a?x=1", "a#b", "a%2Fb", "ä", "a b", "\r\nX: y"]
)
def test_an_id_stays_one_segment_of_the_path(dialect: Any, remote_id: str) -> None:
    for path in (dialect.status_path(remote_id), dialect.results_path(remote_id), dialect.batch_path(remote_id)):
        url = URL(BASE + path, encoded=True)
        assert len(url.raw_path.split("/")) == 5
        assert url.raw_path.split("/")[-1] not in (".", "..")
        assert not url.raw_query_string
        assert path.isascii()
        assert path.isprintable()


class TestToken:
    @pytest.mark.parametrize("token", ["se cret", "secret\n", "\tsecret", "sécret", "secret\r\nX: y", "secret\x00"])
    def test_one_that_cannot_stand_in_a_header_is_a_setting_to_mend(self, token: str) -> None:
        with pytest.raises((SettingsError, ValueError), match="token") as caught:
            make(token=token)
        assert "cret" not in str(caught.value)

    async def test_without_one_nothing_is_asked(self, responses: aioresponses) -> None:
        async with make(token="") as client:
            assert await client.create(b"{}") == ServiceRefused("molecule_one.token is empty", 401)
            with pytest.raises(AuthFailure):
                await client.status("b1")
            with pytest.raises(AuthFailure):
                await client.list_batches()
        assert not responses.requests

    async def test_it_is_sent_and_never_told(self, client: MoleculeOne, version: str, responses: aioresponses) -> None:
        responses.get(status_url(version), status=400, payload={"message": f"bad token {TOKEN}"})
        with pytest.raises(Invalid) as caught:
            await client.status("b1")
        assert "bad token" in str(caught.value)
        assert TOKEN not in repr(caught.value) + repr(vars(caught.value))
        call = responses.requests["GET", URL(status_url(version))][0]
        assert call.kwargs["headers"]["Authorization"] == f"ApiToken-v1 {TOKEN}"
        responses.post(f"{BASE}/api/{version}/batch-search", payload={"id": "b1", "token": TOKEN})
        outcome = await client.create(b"{}")
        assert isinstance(outcome, Accepted)
        assert TOKEN not in outcome.answer


class TestCreate:
    async def test_posts_the_very_bytes(self, client: MoleculeOne, version: str, responses: aioresponses) -> None:
        url = f"{BASE}/api/{version}/batch-search"
        responses.post(url, payload={"id": "b1", "size": 1})
        assert await client.create(b'{"targets": ["CC"] }') == Accepted("b1", '{"id": "b1", "size": 1}')
        (call,) = responses.requests["POST", URL(url)]
        assert call.kwargs["data"] == b'{"targets": ["CC"] }'
        assert call.kwargs["allow_redirects"] is False

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 408])
    async def test_never_posts_twice(
        self, client: MoleculeOne, version: str, responses: aioresponses, status: int
    ) -> None:
        url = f"{BASE}/api/{version}/batch-search"
        responses.post(url, status=status, headers={"Retry-After": "0"}, repeat=True)
        outcome = await client.create(b"{}")
        assert isinstance(outcome, Later if status == 429 else Unknown)
        assert len(responses.requests["POST", URL(url)]) == 1

    @pytest.mark.parametrize("error", [aiohttp.ClientError("x"), TimeoutError(), OSError(5, "x"), RuntimeError("x")])
    async def test_never_raises(
        self, client: MoleculeOne, version: str, responses: aioresponses, error: Exception
    ) -> None:
        responses.post(f"{BASE}/api/{version}/batch-search", exception=error)
        assert isinstance(await client.create(b"{}"), NotSent)

    @pytest.mark.parametrize("status", [200, 201, 400, 401, 404, 413, 422, 429])
    async def test_an_answer_that_is_too_long_is_doubt(self, version: str, status: int) -> None:
        async def handler(_: web.Request) -> web.Response:
            return web.json_response({"id": "b1", "message": "no", "more": "x" * 10**6}, status=status)

        async with site(handler) as url, make(version, base_url=url) as client:
            assert isinstance(await client.create(b"{}"), Unknown)

    async def test_an_answer_may_repeat_what_was_sent(self, version: str) -> None:
        async def handler(request: web.Request) -> web.Response:
            return web.json_response({"id": "b1", **await request.json()})

        body = json.dumps({"targets": ["C" * 10**6]}).encode()
        async with site(handler) as url, make(version, base_url=url) as client:
            assert isinstance(await client.create(body), Accepted)


class TestStatus:
    async def test_counts(self, client: MoleculeOne, version: str, responses: aioresponses) -> None:
        responses.get(status_url(version), payload={"queued": 1, "running": 2, "finished": 3, "error": 4})
        assert await client.status("b1") == Counts(1, 2, 3, 4)

    async def test_only_what_is_long_by_nature_may_be_long(self) -> None:
        async def handler(request: web.Request) -> web.Response:
            rest = {"more": "x" * 10**6}
            if "status" in request.path or request.method == "DELETE":
                return web.json_response({"finished": 1, **rest})
            row = {"id": "b1", "name": None, "result": 2, **rest}
            details = request.path.endswith("batch-search/b1")
            return web.json_response(row if details else [row])

        async with site(handler) as url, make("v2", base_url=url) as client:
            assert len(await client.results("b1")) == 1
            assert await client.list_batches() == Listing((RemoteBatch("b1", None, None),), complete=True)
            assert await client.details("b1") == RemoteBatch("b1", None, None)
            for call in (client.status, client.delete):
                with pytest.raises(Transient, match="the most that is read of it"):
                    await call("b1")

    @pytest.mark.parametrize(
        ("status", "body", "kind"),
        [
            (404, OWN_404, BatchUnknown),
            (410, OWN_404, BatchUnknown),
            (404, PAGE, Transient),
            (404, "", Transient),
            (404, "Not Found", Transient),
            (410, PAGE, Transient),
            (400, {"message": "no"}, Invalid),
            (400, PAGE, Transient),
            (401, "", AuthFailure),
            (402, {"message": "Out of credits"}, AuthFailure),
            (403, PAGE, AuthFailure),
            (409, {"message": "busy"}, Invalid),
            (429, {"message": "slow"}, Transient),
            (500, {"message": "no"}, Transient),
            (503, PAGE, Transient),
            (302, "", Transient),
            (200, PAGE, Transient),
            (200, "", Transient),
            (200, "[]", Transient),
            (200, {"message": "maintenance"}, Transient),
        ],
    )
    async def test_each_answer_has_its_kind(
        self,
        client: MoleculeOne,
        version: str,
        responses: aioresponses,
        status: int,
        body: Any,
        kind: type[Failure],
    ) -> None:
        content = {"body": body, "content_type": "text/html"} if body == PAGE else {"body": body}
        responses.get(
            status_url(version),
            status=status,
            repeat=True,
            **(content if isinstance(body, str) else {"payload": body}),
        )
        with pytest.raises(kind) as caught:
            await client.status("b1")
        assert type(caught.value) is kind or (kind is Transient and isinstance(caught.value, Transient))
        assert "batch b1" in str(caught.value)

    async def test_retry_after_is_handed_on(self, client: MoleculeOne, version: str, responses: aioresponses) -> None:
        responses.get(status_url(version), status=429, headers={"Retry-After": "90"})
        with pytest.raises(Transient) as caught:
            await client.status("b1")
        assert caught.value.retry_after == timedelta(seconds=90)

    async def test_reading_is_tried_again(self, client: MoleculeOne, version: str, responses: aioresponses) -> None:
        responses.get(status_url(version), status=502)
        responses.get(status_url(version), exception=aiohttp.ServerDisconnectedError())
        responses.get(status_url(version), payload={"queued": 0, "running": 0, "finished": 1, "error": 0})
        assert (await client.status("b1")).finished == 1


class TestResults:
    async def test_read(self, client: MoleculeOne, version: str, responses: aioresponses) -> None:
        smiles = "targetSmiles" if version == "v1" else "target_smiles"
        row = {smiles: "CC", "status": "ok", "result": "7.53"}
        responses.get(f"{BASE}/api/{version}/batch-search-result/b1", payload=[row])
        assert [(one.smiles, one.result) for one in await client.results("b1")] == [("CC", 7.53)]

    async def test_unknown_batch(self, client: MoleculeOne, version: str, responses: aioresponses) -> None:
        responses.get(f"{BASE}/api/{version}/batch-search-result/b1", status=404, payload=OWN_404)
        with pytest.raises(BatchUnknown):
            await client.results("b1")


class TestListing:
    async def test_v1(self, responses: aioresponses) -> None:
        responses.get(f"{BASE}/api/v1/batch-search", payload={"data": [{"id": 1}], "total": 1})
        async with make("v1") as client:
            assert await client.list_batches() == Listing((RemoteBatch("1", None, None),), complete=True)

    async def test_v2(self, responses: aioresponses) -> None:
        responses.get(f"{BASE}/api/v2/batch-search", payload=[{"id": "a", "name": "n", "size": 2}])
        async with make("v2") as client:
            assert await client.list_batches() == Listing((RemoteBatch("a", "n", 2),), complete=True)

    @pytest.mark.parametrize("status", [404, 405, 501])
    async def test_none(self, client: MoleculeOne, version: str, responses: aioresponses, status: int) -> None:
        responses.get(f"{BASE}/api/{version}/batch-search", status=status, payload={"message": "no"}, repeat=True)
        assert await client.list_batches() is None

    async def test_a_page_says_none_only_where_no_listing_is_documented(
        self, client: MoleculeOne, version: str, responses: aioresponses
    ) -> None:
        url = f"{BASE}/api/{version}/batch-search"
        responses.get(url, status=404, body=PAGE, content_type="text/html")
        if version == "v1":
            assert await client.list_batches() is None
        else:
            with pytest.raises(Transient):
                await client.list_batches()

    @pytest.mark.parametrize(("status", "kind"), [(401, AuthFailure), (402, AuthFailure), (500, Transient)])
    async def test_failures(
        self, client: MoleculeOne, version: str, responses: aioresponses, status: int, kind: type[Failure]
    ) -> None:
        responses.get(f"{BASE}/api/{version}/batch-search", status=status, repeat=True)
        with pytest.raises(kind, match="listing"):
            await client.list_batches()


class TestDetails:
    async def test_v1_has_none(self, responses: aioresponses) -> None:
        async with make("v1") as client:
            assert client.names_batches is False
            assert await client.details("b1") is None

    async def test_v2(self, responses: aioresponses) -> None:
        url = f"{BASE}/api/v2/batch-search/b1"
        responses.get(url, payload={"id": "b1", "name": "watcher/1/t", "size": 2, "input_params": {}})
        responses.get(url, status=404, payload=OWN_404)
        async with make("v2") as client:
            assert client.names_batches is True
            assert await client.details("b1") == RemoteBatch("b1", "watcher/1/t", 2)
            with pytest.raises(BatchUnknown):
                await client.details("b1")

    async def test_of_another_batch_are_not_believed(self, responses: aioresponses) -> None:
        responses.get(f"{BASE}/api/v2/batch-search/b1", payload={"id": "b2", "name": "watcher/1/t", "size": 2})
        async with make("v2") as client:
            with pytest.raises(Transient, match="batch b1 are those of batch b2"):
                await client.details("b1")


class TestDelete:
    @pytest.mark.parametrize("status", [200, 202, 204, 404, 410])
    async def test_done_or_gone(self, client: MoleculeOne, version: str, responses: aioresponses, status: int) -> None:
        url = f"{BASE}/api/{version}/batch-search/b1"
        responses.delete(url, status=status, body="" if status == 204 else json.dumps(OWN_404))
        await client.delete("b1")
        assert len(responses.requests["DELETE", URL(url)]) == 1

    @pytest.mark.parametrize("status", [404, 500])
    async def test_a_proxys_page_is_no_deletion(
        self, client: MoleculeOne, version: str, responses: aioresponses, status: int
    ) -> None:
        responses.delete(f"{BASE}/api/{version}/batch-search/b1", status=status, body=PAGE, content_type="text/html")
        with pytest.raises(Transient):
            await client.delete("b1")
