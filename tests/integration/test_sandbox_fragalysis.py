"""The Fragalysis sandbox answers as the captures of the real server do."""

import io
import tarfile
import zipfile
from collections.abc import AsyncIterator
from typing import Any, Literal

import aiohttp
import pytest

from watcher.sandbox import Sandbox

TARGET = {"target_name": "A71EV2A", "target_access_string": "lb32627-66"}
FORM = {
    **TARGET,
    "all_aligned_structures": "True",
    "metadata_info": "true",
    "single_sdf_file": "1",
    "map_info": "false",
    "file_url": "",
}
UPLOADS = "/api/target_experiment_uploads/"


@pytest.fixture(params=["2024", "2026"])
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    async with Sandbox(age=request.param) as sandbox:
        yield sandbox


@pytest.fixture
async def old() -> AsyncIterator[Sandbox]:
    async with Sandbox(age="2024") as sandbox:
        yield sandbox


@pytest.fixture
async def new() -> AsyncIterator[Sandbox]:
    async with Sandbox(age="2026") as sandbox:
        yield sandbox


def visitor(sandbox: Sandbox, **cookies: str) -> aiohttp.ClientSession:
    jar = aiohttp.CookieJar(unsafe=True)
    return aiohttp.ClientSession(sandbox.fragalysis.url, cookies=cookies, cookie_jar=jar)


def member(sandbox: Sandbox, **cookies: str) -> aiohttp.ClientSession:
    return visitor(sandbox, sessionid=sandbox.fragalysis.session_token, **cookies)


async def rows(client: aiohttp.ClientSession, path: str) -> list[dict[str, Any]]:
    async with client.get(path) as response:
        assert response.status == 200
        document = await response.json()
        assert document["count"] == len(document["results"])
        return list(document["results"])


async def test_landing_page_sets_the_csrf_token_and_deletes_a_bad_session(sandbox: Sandbox) -> None:
    async with visitor(sandbox) as client, client.get("/viewer/react/landing/") as response:
        assert response.status == 200
        assert len(response.cookies["csrftoken"].value) == 64
        assert "sessionid" not in response.cookies
    async with visitor(sandbox, sessionid="stale") as client:
        for path in ("/viewer/react/landing/", "/api/targets/"):
            async with client.get(path, headers={"Cookie": "sessionid=stale"}) as response:
                assert response.status == 200
                cookies = [each for each in response.headers.getall("Set-Cookie") if each.startswith("sessionid")]
                assert len(cookies) == 1
                assert cookies[0].startswith('sessionid="";')
                assert "Max-Age=0" in cookies[0]
    async with member(sandbox) as client, client.get("/api/targets/") as response:
        assert "Set-Cookie" not in response.headers


async def test_only_a_member_sees_the_private_project(sandbox: Sandbox) -> None:
    async with visitor(sandbox) as client:
        public = await rows(client, "/api/targets/")
        assert "lb27995-1" not in {each["target_access_string"] for each in await rows(client, "/api/projects/")}
    async with member(sandbox) as client:
        everything = await rows(client, "/api/targets/")
        projects = {
            each["target_access_string"]: each["open_to_public"] for each in await rows(client, "/api/projects/")
        }
        assert {each["title"] for each in everything} - {each["title"] for each in public} == {"CHIKV_Mac"}
        assert projects["lb27995-1"] is False
        sandbox.fragalysis.expire_session()
        assert len(await rows(client, "/api/targets/")) == len(public)


async def test_one_title_may_be_two_targets(sandbox: Sandbox) -> None:
    async with visitor(sandbox) as client:
        assert len(await rows(client, "/api/targets/?title=Mpro")) == 2
        assert await rows(client, "/api/targets/?title=Nope") == []


async def test_old_upload_rows(old: Sandbox) -> None:
    async with visitor(old) as client:
        found = await rows(client, f"{UPLOADS}?target=1")
        async with client.get("/api/user") as response:
            assert (response.status, response.content_type) == (404, "text/html")
    assert sorted(row["upload_version"] for row in found) == [1, 2]
    assert found[0].keys() == {
        "id", "file", "commit_datetime", "complete_datetime", "task_id", "status", "message",
        "neighbourhood_transforms", "conformer_site_transforms", "reference_structure_transforms", "upload_data_dir",
        "upload_version", "project", "target", "committer",
    }  # fmt: skip
    assert {(row["status"], row["complete_datetime"], row["message"][-1]) for row in found} == {
        ("LOADING", None, "SUCCESS")
    }


