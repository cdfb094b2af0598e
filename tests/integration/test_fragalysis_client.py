"""The client against the sandbox, of both ages: lists, sessions, downloads, and the archive on the disk."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.support.clock import FakeClock
from watcher.archives import Undecodable, archive_name, receive, target_directory, unpack, upload_directory
from watcher.errors import AuthFailure, NotFound, Transient
from watcher.fragalysis import BuildTask, CannotBuild, FileLink, Fragalysis, NoObservations, NotAMember
from watcher.fragalysis.paging import read_listing
from watcher.fragalysis.records import Upload, UploadRow
from watcher.sandbox import Fault, Sandbox
from watcher.settings import FragalysisSettings, Settings

UPLOADS = "/api/target_experiment_uploads/"
PRIVATE_TAS = "lb27995-1"


@pytest.fixture(params=["2024", "2026"])
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    async with Sandbox(age=request.param, catalogue=None) as sandbox:
        server = sandbox.fragalysis
        server.add_target("Mpro", "lb18145-1")
        server.add_upload("Mpro", "lb18145-1", [("A1", "CCO", "Z1"), ("A2", "CCN", None), ("A3", "CCO", "Z1")])
        server.add_target("Mpro", "lb32627-66")
        server.add_upload("Mpro", "lb32627-66", [("B1", "c1ccccc1", "Z2")])
        server.add_upload("Mpro", "lb32627-66", [("B2", "CCC", "Z3")])
        server.add_target("CHIKV_Mac", PRIVATE_TAS, public=False)
        server.add_upload("CHIKV_Mac", PRIVATE_TAS, [("C1", "CC", "Z4")])
        server.add_target("EMPTY1", "lb18145-1")
        yield sandbox


@asynccontextmanager
async def client(sandbox: Sandbox, token: str = "") -> AsyncIterator[Fragalysis]:
    section = FragalysisSettings(stack=sandbox.fragalysis.url, requests_per_second=100)
    section = section.model_copy(update={"token": SecretStr(token)})
    async with Fragalysis(Settings(fragalysis=section), clock=FakeClock()) as fragalysis:
        yield fragalysis


def member(sandbox: Sandbox) -> Any:
    return client(sandbox, sandbox.fragalysis.session_token)


def fault(sandbox: Sandbox, action: str, path: str = "", **more: Any) -> None:
    sandbox.add_fault(Fault("fragalysis", action, match={"path": path}, **more))


async def test_lists_of_both_ages_say_the_same(sandbox: Sandbox) -> None:
    async with client(sandbox) as public:
        found = await public.target_uploads()
        assert [(t.target.name, t.target.target_access_string) for t in found.values()] == [
            ("Mpro", "lb18145-1"),
            ("Mpro", "lb32627-66"),
            ("EMPTY1", "lb18145-1"),
        ]
        newest = [each.last_upload for each in found.values()]
        assert [upload and upload.upload_index for upload in newest] == [1, 2, None]
        assert all(each.target.open_to_public for each in found.values())
        assert [each.target for each in found.values()] == await public.target_list()
        first, *_ = found
        observations = await public.get_target_compound_smiles(first)
        assert sorted((o.code, o.smiles, o.compound_code) for o in observations) == [
            ("A1", "CCO", "Z1"),
            ("A2", "CCN", None),
            ("A3", "CCO", "Z1"),
        ]
        assert await public.user() is None
    async with member(sandbox) as inside:
        private = (await inside.target_uploads())[3]
        assert (private.target.name, private.target.open_to_public) == ("CHIKV_Mac", False)
        assert await inside.user() is not None


async def newest(public: Fragalysis, target_id: int) -> Upload:
    upload = (await public.target_uploads())[target_id].last_upload
    assert upload is not None
    return upload


async def test_an_upload_taken_back_and_made_again(sandbox: Sandbox) -> None:
    server = sandbox.fragalysis
    async with client(sandbox) as public:
        before = await newest(public, 2)
        server.withdraw("Mpro", "lb32627-66")
        between = await newest(public, 2)
        server.publish("Mpro", "lb32627-66")
        after = await newest(public, 2)
        assert (before.upload_index, between.upload_index, after.upload_index) == (2, 1, 2)
        assert after.committed_at != before.committed_at


async def test_pages_of_any_size_behind_a_proxy(sandbox: Sandbox) -> None:
    sandbox.fragalysis.link_origin = "http://fragalysis.example.org"
    async with client(sandbox) as public:
        for limit in (1, 2, 5000):
            rows = await read_listing(public._session, UPLOADS, UploadRow, operation="uploads", limit=limit)
            assert len(rows) == 3


@pytest.mark.parametrize("action", ["repeat_rows", "skip_rows"])
async def test_lists_that_do_not_add_up(sandbox: Sandbox, action: str) -> None:
    fault(sandbox, action, UPLOADS, times=2)
    async with client(sandbox) as public:
        assert len(await public.target_uploads()) == 3  # the third reading is good
        fault(sandbox, action, UPLOADS, times=None)
        with pytest.raises(Transient, match="does not add up"):
            await public.target_uploads()


async def test_numbers_as_strings_are_read(sandbox: Sandbox) -> None:
    async with client(sandbox) as public:
        plain = await public.target_uploads()
        fault(sandbox, "numbers_as_strings", "/api/", times=None)
        assert await public.target_uploads() == plain


@pytest.mark.parametrize("action", ["truncate", "wrong_length", "invalid_json", "close_after", "status"])
async def test_what_breaks_on_the_way_is_transient(sandbox: Sandbox, action: str) -> None:
    async with client(sandbox) as public:
        fault(sandbox, action, UPLOADS, times=None, status=502)
        with pytest.raises(Transient):
            await public.target_uploads()
        sandbox.clear_faults()
        assert len(await public.target_uploads()) == 3


async def test_a_session_that_ends_shows_nothing_as_gone(sandbox: Sandbox) -> None:
    async with member(sandbox) as inside:
        assert len(await inside.target_list()) == 4
        sandbox.fragalysis.expire_session()
        calls = (inside.target_list, inside.target_uploads, inside.user)
        for call in calls:
            with pytest.raises(AuthFailure, match="has ended"):
                await call()
        with pytest.raises(AuthFailure, match="has ended"):
            await inside.get_target_compound_smiles(3)
        with pytest.raises(AuthFailure, match="has ended"):
            await inside.request_download("CHIKV_Mac", PRIVATE_TAS, Settings().download)
        sandbox.fragalysis.renew_session()
        assert len(await inside.target_list()) == 4


@pytest.mark.parametrize("action", ["redirect", "sign_in_page"])
async def test_other_signs_of_a_session_that_ended(sandbox: Sandbox, action: str) -> None:
    fault(sandbox, action, "/api/targets/", times=None)
    async with member(sandbox) as inside:
        with pytest.raises(AuthFailure) as raised:
            await inside.target_list()
        assert raised.value.action
        assert sandbox.fragalysis.session_token not in f"{raised.value.message}{raised.value.action}"


async def fetched(fragalysis: Fragalysis, link: FileLink, path: Path) -> Path:
    async with fragalysis.fetch(link) as (length, chunks):
        received = await receive(chunks, path, expected_length=length, max_size=10**9)
    assert received.format == link.format
    return received.path


async def unpacked(path: Path) -> set[str]:
    await asyncio.to_thread(unpack, path, path.parent / "files", max_unpacked_size=10**9, max_members=10**5)
    return {file.name for file in (path.parent / "files").rglob("*")}


@pytest.mark.parametrize(("name", "tas"), [("Mpro", "lb32627-66"), ("CHIKV_Mac", PRIVATE_TAS)])
async def test_the_whole_way_to_the_disk(sandbox: Sandbox, tmp_path: Path, name: str, tas: str) -> None:
    async with member(sandbox) as inside:
        target = next(t for t in (await inside.target_uploads()).values() if t.target.target_access_string == tas)
        link = await inside.download_target(name, tas, Settings().download)
        directory = target_directory(tmp_path, tas, name, target.target.target_id)
        upload = target.uploads[-1]
        place = upload_directory(directory, upload.upload_index, upload.committed_at)
        path = await fetched(inside, link, place / archive_name(directory, link.format))
        assert "metadata.csv" in await unpacked(path)


async def test_transfers_that_break_off(sandbox: Sandbox, tmp_path: Path) -> None:
    async with client(sandbox) as public:
        link = await public.download_target("Mpro", "lb18145-1", Settings().download)
        fault(sandbox, "truncate", r"\?file_url=")
        with pytest.raises(Transient):
            await fetched(public, link, tmp_path / "a")
        assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240
        fault(sandbox, "wrong_length", r"\?file_url=")
        with pytest.raises(Undecodable):
            await unpacked(await fetched(public, link, tmp_path / "a"))
        assert "metadata.csv" in await unpacked(await fetched(public, link, tmp_path / "a"))


async def test_definite_refusals(sandbox: Sandbox) -> None:
    options = Settings().download
    async with client(sandbox) as public:
        for name, tas, kind in (
            ("CHIKV_Mac", PRIVATE_TAS, NotAMember),
            ("EMPTY1", "lb18145-1", NoObservations),
            ("NOSUCH", "lb18145-1", NotFound),
            ("Mpro", "lb00000-1", NotFound),
        ):
            with pytest.raises(kind) as raised:
                await public.download_target(name, tas, options)
            assert type(raised.value) is kind


async def test_a_target_that_cannot_be_built(sandbox: Sandbox) -> None:
    sandbox.fragalysis.break_builds("Mpro", "lb18145-1")
    async with client(sandbox) as public:
        with pytest.raises(CannotBuild):
            await public.download_target("Mpro", "lb18145-1", Settings().download)
        await public.download_target("Mpro", "lb32627-66", Settings().download)


async def test_a_link_that_expired(sandbox: Sandbox, tmp_path: Path) -> None:
    async with client(sandbox) as public:
        with pytest.raises(Transient, match="expired"):
            await fetched(public, FileLink("/code/media/downloads/0000/Mpro.zip"), tmp_path / "a.zip")


async def test_a_build_is_taken_up_after_a_restart() -> None:
    async with Sandbox(age="2026") as sandbox:
        known: list[BuildTask] = []

        async def die(task: BuildTask) -> None:
            known.append(task)
            raise asyncio.CancelledError

        async with client(sandbox) as first:
            target = next(t for t in (await first.target_uploads()).values() if t.uploads).target
            name, tas = target.name, target.target_access_string
            with pytest.raises(asyncio.CancelledError):
                await first.download_target(name, tas, Settings().download, on_task=die)
        async with client(sandbox) as second:
            (task,) = known
            kept = BuildTask(task.path, task.requested_at)  # as read from the record
            link = await second.download_target(name, tas, Settings().download, resume=kept)
            assert link.format == "tar.gz"
            old = BuildTask(task.path.replace("-", "0"), task.requested_at - timedelta(days=1))
            with pytest.raises(CannotBuild):
                await second.download_target(name, tas, Settings().download, resume=old)
