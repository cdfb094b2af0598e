"""The disk against the record: what is damaged, gone or left over is found with what helps; and the command itself."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.support.pipeline import A, Job, world
from tests.support.process import Done, _call
from watcher.pipeline.inventory import inventory
from watcher.store.engine import Store
from watcher.store.invariants import Finding


def _damage(job: Job, what: str) -> Path:
    folder = job.downloads / A[1] / A[0]
    archive = folder / "1" / f"{A[0]}.tar.gz"
    match what:
        case "damaged":
            archive.write_bytes(archive.read_bytes()[:-1] + b"x")
        case "gone":
            archive.unlink()
        case "not unpacked":
            shutil.rmtree(folder / "1" / "files")
        case "link":
            (folder / "current").unlink()
            (folder / "current").symlink_to("77")
        case "folder":
            (folder / "77").mkdir()
            return folder / "77"
        case "part":
            part = folder / "1" / ".files.part"
            part.mkdir()
            return part
        case "stray":
            (folder / "1" / "core.123").touch()
            return folder / "1" / "core.123"
        case "other format":
            archive.with_name(f"{A[0]}.zip").touch()
            return archive.with_name(f"{A[0]}.zip")
    return archive


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[Job]:
    async with world(tmp_path) as job:
        await job.once()
        yield job


async def disk(job: Job) -> list[Finding]:
    async with Store(job.settings.database, read_only=True) as store:
        return await inventory(store, job.settings.download)


@pytest.mark.parametrize(
    ("what", "words", "advice"),
    [
        ("damaged", "does not agree with its digest", "fetches it again"),
        ("gone", "is gone", "fetches it again"),
        ("not unpacked", "unpacked files are gone", "fetches it again"),
        ("link", "does not point at 1", "points it"),
        ("folder", "belongs to no recorded upload", "look at it"),
        ("part", "left by a crash", "next start removes it"),
        ("stray", "no archive that the record knows", "move or remove it"),
        ("other format", "no archive that the record knows", "move or remove it"),
    ],
)
async def test_what_the_disk_does_not_hold_is_found(job: Job, what: str, words: str, advice: str) -> None:
    place = await asyncio.to_thread(_damage, job, what)
    (found,) = await disk(job)
    assert words in found.what
    assert advice in found.action
    assert A[0] in found.where
    if what in ("damaged", "gone", "not unpacked", "link", "part"):
        await job.once()  # what is advised is what helps
        assert await disk(job) == []
    else:
        assert place.exists(), "nothing is changed"


async def test_a_size_that_the_record_does_not_know(job: Job) -> None:
    async with Store(job.settings.database) as store, store.write() as session:
        await session.execute(text("UPDATE upload SET archive_size = 1 WHERE id = 1"))
    (found,) = await disk(job)
    assert "the record says 1" in found.what
    assert found.action.startswith("this is a fault of the program: report it")


async def test_a_damaged_archive_while_none_are_fetched(job: Job) -> None:
    await asyncio.to_thread(_damage, job, "gone")
    job.set("download", enabled=False)
    await job.once()
    (found,) = await disk(job)
    assert found.action == "set download.enabled, then `watcher once` fetches it again"
    job.set("download", enabled=True)
    await job.once()
    assert await disk(job) == []


async def test_a_damaged_archive_of_an_upload_that_does_not_count_any_more(job: Job) -> None:
    job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
    await job.once()
    archive = job.downloads / A[1] / A[0] / "1" / f"{A[0]}.tar.gz"
    backup = await asyncio.to_thread(archive.read_bytes)
    await asyncio.to_thread(_damage, job, "damaged")
    await job.once()
    (found,) = await disk(job)
    assert "does not agree with its digest" in found.what
    assert found.action.startswith("copy it back from a backup of the folder: it does not count any more")
    await asyncio.to_thread(archive.write_bytes, backup)
    assert await disk(job) == []


async def test_an_archive_that_cannot_be_read(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = job.downloads / A[1] / A[0] / "1" / f"{A[0]}.tar.gz"
    archive.rename(job.downloads.parent / "whole")
    archive.symlink_to("/proc/self/mem")  # what a sick disk answers: an input/output error
    (found,) = await disk(job)
    assert "cannot be read" in found.what
    assert str(archive) in found.what
    assert found.action == f"look at the disk and the file system of {archive.parent}"
    archive.unlink()
    (job.downloads.parent / "whole").rename(archive)
    assert await disk(job) == []

    def forbidden(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("watcher.pipeline.inventory.damage", forbidden)
    first, second = await disk(job)
    assert "cannot be read" in first.what
    assert {first.action, second.action} == {"look at the rights of the folder"}


async def test_what_is_being_fetched_is_no_finding(job: Job) -> None:
    job.sandbox.fragalysis.touch(*A)
    job.fault("fragalysis", "status", "download_structures", method="POST", status=503, times=None)
    await job.once()
    (upload,) = [one for one in await job.uploads() if one.archive_state in ("wanted", "unavailable")]
    at = upload.committed_at.strftime("%Y%m%dT%H%M%S.%fZ")
    folder = job.downloads / A[1] / A[0] / f"1-{at}"
    (folder / ".A71EV2A.tar.gz.part").parent.mkdir()
    (folder / ".A71EV2A.tar.gz.part").touch()
    assert await disk(job) == []


async def test_an_archive_without_a_record_is_found(job: Job) -> None:
    job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
    await job.once()
    async with Store(job.settings.database) as store, store.write() as session:
        await session.execute(text("UPDATE upload SET archive_state = 'skipped', archive_path = NULL WHERE id = 1"))
    folder = job.downloads / A[1] / A[0] / "1"
    found = await disk(job)
    assert {one.where for one in found} == {str(folder / f"{A[0]}.tar.gz"), str(folder / "files")}


# The command


async def check(job: Job, *arguments: str) -> Done:
    """Call `watcher db check` as a process of its own, with the settings of the job."""
    folder = job.downloads.parent
    lines = f'[database]\nurl = "sqlite+aiosqlite:///{job.file}"\n[download]\ndirectory = "{job.downloads}"\n'
    await asyncio.to_thread((folder / "config.toml").write_text, lines)
    return await asyncio.to_thread(_call, folder, ["db", "check", *arguments], {})


async def test_the_command_beside_the_daemon(job: Job) -> None:
    async with job.run() as runner:
        await runner.turn()
        assert await disk(job) == []
        before = await asyncio.to_thread(Path(job.file).read_bytes)
        await asyncio.to_thread(_damage, job, "gone")
        done = await check(job)
        assert done.exit_code == 1
        first, last = done.stdout.splitlines()
        assert first.startswith("wrong: A71EV2A@lb32627-66 upload 1: the stored archive is gone")
        assert "; what to do: nothing by hand" in first
        assert last.startswith("1 finding.")
        done = await check(job, "--json")
        assert done.exit_code == 1
        assert [set(one) for one in json.loads(done.stdout)] == [{"where", "what", "action"}]
        assert await asyncio.to_thread(Path(job.file).read_bytes) == before