async def test_new_upload_rows(new: Sandbox) -> None:
    async with visitor(new) as client:
        found = await rows(client, f"{UPLOADS}?target=1")
        async with client.get("/api/user") as response:
            assert await response.json() == {
                "user": "AnonymousUser",
                "user_id": "None",
                "ping": "OK",
                "target_access": [],
            }
    assert found[0].keys() == {
        "target", "target_name", "project", "proposal_number", "tarball", "commit_datetime", "committer",
        "committer_name", "task_id", "neighbourhood_transforms", "conformer_site_transforms",
        "reference_structure_transforms", "upload_data_dir", "upload_version", "data_version_major",
        "data_version_minor",
    }  # fmt: skip
    assert {(row["target_name"], row["proposal_number"]) for row in found} == {("A71EV2A", "lb32627-66")}


async def test_unknown_targets(sandbox: Sandbox) -> None:
    async with visitor(sandbox) as client:
        async with client.get(f"{UPLOADS}?target=999") as response:
            assert response.status == 400
            words = "Select a valid choice. That choice is not one of the available choices."
            assert await response.json() == {"target": [words]}
        assert await rows(client, "/api/site_observations/?target=999") == []
        async with client.get("/api/site_observations/?target=abc") as response:
            assert (response.status, response.content_type) == (500, "text/html")


async def test_superseded_rows_are_left_out_by_the_old_server_alone(old: Sandbox, new: Sandbox) -> None:
    async with visitor(old) as client:
        before = await rows(client, "/api/site_observations/?target=1")
    async with visitor(new) as client:
        after = await rows(client, "/api/site_observations/?target=1")
    assert not any(row["superseded"] for row in before)
    assert sum(row["superseded"] for row in after) == 1
    assert len(after) == len(before) + 1
    assert any(row["compound_code"] is None and row["cmpd"] is None for row in before)
    assert len({row["code"] for row in before}) == len(before) - 1
    assert len({row["longcode"] for row in before}) == len(before)


async def test_compounds_are_one_row_per_experiment(sandbox: Sandbox) -> None:
    async with visitor(sandbox) as client:
        compounds = {row["id"]: row for row in await rows(client, "/api/compounds/?target=1")}
        observations = await rows(client, "/api/site_observations/?target=1")
    for row in observations:
        if row["cmpd"] is not None:
            assert compounds[row["cmpd"]]["compound_code"] == row["compound_code"]
    assert any(row["smiles"].endswith(".Cl") for row in compounds.values())


async def test_pages_follow_each_other(sandbox: Sandbox) -> None:
    async with visitor(sandbox) as client:
        whole = await rows(client, "/api/site_observations/?target=1")
        assert [row["id"] for row in whole] != sorted(row["id"] for row in whole), "no order"
        link, got = "/api/site_observations/?target=1&limit=7", []
        while link:
            async with client.get(link) as response:
                page = await response.json()
                assert page["count"] == len(whole)
                got += page["results"]
                link = page["next"]
                assert link is None or link.startswith(
                    f"{sandbox.fragalysis.url}/api/site_observations/?limit=7&offset="
                )
        assert got == whole
        async with client.get("/api/targets/?limit=2&offset=2") as response:
            assert (await response.json())["previous"] == f"{sandbox.fragalysis.url}/api/targets/?limit=2"
        sandbox.fragalysis.link_origin = "http://elsewhere.example.org"
        async with client.get("/api/targets/?limit=1") as response:
            assert (await response.json())["next"] == "http://elsewhere.example.org/api/targets/?limit=1&offset=1"


@pytest.mark.parametrize(
    ("method", "path", "status", "extra"),
    [
        ("GET", "/", 302, {"Location": "/viewer/react/landing"}),
        ("GET", "/api/targets?title=Mpro", 301, {"Location": "/api/targets/?title=Mpro"}),
        ("POST", "/api/site_observations?target=1", 301, {"Location": "/api/site_observations/?target=1"}),
        ("POST", "/api/site_observations/?target=1", 405, {"Allow": "GET, HEAD, OPTIONS"}),
        ("HEAD", UPLOADS, 405, {"Allow": "GET"}),
        ("POST", UPLOADS, 405, {"Allow": "GET"}),
        ("GET", "/api/nothing/", 404, {"Content-Type": "text/html; charset=utf-8"}),
        ("GET", "/viewer/task_status/not-a-uuid/", 404, {}),
        ("GET", "/viewer/task_status/7c9e6679-7425-40de-944b-e07fc1f90ae7", 301, {}),
    ],
)
async def test_odd_requests(old: Sandbox, method: str, path: str, status: int, extra: dict[str, str]) -> None:
    async with visitor(old) as client, client.request(method, path, allow_redirects=False) as response:
        assert response.status == status
        for name, value in extra.items():
            assert response.headers[name].split(";")[0] == value.split(";")[0]


