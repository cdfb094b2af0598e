"""Every fault, as a client meets it; and control over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from watcher.sandbox import Fault, Sandbox

V1 = "/api/v1/batch-search"
TARGETS = "/api/targets/"
FORM = {"target_name": "A71EV2A", "target_access_string": "lb32627-66", "metadata_info": "true", "file_url": ""}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def fragalysis(sandbox: Sandbox) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(sandbox.fragalysis.url) as client:
        yield client


@pytest.fixture
async def vendor(sandbox: Sandbox) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"ApiToken-v1 {sandbox.molecule_one.token}"}
    async with aiohttp.ClientSession(sandbox.molecule_one.url, headers=headers) as client:
        yield client


def fault(sandbox: Sandbox, action: str, where: Any = "fragalysis", **more: Any) -> Fault:
    return sandbox.add_fault(Fault(where, action, **more))


async def get(client: aiohttp.ClientSession, path: str = TARGETS) -> Any:
    async with client.get(path) as response:
        assert response.status == 200
        return json.loads(await response.read())


async def test_any_status_with_any_headers(sandbox: Sandbox, fragalysis: aiohttp.ClientSession) -> None:
    fault(
        sandbox, "status", status=429, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, body={"detail": "slow"}
    )
    async with fragalysis.get(TARGETS) as response:
        assert (response.status, await response.json()) == (429, {"detail": "slow"})
        assert response.headers["Retry-After"].endswith("GMT")
    fault(sandbox, "status", status=503, body="<html>down</html>")
    async with fragalysis.get(TARGETS) as response:
        assert (response.status, response.content_type) == (503, "text/html")
    await get(fragalysis)


async def test_redirect_and_sign_in_page(sandbox: Sandbox, fragalysis: aiohttp.ClientSession) -> None:
    fault(sandbox, "redirect")
    async with fragalysis.get(TARGETS, allow_redirects=False) as response:
        assert response.status == 302
        assert response.headers["Location"].startswith("https://sso.sandbox.invalid/")
    fault(sandbox, "redirect", status=307, location="http://other.invalid/")
    async with fragalysis.get(TARGETS, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (307, "http://other.invalid/")
    fault(sandbox, "sign_in_page")
    async with fragalysis.get(TARGETS) as response:
        assert (response.status, response.content_type) == (200, "text/html")


async def test_expired_session(sandbox: Sandbox) -> None:
    fault(sandbox, "expire_session")
    headers = {"Cookie": f"sessionid={sandbox.fragalysis.session_token}"}
    async with aiohttp.ClientSession(sandbox.fragalysis.url, headers=headers) as client:
        counts, deleted = [], []
        for _ in range(2):
            async with client.get(TARGETS) as response:
                counts.append((await response.json())["count"])
                deleted.append("Set-Cookie" in response.headers)
    assert (counts, deleted) == ([4, 5], [True, False])


@pytest.mark.parametrize(
    ("action", "bought"),
    [("close_before_reading", 0), ("close_before_answer", 0), ("close_after", 1)],
)
async def test_lost_connections(sandbox: Sandbox, vendor: aiohttp.ClientSession, action: str, bought: int) -> None:
    fault(sandbox, action, "molecule_one", match={"method": "POST"})
    with pytest.raises(aiohttp.ClientConnectionError):
        await vendor.post(V1, json={"targets": ["CCO"]})
    assert sandbox.molecule_one.ledger.total == bought


async def test_an_error_after_the_purchase_was_booked(sandbox: Sandbox, vendor: aiohttp.ClientSession) -> None:
    fault(sandbox, "status_after", "molecule_one", match={"method": "POST"}, status=504, body="<html>504</html>")
    async with vendor.post(V1, json={"targets": ["CCO"]}) as response:
        assert response.status == 504
    assert sandbox.molecule_one.ledger.purchases == {"CCO": 1}


@pytest.mark.parametrize(("action", "bought"), [("hold", 0), ("hold_after", 1)])
async def test_an_answer_that_does_not_come(
    sandbox: Sandbox, vendor: aiohttp.ClientSession, action: str, bought: int
) -> None:
    fault(sandbox, action, "molecule_one", match={"method": "POST"})
    with pytest.raises(TimeoutError):
        await vendor.post(V1, json={"targets": ["CCO"]}, timeout=aiohttp.ClientTimeout(total=0.05))
    assert sandbox.molecule_one.ledger.total == bought
    await sandbox.close()
    assert sandbox.molecule_one.ledger.total == bought, "what was held at the end is not processed"


@pytest.mark.parametrize("action", ["delay", "delay_after"])
async def test_a_delay_ends(sandbox: Sandbox, vendor: aiohttp.ClientSession, action: str) -> None:
    fault(sandbox, action, "molecule_one", seconds=0.01)
    async with vendor.post(V1, json={"targets": ["CCO"]}) as response:
        assert response.status == 200


async def test_bodies_that_are_not_whole(sandbox: Sandbox, fragalysis: aiohttp.ClientSession) -> None:
    fault(sandbox, "truncate")
    async with fragalysis.get(TARGETS) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    fault(sandbox, "wrong_length")
    async with fragalysis.get(TARGETS) as response:
        body = await response.read()
        assert response.content_length == len(body)
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(body)
    fault(sandbox, "invalid_json")
    with pytest.raises(ValueError, match="Expecting"):
        await get(fragalysis)


async def test_fields_and_rows_that_are_wrong(sandbox: Sandbox, fragalysis: aiohttp.ClientSession) -> None:
    whole = await get(fragalysis)
    fault(sandbox, "edit", drop=["title"], values={"id": "one", "extra": True})
    rows = (await get(fragalysis))["results"]
    assert {(row["id"], row["extra"], "title" in row) for row in rows} == {("one", True, False)}
    fault(sandbox, "edit_document", drop=["next"], values={"count": 99})
    document = await get(fragalysis)
    assert (document["count"], "next" in document) == (99, False)
    fault(sandbox, "repeat_rows")
    rows = (await get(fragalysis))["results"]
    assert rows == [*whole["results"][:-1], whole["results"][0]]
    fault(sandbox, "skip_rows")
    document = await get(fragalysis)
    assert document["results"] == whole["results"][:-1]
    assert document["count"] == whole["count"]
    fault(sandbox, "numbers_as_strings")
    document = await get(fragalysis)
    assert document["count"] == "4"
    assert {type(row["id"]) for row in document["results"]} == {str}


async def test_edits_reach_lists_and_single_documents(sandbox: Sandbox, vendor: aiohttp.ClientSession) -> None:
    fault(sandbox, "edit", "molecule_one", match={"method": "POST"}, drop=["id"])
    async with vendor.post(V1, json={"targets": ["CCO"]}) as response:
        assert "id" not in await response.json()
    batch = sandbox.molecule_one.ledger.batches[0].batch_id
    fault(sandbox, "edit", "molecule_one", values={"result": None})
    assert [row["result"] for row in await get(vendor, f"{V1}-result/{batch}")] == [None]


async def test_builds_that_fail(sandbox: Sandbox, fragalysis: aiohttp.ClientSession) -> None:
    path = "/api/download_structures/"

    async def build() -> str:
        async with fragalysis.post(path, data=FORM) as response:
            task = (await response.json())["task_status_url"]
        while not (status := await get(fragalysis, task))["finished"]:
            pass
        return str(status["status"])

    fault(sandbox, "fail_build", match={"method": "POST", "path": path})
    assert await build() == "FAILED"
    assert await build() == "SUCCESS", "a request after a failure starts afresh"
    sandbox.fragalysis.break_builds("Mpro", "lb18145-1")
    other = {**FORM, "target_name": "Mpro", "target_access_string": "lb18145-1"}
    async with fragalysis.post(path, data=other) as response:
        task = (await response.json())["task_status_url"]
    assert [(await get(fragalysis, task))["status"] for _ in range(3)][-1] == "FAILED"


async def test_a_build_that_fails_on_the_old_server() -> None:
    async with Sandbox(age="2024") as sandbox, aiohttp.ClientSession(sandbox.fragalysis.url) as client:
        fault(sandbox, "fail_build", match={"method": "POST"})
        statuses = []
        for _ in range(2):
            async with client.post("/api/download_structures/", data=FORM) as response:
                statuses.append(response.status)
    assert statuses == [500, 200]


async def test_an_answer_that_holds_nothing_to_change_is_no_hit(
    sandbox: Sandbox, fragalysis: aiohttp.ClientSession
) -> None:
    rule = fault(sandbox, "edit", drop=["title"])
    page = await fragalysis.get("/viewer/react/landing/")
    assert (page.status, rule.hits) == (200, 0)
    assert (await get(fragalysis, "/api/projects/"))["results"]
    assert rule.hits == 0
    assert "title" not in (await get(fragalysis))["results"][0]
    assert rule.hits == 1


async def test_clearing_lets_everything_through(sandbox: Sandbox, fragalysis: aiohttp.ClientSession) -> None:
    fault(sandbox, "status", times=None)
    async with fragalysis.get(TARGETS) as response:
        assert response.status == 500
    sandbox.clear_faults()
    await get(fragalysis)


async def order(client: aiohttp.ClientSession, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    async with client.post(f"/sandbox/{path}", json=body) as response:
        return response.status, await response.json()


async def test_faults_over_http(sandbox: Sandbox, fragalysis: aiohttp.ClientSession) -> None:
    rule = {"action": "status", "status": 502, "match": {"path": "targets"}, "times": None}
    status, rules = await order(fragalysis, "faults", rule)
    assert (status, rules[0]["hits"]) == (200, 0)
    async with fragalysis.get(TARGETS) as response:
        assert response.status == 502
    assert (await get(fragalysis, "/sandbox/faults"))[0]["hits"] == 1
    async with fragalysis.delete("/sandbox/faults") as response:
        assert await response.json() == []
    await get(fragalysis)
    for wrong in ({"action": "explode"}, {"verb": "GET", "action": "status"}, {}):
        assert (await order(fragalysis, "faults", wrong))[0] == 400


async def test_data_changes_over_http(sandbox: Sandbox, fragalysis: aiohttp.ClientSession) -> None:
    a71 = {"target": "A71EV2A", "target_access_string": "lb32627-66"}
    target = sandbox.fragalysis.world.find("A71EV2A", "lb32627-66")
    status, state = await order(fragalysis, "publish", a71)
    assert (status, target.published, state["targets"][0]["uploads"]) == (200, 3, 3)
    before = target.uploads[2].committed
    await order(fragalysis, "touch", a71)
    assert target.uploads[2].committed > before
    await order(fragalysis, "withdraw", a71)
    assert target.published == 2
    await order(fragalysis, "rename", {**a71, "to": "A71"})
    await order(fragalysis, "move", {**a71, "target": "A71", "to": "lb9-9"})
    moved = {"target": "A71", "target_access_string": "lb9-9"}
    assert (target.name, target.project.target_access_string) == ("A71", "lb9-9")
    await order(fragalysis, "vanish", moved)
    assert (await get(fragalysis))["count"] == 3
    await order(fragalysis, "reappear", moved)
    await order(fragalysis, "session", {"valid": False})
    await order(fragalysis, "pace", {"build_polls": 7})
    state = await get(fragalysis, "/sandbox/state")
    assert (state["session_valid"], state["pace"]["polls"]) == (False, 7)
    for path, body in (
        ("publish", a71),
        ("publish", {}),
        ("touch", {**moved, "more": 1}),
        ("pace", {"speed": 1}),
        ("pace", {"build_polls": "many"}),
    ):
        assert (await order(fragalysis, path, body))[0] == 400


async def test_pace_over_http(sandbox: Sandbox, vendor: aiohttp.ClientSession) -> None:
    assert (await order(vendor, "pace", {"manual": True}))[1]["pace"]["manual"] is True
    async with vendor.post(V1, json={"targets": ["C", "CC", "CCC"]}) as response:
        batch = (await response.json())["id"]
    assert await order(vendor, "finish", {"molecules": 2}) == (200, {"finished": 2})
    assert len(await get(vendor, f"{V1}-result/{batch}")) == 2
    assert await order(vendor, "finish") == (200, {"finished": 1})
    assert (await order(vendor, "listing", {"form": "missing"}))[1]["listing"]["form"] == "missing"
    assert (await get(vendor, "/sandbox/state"))["batches"][0]["done"] == 3
    async with vendor.get(V1) as response:
        assert response.status == 404


async def test_a_server_may_go_down_and_come_back(sandbox: Sandbox, fragalysis: aiohttp.ClientSession) -> None:
    await sandbox.fragalysis.close()
    with pytest.raises(aiohttp.ClientConnectionError):
        await get(fragalysis)
    await sandbox.fragalysis.start()
    assert (await get(fragalysis))["count"] == 4


async def test_both_ports_close_and_nothing_is_left_behind() -> None:
    before = asyncio.all_tasks()
    async with Sandbox() as sandbox:
        url = sandbox.fragalysis.url
        async with aiohttp.ClientSession() as client:
            assert await get(client, f"{url}{TARGETS}")
    assert asyncio.all_tasks() == before
    async with aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.get(url)
