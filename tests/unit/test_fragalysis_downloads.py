"""Asking for an archive, waiting for its build, fetching it; every captured refusal."""

import json
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clock import START
from tests.support.fragalysis import CAPTURES, DOWNLOAD, TOKEN, answer, capture, captured, stack
from watcher.errors import AuthFailure, Invalid, NotFound, Transient
from watcher.fragalysis import (
    BuildFailed,
    Building,
    BuildReady,
    BuildTask,
    CannotBuild,
    FileLink,
    NoObservations,
    NotAMember,
)
from watcher.fragalysis.downloads import payload
from watcher.settings import DownloadSettings

OPTIONS = DownloadSettings()
LINK = FileLink("/code/media/downloads/94374cc1-19bf-4f14-aa45-eb20668634ff/A71EV2A.tar.gz")
TASK_PATH = "/viewer/task_status/94374cc1-19bf-4f14-aa45-eb20668634ff/"
TASK = BuildTask(TASK_PATH, START)
STEPS = [answer(capture(f"2026/task_status_{step}.json")) for step in range(1, 6)]
ASKED = answer(capture("2026/download_post_task.json"), 202)


def test_the_form_is_the_published_one() -> None:
    asked = OPTIONS.model_copy(
        update={"ligand_cifs": True, "event_maps": True, "metadata_file": False, "unaligned_pdbs": True}
    )
    assert payload("A71EV2A", "lb32627-66", asked) == {
        "target_name": "A71EV2A",
        "target_access_string": "lb32627-66",
        "all_aligned_structures": "True",
        "cif_info": "True",
        "diff_file": "False",
        "event_file": "True",
        "map_info": "False",
        "metadata_info": "False",
        "mtz_info": "False",
        "pdb_info": "True",
        "sigmaa_file": "False",
        "trans_matrix_info": "False",
        "single_sdf_file": "True",
        "compound_sets": "True",
        "file_url": "",
        "proteins": "",
        "static_link": "False",
        "soakdb_files": "True",
    }


def test_each_option_is_one_field_of_the_form() -> None:
    switches = [name for name in DownloadSettings.model_fields if name not in ("enabled", "extract")]
    switches = [name for name in switches if isinstance(getattr(OPTIONS, name), bool)]
    base, changed = payload("A", "B", OPTIONS), set()
    for name in switches:
        other = payload("A", "B", OPTIONS.model_copy(update={name: not getattr(OPTIONS, name)}))
        (field,) = (key for key in base if base[key] != other[key])
        changed.add(field)
    assert len(switches) == len(changed) == 12


async def test_the_form_arrives_with_its_empty_fields() -> None:
    async with stack({DOWNLOAD: answer({"file_url": LINK.path})}) as server, server.client() as client:
        assert await client.request_download("NS2B-NS3 \u03b1", "lb18145-1", OPTIONS) == LINK
        assert server.forms == [payload("NS2B-NS3 \u03b1", "lb18145-1", OPTIONS)]


@pytest.mark.parametrize(
    "name", sorted(p.name for p in CAPTURES.glob("download_post_*.json") if b'"file_url": "' in p.read_bytes())
)
async def test_every_captured_link(name: str) -> None:
    async with stack({DOWNLOAD: answer(capture(name))}) as server, server.client() as client:
        link = await client.request_download("A", "B", OPTIONS)
    assert isinstance(link, FileLink)
    assert (link.path, link.format) == (captured(name)["file_url"], "zip")


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("download_post_private_anonymous.json", 404, NotAMember),
        ("download_post_no_observation.json", 404, NoObservations),
        ("download_post_no_upload.json", 404, NoObservations),
        ("download_post_proteins_unknown.json", 404, NotFound),
        ("download_post_bad_target.json", 404, NotFound),
        ("download_post_bad_project.json", 404, NotFound),
        ("download_post_wrong_project.json", 404, NotFound),
        ("download_post_no_tas.json", 400, Invalid),
        ("download_post_no_name.json", 400, Invalid),
        ("download_post_file_url_dynamic.json", 400, Invalid),
        ("download_post_member_https_noreferer.json", 403, AuthFailure),
        ("download_post_missing_files.html", 500, CannotBuild),
    ],
)
async def test_every_captured_refusal(name: str, status: int, kind: type[Exception]) -> None:
    async with stack({DOWNLOAD: answer(capture(name), status)}) as server, server.client() as client:
        with pytest.raises(kind) as raised:
            await client.request_download("Mpro", "lb18145-1", OPTIONS)
    assert type(raised.value) is kind


@pytest.mark.parametrize("status", [208, 429, 502, 503])
async def test_later(status: int) -> None:
    reply = answer({"message": "busy"}, status, {"Retry-After": "90"})
    async with stack({DOWNLOAD: reply}) as server, server.client() as client:
        with pytest.raises(Transient) as raised:
            await client.request_download("Mpro", "lb18145-1", OPTIONS)
        assert type(raised.value) is Transient, "no failed build"
        assert raised.value.retry_after == timedelta(seconds=90)
        assert len(server.asked(DOWNLOAD)) == 1