async def test_content_negotiation(sandbox: Sandbox) -> None:
    async with visitor(sandbox) as client:
        async with client.get("/api/targets/", headers={"Accept": "text/html,*/*;q=0.8"}) as response:
            assert (response.status, response.content_type) == (200, "text/html")
        async with client.get("/api/download_structures/", headers={"Accept": "application/zip"}) as response:
            assert response.status == 406
            assert await response.json() == {"detail": "Could not satisfy the request Accept header."}


async def test_task_status_of_the_old_server_is_for_members(old: Sandbox) -> None:
    path = "/viewer/task_status/7c9e6679-7425-40de-944b-e07fc1f90ae7/"
    async with visitor(old) as client, client.get(path) as response:
        assert response.status == 403
    async with member(old) as client, client.get(path) as response:
        assert await response.json() == {"started": False, "finished": False, "status": "UNKNOWN", "messages": []}


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"target_name": ""}, 400, "If no file_url, a target_name (title) must be provided"),
        ({"target_access_string": ""}, 400, "If no file_url, a target_access_string must be provided"),
        ({"target_access_string": "lb00000-1"}, 404, 'Project "lb00000-1" does not exist'),
        ({"target_access_string": "lb18145-1"}, 404, 'Target "A71EV2A" does not exist under project lb18145-1'),
        ({"target_access_string": "lb27995-1"}, 404, 'User "" is not a member of lb27995-1'),
        ({"file_url": "/code/x.zip"}, 400, "file_url should only be provided for static files"),
        (
            {"proteins": "NOPE1"},
            404,
            "Please enter list of valid protein codes for target: A71EV2A, proteins: ['NOPE1']",
        ),
        ({"map_info": "maybe"}, 500, None),
        ({"file_url": None}, 500, None),
    ],
)
async def test_download_refusals(
    sandbox: Sandbox, change: dict[str, str | None], status: int, words: str | None
) -> None:
    form = {key: value for key, value in {**FORM, **change}.items() if value is not None}
    async with visitor(sandbox) as client, client.post("/api/download_structures/", data=form) as response:
        assert response.status == status
        if words is None:
            assert response.content_type == "text/html"
        else:
            assert await response.json() == {"message": words}


async def test_a_session_needs_its_csrf_token(sandbox: Sandbox) -> None:
    path = "/api/download_structures/"
    async with member(sandbox) as client, client.post(path, data=FORM) as response:
        assert response.status == 403
        assert await response.json() == {"detail": "CSRF Failed: CSRF cookie not set."}
    async with member(sandbox, csrftoken="abc") as client:
        async with client.post(path, data=FORM, headers={"X-CSRFToken": "wrong"}) as response:
            assert response.status == 403
        secure = {"X-CSRFToken": "abc", "X-Forwarded-Proto": "https"}
        async with client.post(path, data=FORM, headers=secure) as response:
            assert await response.json() == {"detail": "CSRF Failed: Referer checking failed - no Referer."}
        private = {**FORM, "target_name": "CHIKV_Mac", "target_access_string": "lb27995-1"}
        async with client.post(path, data=private, headers={"X-CSRFToken": "abc"}) as response:
            assert response.status in (200, 202)


async def fetch(client: aiohttp.ClientSession, file_url: str) -> bytes:
    async with client.get("/api/download_structures/", params={"file_url": file_url}) as response:
        assert response.status == 200
        assert response.content_type == "application/zip"
        content = await response.read()
        assert response.content_length == len(content)
        assert "ETag" not in response.headers
        return content


async def test_old_download(old: Sandbox) -> None:
    async with visitor(old) as client:
        urls = []
        for body in ({"data": FORM}, {"json": {**FORM, "map_info": False}}):
            async with client.post("/api/download_structures/", **body) as response:
                assert response.status == 200
                urls.append((await response.json())["file_url"])
        assert urls[0] == urls[1], "the same request, the same file"
        content = await fetch(client, urls[0])
        assert content == await fetch(client, urls[0])
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.testzip() is None
            names = archive.namelist()
            metadata = archive.read("metadata.csv").decode()
            sdf = archive.read("A71EV2A_combined.sdf").decode()
        assert {"README.md", "smiles.smi"} <= {*names}
        assert metadata.splitlines()[0].startswith("Code,Long code,Experiment code,Compound code,Smiles,")
        assert len(metadata.splitlines()) == 1 + 41, "superseded rows too"
        assert "$$$$" not in sdf
        for lost in ("/code/media/downloads/nothing.zip", None):
            query = {"file_url": lost} if lost else {}
            async with client.get("/api/download_structures/", params=query) as response:
                assert response.status == 404


