"""The Molecule.one sandbox answers as the API documents say, and its books forget nothing."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from watcher.sandbox import Listing, Sandbox

TWO = ["CC(=O)Nc1ccc(O)cc1", "CCO"]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(catalogue=None) as sandbox:
        yield sandbox


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"ApiToken-v1 {sandbox.molecule_one.token}"}
    async with aiohttp.ClientSession(sandbox.molecule_one.url, headers=headers) as session:
        yield session


async def call(client: aiohttp.ClientSession, method: str, path: str, **kwargs: Any) -> tuple[int, Any]:
    async with client.request(method, path, **kwargs) as response:
        return response.status, await response.json()


async def create(client: aiohttp.ClientSession, version: str, targets: list[str], **more: Any) -> str:
    status, reply = await call(client, "POST", f"/api/{version}/batch-search", json={"targets": targets, **more})
    assert status == 200, reply
    assert reply["size"] == len(targets)
    assert reply["createdAt"].endswith("Z")
    return str(reply["id"])


async def results(client: aiohttp.ClientSession, version: str, batch: str, query: str = "") -> list[dict[str, Any]]:
    status, reply = await call(client, "GET", f"/api/{version}/batch-search-result/{batch}{query}")
    assert status == 200
    return list(reply)


@pytest.mark.parametrize("header", [None, "sandbox-token", "Bearer sandbox-token", "ApiToken-v1 other"])
async def test_no_token_no_service(sandbox: Sandbox, header: str | None) -> None:
    headers = {"Authorization": header} if header else {}
    async with aiohttp.ClientSession(sandbox.molecule_one.url, headers=headers) as client:
        for method, path in (("POST", "/api/v1/batch-search"), ("GET", "/api/v2/batch-search")):
            assert await call(client, method, path) == (401, {"message": "Unauthorized"})
    assert sandbox.molecule_one.ledger.total == 0


async def test_version_one_from_order_to_result(sandbox: Sandbox, client: aiohttp.ClientSession) -> None:
    batch = await create(client, "v1", TWO, params={"exploratorySearch": False, "detailLevel": "score", "priority": 5})
    path = f"/api/v1/batch-search/{batch}"
    assert await call(client, "GET", path) == (200, {"queued": 0, "running": 0, "finished": 0, "error": 0})
    assert await call(client, "GET", path) == (200, {"queued": 0, "running": 0, "finished": 2, "error": 0})
    found = {row["targetSmiles"]: row for row in await results(client, "v1", batch)}
    row = found["CC(=O)Nc1ccc(O)cc1"]
    assert (row["status"], row["result"], row["timedOut"], row["synthesis"]) == ("ok", 1.407, False, None)
    assert row["reactionCount"] == row["reactionsCount"]
    some = await results(client, "v1", batch, "?only=targetSmiles&only=result&only=price&precision=2")
    only = {each["targetSmiles"]: each for each in some}
    assert only.keys() == set(TWO)
    assert all(each.keys() == {"targetSmiles", "result", "price"} for each in some)
    assert only["CCO"]["result"] == f"{found['CCO']['result']:.2g}"
    assert isinstance(only["CCO"]["price"], str)
    assert await call(client, "DELETE", path) == (200, {"id": batch})
    assert (await call(client, "GET", path))[0] == 404
    assert (await call(client, "DELETE", path))[0] == 404
    assert sandbox.molecule_one.ledger.total == 2, "deleting does not unbuy"


async def test_version_two_from_order_to_result(sandbox: Sandbox, client: aiohttp.ClientSession) -> None:
    batch = await create(
        client,
        "v2",
        TWO,
        name="watcher/one/token",
        detail_level="best_path",
        priority=8,
        preset="fast",
        parameters={"length": "short"},
        targets_metadata={"1": {"name": "ethanol"}},
    )
    status, details = await call(client, "GET", f"/api/v2/batch-search/{batch}")
    assert status == 200
    assert details["name"] == "watcher/one/token"
    assert (details["size"], details["detail_level"], details["preset"]) == (2, "best_path", "fast")
    path = f"/api/v2/batch-search-status/{batch}"
    assert sum((await call(client, "GET", path))[1].values()) == 0
    assert (await call(client, "GET", path))[1] == {"queued": 0, "running": 0, "finished": 2, "error": 0}
    fields = await results(client, "v2", batch, "?only[]=target_smiles&only[]=result")
    assert [row.keys() for row in fields] == [{"target_smiles", "result"}] * 2
    found = {row["target_smiles"]: row for row in await results(client, "v2", batch)}
    assert found.keys() == set(TWO)
    assert found["CCO"]["target_metadata_name"] == "ethanol"
    assert found["CCO"]["synthesis"]["compounds"]["c0"]["smiles"] == "CCO"
    booking = sandbox.molecule_one.ledger.batches[0]
    assert (booking.batch_id, booking.name, booking.version) == (batch, "watcher/one/token", "v2")
    assert booking.smiles == tuple(TWO)


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_results_come_bit_by_bit_in_an_order_of_their_own(
    sandbox: Sandbox, client: aiohttp.ClientSession, version: str
) -> None:
    targets = [f"{'C' * size}O" for size in range(1, 9)]
    sandbox.molecule_one.pace.manual = True
    batch = await create(client, version, targets)
    assert await results(client, version, batch) == []
    sandbox.molecule_one.finish(3)
    key = "targetSmiles" if version == "v1" else "target_smiles"
    first = [row[key] for row in await results(client, version, batch)]
    assert len(first) == 3
    path = f"/api/{version}/batch-search{'' if version == 'v1' else '-status'}/{batch}"
    await call(client, "GET", path)
    assert (await call(client, "GET", path))[1] == {"queued": 1, "running": 4, "finished": 3, "error": 0}
    sandbox.molecule_one.finish()
    whole = [row[key] for row in await results(client, version, batch)]
    assert whole[:3] == first
    assert sorted(whole) == sorted(targets)
    assert whole != targets


async def test_invalid_molecules(sandbox: Sandbox, client: aiohttp.ClientSession) -> None:
    sandbox.molecule_one.vendor.invalid.add("cc")
    targets = ["CCO", "cc"]
    for version in ("v1", "v2"):
        status, reply = await call(client, "POST", f"/api/{version}/batch-search", json={"targets": targets})
        assert status == 400
        assert reply["errors"][0]["target"] == "cc"
        assert "cc" in reply["message"]
    assert sandbox.molecule_one.ledger.total == 0
    passed = await create(client, "v2", targets, invalid_target_strategy="pass")
    found = {row["target_smiles"]: row for row in await results(client, "v2", passed)}
    assert (found["cc"]["status"], found["cc"]["result"]) == ("error", -1)
    path = f"/api/v2/batch-search-status/{passed}"
    await call(client, "GET", path)
    assert (await call(client, "GET", path))[1] == {"queued": 0, "running": 0, "finished": 1, "error": 1}
    sandbox.molecule_one.v1_invalid = "pass"
    await create(client, "v1", targets)
    assert sandbox.molecule_one.ledger.purchases == {"CCO": 2, "cc": 2}


@pytest.mark.parametrize(
    ("version", "body"),
    [
        ("v1", {}),
        ("v1", {"targets": []}),
        ("v1", {"targets": "CCO"}),
        ("v1", {"targets": [1]}),
        ("v1", {"targets": ["C"], "params": {"detailLevel": "best_path"}}),
        ("v1", {"targets": ["C"], "params": {"priority": 11}}),
        ("v2", {"targets": ["C"], "detail_level": "everything"}),
        ("v2", {"targets": ["C"], "priority": "5"}),
        ("v2", {"targets": ["C"], "invalid_target_strategy": "ignore"}),
        ("v2", {"targets": ["C"], "parameters": []}),
        ("v2", {"targets": ["C"] * 100_001}),
    ],
)
async def test_nonsense_is_refused(
    sandbox: Sandbox, client: aiohttp.ClientSession, version: str, body: dict[str, Any]
) -> None:
    if body.get("parameters") == []:
        body = {**body, "parameters": [1]}
    status, reply = await call(client, "POST", f"/api/{version}/batch-search", json=body)
    assert status == 400
    assert reply["message"]
    assert sandbox.molecule_one.ledger.total == 0


async def test_a_body_that_is_no_json_is_refused(client: aiohttp.ClientSession) -> None:
    assert (await call(client, "POST", "/api/v2/batch-search", data=b"{"))[0] == 400


async def test_listing_and_its_moods(sandbox: Sandbox, client: aiohttp.ClientSession) -> None:
    server = sandbox.molecule_one
    ids = [await create(client, "v2", ["C" * size], name=f"n{size}") for size in (1, 2, 3)]

    async def listed(version: str = "v2") -> Any:
        return (await call(client, "GET", f"/api/{version}/batch-search"))[1]

    whole = await listed()
    assert [(row["id"], row["name"], row["size"]) for row in whole] == [
        (batch, f"n{size}", 1) for batch, size in zip(reversed(ids), (3, 2, 1), strict=True)
    ]
    first = await listed("v1")
    assert (first["total"], [row["id"] for row in first["data"]]) == (3, ids[::-1])
    server.listing = Listing(form="data", names=False, limit=1)
    reply = await listed()
    assert (len(reply["data"]), reply["total"]) == (1, 3)
    assert "name" not in reply["data"][0]
    server.listing = Listing(repeat=True)
    assert [row["id"] for row in await listed()] == [ids[2], ids[2], ids[1], ids[0]]
    server.listing = Listing(lag=2)
    late = await create(client, "v2", ["CCCC"])
    seen = [late in [row["id"] for row in await listed()] for _ in range(4)]
    assert seen == [False, False, True, True]
    for form, status in (("missing", 404), ("forbidden", 405)):
        server.listing = Listing(form=form)  # type: ignore[arg-type]
        assert (await call(client, "GET", "/api/v2/batch-search"))[0] == status


async def test_ledger_over_http(sandbox: Sandbox, client: aiohttp.ClientSession) -> None:
    await create(client, "v1", ["C", "CC"])
    await create(client, "v2", ["CC"])
    status, books = await call(client, "GET", "/sandbox/ledger")
    assert status == 200
    assert (books["total"], books["purchases"]) == (3, {"C": 1, "CC": 2})
    assert [batch["version"] for batch in books["batches"]] == ["v1", "v2"]
    assert sandbox.molecule_one.ledger.purchases["CC"] == 2