@pytest.mark.parametrize("body", [{}, {"file_url": ""}, {"file_url": 5}, [], {"task_status_url": "/viewer/other/1/"}])
async def test_answers_against_the_contract(body: Any) -> None:
    async with stack({DOWNLOAD: answer(body)}) as server, server.client() as client:
        with pytest.raises(Invalid):
            await client.request_download("Mpro", "lb18145-1", OPTIONS)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "https://evil.example/code/media/downloads/x/A.zip",
        "//evil.example/code/media/downloads/x/A.zip",
        "/code/media/downloads/../../../etc/passwd.zip",
        "/code/media/downloads/x/./A.zip",
        "/code/media/downloads//A.zip",
        "/code/media/downloads/x/A.zip?x=1",
        "/code/media/downloads/x/A.zip#x",
        "/code/media/downloads/x/A\n.zip",
        "/code/media/downloads/x\\A.zip",
        "/code/media/downloads/x/A.exe",
        "/code/media/other/A.zip",
    ],
)
def test_what_is_no_link(path: str) -> None:
    with pytest.raises(Invalid) as raised:
        FileLink(path)
    assert not path or path not in str(raised.value)


@given(st.text(max_size=60), st.sampled_from(["zip", "tar.gz", "tgz", "html"]))
def test_no_text_makes_a_link_that_leads_elsewhere(text: str, suffix: str) -> None:
    for path in (text, f"/code/media/downloads/{text}.{suffix}"):
        try:
            link = FileLink(path)
        except Invalid:
            continue
        assert link.path.startswith("/code/media/downloads/")
        assert not {"", ".", ".."} & set(link.path.split("/")[1:])
        assert not set("?#\\\n\r\0") & set(link.path)


def test_links_and_tasks_hide_where_they_lead() -> None:
    assert "94374cc1" not in f"{LINK!r} {LINK!s} {TASK!r} {TASK!s}"


def test_an_absolute_task_is_reduced_to_its_path() -> None:
    assert BuildTask(f"http://wrong.example{TASK_PATH}?x=1", START) == TASK
    assert BuildTask(TASK_PATH.removesuffix("/"), START) == TASK


@pytest.mark.parametrize("path", ["", "/viewer/task_status/", "/viewer/task_status/a/b/", "/api/user", "http://[x"])
def test_what_is_no_task(path: str) -> None:
    with pytest.raises(Invalid):
        BuildTask(path, START)


async def status_of(reply: Any) -> Any:
    async with stack({TASK_PATH: reply}) as server, server.client(TOKEN) as client:
        return await client.build_status(TASK)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("2026/task_status_1.json", Building("Start processing")),
        ("2026/task_status_4.json", Building("File created")),
        ("2026/task_status_5.json", LINK),
        ("2026/task_status_failed.json", BuildFailed("The download task ended unexpectedly (FileNotFoundError)")),
        ("task_status_unknown_member.json", Building("")),
        ("task_status_real_success.json", BuildReady()),
    ],
)
async def test_every_captured_status(name: str, read: Any) -> None:
    assert await status_of(answer(capture(name))) == read


async def test_a_status_of_an_older_stack_is_one_string() -> None:
    path = {"status": "RUNNING", "messages": LINK.path}
    assert await status_of(answer(path)) == LINK
    assert await status_of(answer({"status": "SUCCESS", "finished": True, "messages": []})) == BuildReady()
    assert await status_of(answer({"status": "RUNNING", "finished": True, "messages": []})) == BuildFailed("")


async def test_an_odd_link_is_not_repeated() -> None:
    said = await status_of(answer({"status": "RUNNING", "messages": ["wrote /code/media/downloads/secret/A.exe now"]}))
    assert said == Building("wrote (link) now")


async def test_a_status_that_is_refused_or_missing() -> None:
    with pytest.raises(AuthFailure):
        await status_of(answer(capture("task_status_anonymous.json"), 403))
    with pytest.raises(Transient):
        await status_of(answer(capture("task_status_bad_uuid.html"), 404))


async def test_the_whole_way_of_2026() -> None:
    async with stack({DOWNLOAD: ASKED, TASK_PATH: list(STEPS)}) as server, server.client() as client:
        told: list[BuildTask] = []

        async def on_task(task: BuildTask) -> None:
            assert not server.asked(TASK_PATH)
            told.append(task)

        assert await client.download_target("A71EV2A", "lb32627-66", OPTIONS, on_task=on_task) == LINK
        assert told == [TASK]
        assert len(server.clock.slept) == 4
        assert all(timedelta(seconds=1) <= pause <= timedelta(seconds=30) for pause in server.clock.slept)


async def test_a_build_is_taken_up_again() -> None:
    async with stack({TASK_PATH: STEPS[-1]}) as server, server.client() as client:
        assert await client.download_target("A71EV2A", "lb32627-66", OPTIONS, resume=TASK) == LINK
        assert len(server.requests) == 1