async def test_new_download(new: Sandbox) -> None:
    async with visitor(new) as client:
        async with client.post("/api/download_structures/", data=FORM) as response:
            assert response.status == 202
            task = (await response.json())["task_status_url"]
        async with client.post("/api/download_structures/", data=FORM) as response:
            assert (await response.json())["task_status_url"] == task
        states = []
        for _ in range(3):
            async with client.get(task) as response:
                status = await response.json()
                states.append((status["status"], status["finished"]))
        assert states == [("RUNNING", False), ("RUNNING", False), ("SUCCESS", True)]
        url = status["messages"][-1]
        async with client.post("/api/download_structures/", data=FORM) as response:
            assert (response.status, await response.json()) == (200, {"file_url": url})
        with tarfile.open(fileobj=io.BytesIO(await fetch(client, url)), mode="r:gz") as archive:
            names = archive.getnames()
    assert {"metadata.csv", "A71EV2A_combined.sdf", "smiles.smi"} <= {*names}
    assert any(name.startswith("aligned_files/A71EV2A-x") for name in names)


async def test_only_what_is_asked_for_is_packed() -> None:
    async with Sandbox(age="2024") as sandbox, visitor(sandbox) as client:
        form = {**TARGET, "metadata_info": "true", "file_url": "", "proteins": "A0102a"}
        async with client.post("/api/download_structures/", data=form) as response:
            content = await fetch(client, (await response.json())["file_url"])
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["README.md", "metadata.csv"]


async def test_builds_and_links_go_by_the_clock() -> None:
    now = [0.0]
    async with Sandbox(build_polls=0, build_seconds=30, clock=lambda: now[0]) as sandbox, visitor(sandbox) as client:
        async with client.post("/api/download_structures/", data=FORM) as response:
            task = (await response.json())["task_status_url"]

        async def status() -> dict[str, Any]:
            async with client.get(task) as response:
                return dict(await response.json())

        assert (await status())["status"] == "RUNNING"
        now[0] = 30.0
        url = (await status())["messages"][-1]
        await fetch(client, url)
        now[0] += 91 * 60
        async with client.get("/api/download_structures/", params={"file_url": url}) as response:
            assert await response.json() == {"message": "file_url is not found"}


@pytest.mark.parametrize(("age", "works"), [("2024", False), ("2026", True)])
async def test_a_greek_letter_stops_the_old_builder(age: Literal["2024", "2026"], works: bool) -> None:
    async with Sandbox(age=age, catalogue=None) as sandbox, visitor(sandbox) as client:
        name = "NS3 \N{GREEK SMALL LETTER ALPHA}"
        sandbox.fragalysis.add_target(name, "lb1-1")
        sandbox.fragalysis.add_upload(name, "lb1-1", [("A1a", "CCO", "Z1")])
        form = {**FORM, "target_name": name, "target_access_string": "lb1-1"}
        async with client.post("/api/download_structures/", data=form) as response:
            assert response.status == (202 if works else 500)
            task = (await response.json())["task_status_url"] if works else None
        while task:
            async with client.get(task) as response:
                status = await response.json()
            if status["finished"]:
                assert await fetch(client, status["messages"][-1])
                break


async def test_a_world_of_ones_own() -> None:
    async with Sandbox(catalogue=None) as sandbox, visitor(sandbox) as client:
        assert await rows(client, "/api/targets/") == []
        sandbox.fragalysis.add_target("TGT", "lb1-1")
        sandbox.fragalysis.add_target("HID", "lb2-2", public=False, listed=True)
        assert await rows(client, f"{UPLOADS}?target=1") == []
        sandbox.fragalysis.add_upload("TGT", "lb1-1", [("A1a", "CCO", "Z1"), ("A1a", "CCN", None)])
        found = await rows(client, "/api/site_observations/?target=1")
        assert sorted((row["code"], row["smiles"]) for row in found) == [("A1a", "CCN"), ("A1a", "CCO")]
        projects = await rows(client, "/api/projects/")
        assert {row["target_access_string"]: row["open_to_public"] for row in projects} == {
            "lb1-1": True,
            "lb2-2": False,
        }
        sandbox.fragalysis.withdraw("TGT", "lb1-1")
        assert await rows(client, "/api/site_observations/?target=1") == []


async def test_requests_are_written_down(new: Sandbox) -> None:
    async with visitor(new) as client:
        await rows(client, "/api/targets/?title=Mpro")
        async with client.get("/sandbox/requests") as response:
            assert await response.json() == [["GET", "/api/targets/?title=Mpro"]]
    assert new.fragalysis.requests == [("GET", "/api/targets/?title=Mpro")]