async def test_success_without_a_path_is_asked_for_again() -> None:
    ready = answer({"started": True, "finished": True, "status": "SUCCESS", "messages": ["done"]})
    replies = {f"POST {DOWNLOAD}": [ASKED, answer({"file_url": LINK.path})], TASK_PATH: ready}
    async with stack(replies) as server, server.client() as client:
        assert await client.download_target("A71EV2A", "lb32627-66", OPTIONS) == LINK
    async with stack({DOWNLOAD: ASKED, TASK_PATH: ready}) as server, server.client() as client:
        with pytest.raises(CannotBuild, match="3 times"):
            await client.download_target("A71EV2A", "lb32627-66", OPTIONS)


async def test_a_failed_build_is_not_polled_on() -> None:
    failed = answer(capture("2026/task_status_failed.json"))
    async with stack({DOWNLOAD: ASKED, TASK_PATH: failed}) as server, server.client() as client:
        with pytest.raises(CannotBuild, match="FileNotFoundError"):
            await client.download_target("A71EV2A", "lb32627-66", OPTIONS)
        assert len(server.asked(TASK_PATH)) == 1


async def test_trouble_that_passes_does_not_end_a_build() -> None:
    missing = answer(capture("task_status_bad_uuid.html"), 404)
    replies = {DOWNLOAD: ASKED, TASK_PATH: [missing, missing, missing, missing, STEPS[0], missing, STEPS[-1]]}
    async with stack(replies) as server, server.client() as client:
        assert await client.download_target("A71EV2A", "lb32627-66", OPTIONS) == LINK


async def test_a_build_that_is_lost() -> None:
    missing = answer(capture("task_status_bad_uuid.html"), 404)
    async with stack({DOWNLOAD: ASKED, TASK_PATH: missing}) as server, server.client() as client:
        with pytest.raises(CannotBuild, match="not known"):
            await client.download_target("A71EV2A", "lb32627-66", OPTIONS)
    down = answer("<html>bad gateway</html>", 502)
    async with stack({DOWNLOAD: ASKED, TASK_PATH: down}) as server, server.client() as client:
        with pytest.raises(Transient) as raised:
            await client.download_target("A71EV2A", "lb32627-66", OPTIONS)
        assert not isinstance(raised.value, CannotBuild)  # the task may still be good


async def test_a_build_that_takes_too_long() -> None:
    async with stack({DOWNLOAD: ASKED, TASK_PATH: STEPS[0]}) as server, server.client(build_timeout="1h") as client:
        with pytest.raises(CannotBuild, match="1:00:00"):
            await client.download_target("A71EV2A", "lb32627-66", OPTIONS)
        assert timedelta(hours=1) < server.clock.now() - START < timedelta(hours=1, minutes=1)


async def test_a_build_that_was_asked_for_in_the_future_is_asked_for_anew() -> None:
    ahead = BuildTask(TASK_PATH, START + timedelta(minutes=2))
    async with stack({TASK_PATH: [STEPS[0], STEPS[-1]]}) as server, server.client() as client:
        with pytest.raises(CannotBuild):
            await client.download_target("A", "B", OPTIONS, resume=ahead)
        assert server.clock.slept == []
        assert await client.download_target("A", "B", OPTIONS, resume=ahead) == LINK, "what is ready is taken"


async def test_a_wait_that_the_server_asks_for_is_kept_or_left_to_the_caller() -> None:
    soon, late = (answer({}, 429, {"Retry-After": seconds}) for seconds in ("120", "3600"))
    async with stack({TASK_PATH: [soon, STEPS[-1]]}) as server, server.client() as client:
        assert await client.download_target("A", "B", OPTIONS, resume=TASK) == LINK
        assert server.clock.slept == [timedelta(seconds=120)]
    async with stack({TASK_PATH: late}) as server, server.client() as client:
        with pytest.raises(Transient) as raised:
            await client.download_target("A", "B", OPTIONS, resume=TASK)
        assert raised.value.retry_after == timedelta(hours=1)


async def test_fetch_gives_length_and_bytes() -> None:
    def file(request: web.Request) -> web.Response:
        assert request.query["file_url"] == LINK.path
        assert request.headers["Accept"] == "*/*"
        return web.Response(body=b"PK\x03\x04" + bytes(10**6), content_type="application/zip")

    async with stack({DOWNLOAD: file}) as server, server.client() as client, client.fetch(LINK) as (length, chunks):
        assert length == 10**6 + 4
        assert sum([len(chunk) async for chunk in chunks]) == length


@pytest.mark.parametrize(("status", "kind"), [(404, Transient), (502, Transient), (403, AuthFailure), (406, Invalid)])
async def test_a_fetch_that_is_refused_does_not_tell_the_link(status: int, kind: type[Exception]) -> None:
    reply = answer({"message": f"file_url {LINK.path} is not found"}, status)
    async with stack({DOWNLOAD: reply}) as server, server.client() as client:
        with pytest.raises(kind) as raised:
            async with client.fetch(LINK):
                pass
        assert "94374cc1" not in f"{raised.value!s} {raised.value!r} {json.dumps(vars(raised.value), default=str)}"
