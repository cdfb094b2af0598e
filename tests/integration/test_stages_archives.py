"""Archives: builds that fail, files that are damaged or hostile, restarts, a full disk."""

import asyncio
import errno
import os
import shutil
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import structlog

from tests.support.hostile import Entry, tar_gz
from tests.support.pipeline import A, B, Job, until, world
from watcher import points
from watcher.archives import digest, point_current, receive
from watcher.fragalysis import FileLink, Fragalysis
from watcher.pipeline.download import Download
from watcher.pipeline.inventory import inventory
from watcher.pipeline.settle import settle
from watcher.pipeline.verify import damage
from watcher.sandbox.archives import build
from watcher.sandbox.downloads import Downloads
from watcher.store import legs, targets
from watcher.store.engine import Store
from watcher.store.instance import instance

UPLOAD_A = "A71EV2A@lb32627-66 upload 1"
FILE = "download_structures/?file_url"


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[Job]:
    async with world(tmp_path) as job:
        yield job


def serve(monkeypatch: pytest.MonkeyPatch, job: Job, content: bytes) -> None:
    """Let the server hand out this file for every build."""
    monkeypatch.setattr("watcher.sandbox.downloads.build", lambda *_: content)
    assert isinstance(job.sandbox.fragalysis.downloads, Downloads)


async def state(job: Job) -> list[str]:
    return [one.archive_state for one in await job.uploads()]


def bring_late_rows(job: Job) -> None:
    """Let an observation appear in the upload that is there."""
    target = job.sandbox.fragalysis.world.find(*A)
    job.sandbox.fragalysis.add_upload(*A, [("A0500a", "CCCl", "Z7")])
    target.uploads.pop()
    target.published = 1


@pytest.mark.slow
async def test_a_target_that_takes_over_a_name_leaves_the_folder_to_its_owner(job: Job) -> None:
    server = job.sandbox.fragalysis
    server.add_upload(*A, [("A0400a", "CCC", "Z9")])
    await job.once()
    server.rename(*A, "Entero")
    server.move(*B, A[1])
    server.rename(B[0], A[1], A[0])
    server.add_upload(A[0], A[1], [("P0003a", "CCCN", "Z9")])
    await job.once()
    _, earlier, _, later = await job.uploads()
    assert (earlier.upload_index, later.upload_index) == (2, 2)
    archives = [job.downloads / str(one.archive_path) for one in (earlier, later)]
    folders = [archive.parent for archive in archives]
    assert folders[0] == job.downloads / A[1] / A[0] / "2"
    assert folders[0].parent != folders[1].parent
    assert [(folder.parent / "current").readlink() for folder in folders] == [Path("2"), Path("2")]
    assert [digest(archive) for archive in archives] == [earlier.archive_sha256, later.archive_sha256]
    await job.once()
    assert job.asked("download_structures", "POST") == 3, "nothing had to be fetched again"


async def test_an_archive_that_cannot_be_built_does_not_stop_scoring(job: Job) -> None:
    job.sandbox.fragalysis.break_builds(*A)
    async with job.run() as runner:
        with structlog.testing.capture_logs() as logs:
            await job.again(runner)
        assert await state(job) == ["unavailable", "stored"]
        assert job.bought == {"CCO": 1, "CCN": 1, "c1ccccc1": 1}
        assert [*await job.conditions()] == [f"{UPLOAD_A}: archive_unavailable"]
        asked = job.asked("download_structures", "POST")
        await job.later(runner, hours=2)
        assert job.asked("download_structures", "POST") == asked, "tried again slowly"
        await job.later(runner, hours=6)
        assert job.asked("download_structures", "POST") == asked + 1
        assert [*await job.conditions()] == [f"{UPLOAD_A}: archive_unavailable"]
        job.sandbox.fragalysis.break_builds(*A, False)
        await job.later(runner, hours=8)
    assert await state(job) == ["stored", "stored"]
    assert await job.conditions() == {}
    assert sum(one["event"] == "condition_opened" for one in logs) <= 1


async def test_who_may_not_have_an_archive_is_told_what_to_do(job: Job) -> None:
    body = {"message": f'User "" is not a member of {A[1]}'}
    job.fault("fragalysis", "status", "download_structures", method="POST", status=404, body=body, times=None)
    async with job.run() as runner:
        await job.again(runner)
        told = await job.open_conditions()
        assert {one.kind for one in told} == {"archive_unavailable"}
        assert {one.action for one in told} == {
            "sign in as a member of the proposal and set fragalysis.token, or exclude the target"
        }


@pytest.mark.slow
async def test_other_failures_do_not_count_as_builds(job: Job) -> None:
    job.fault("fragalysis", "close_before_answer", "download_structures", method="POST", times=6)
    job.fault("fragalysis", "fail_build", "download_structures", method="POST", times=3)
    async with job.run() as runner:
        for _ in range(6):
            await job.later(runner, minutes=20) if job.asked("download_structures") else await job.again(runner)
    assert await state(job) == ["stored", "stored"]
    assert not await job.ever("archive_unavailable")
    assert await job.conditions() == {}


async def test_a_damaged_archive_is_noticed_and_fetched_again(job: Job) -> None:
    await job.once()
    archive = job.downloads / A[1] / A[0] / "1" / f"{A[0]}.tar.gz"
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-1] + b"x")
    job.clock.advance(1)
    await job.once()
    assert archive.read_bytes() == whole
    assert await state(job) == ["stored", "stored"]
    (job.downloads / B[1] / B[0] / "current").unlink()
    job.clock.advance(1)
    await job.once()
    assert (job.downloads / B[1] / B[0] / "current").is_symlink()


@pytest.mark.slow
async def test_a_pause_of_fragalysis_does_not_keep_archives_from_being_verified(job: Job) -> None:
    await job.once()
    (job.downloads / A[1] / A[0] / "1" / f"{A[0]}.tar.gz").unlink()
    job.clock.advance(1)
    job.fault("fragalysis", "status", status=401, times=None)
    await job.once()
    assert await state(job) == ["wanted", "stored"]
    job.sandbox.clear_faults()
    await job.once()
    assert await state(job) == ["stored", "stored"]


async def test_files_of_one_archive_that_replace_each_other_are_told(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, job, tar_gz([Entry("a", b"1"), Entry("b", b"1"), Entry("a", b"2")]))
    with structlog.testing.capture_logs() as logs:
        await job.once()
    assert await state(job) == ["stored", "stored"]
    told = [one for one in logs if one["event"] == "archive_members_replaced"]
    assert [one["members"] for one in told] == [("a",), ("a",)]
    assert {Path(one["folder"]).parent.parent.name for one in told} == {A[0], B[0]}


async def test_an_unsafe_archive_is_set_aside_at_once(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, job, tar_gz([Entry("../../escape", b"x")]))
    await job.once()
    assert await state(job) == ["quarantined", "quarantined"]
    assert f"{UPLOAD_A}: archive_quarantined" in await job.conditions()
    assert not list(job.downloads.parent.glob("**/escape"))
    assert job.bought == {"CCO": 1, "CCN": 1, "c1ccccc1": 1}
    # Passed over by another upload, it needs nobody any more.
    monkeypatch.undo()
    job.sandbox.fragalysis.downloads._builds.clear()
    for name, tas in (A, B):
        job.sandbox.fragalysis.touch(name, tas)
    await job.once()
    assert await job.conditions() == {}
    assert await state(job) == ["skipped", "skipped", "stored", "stored"]


async def test_an_undecodable_archive_gets_one_fresh_build(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, job, tar_gz([Entry("a", os.urandom(9000))])[:-4000])
    async with job.run() as runner:
        await job.again(runner)
        assert await state(job) == ["quarantined", "quarantined"]
        assert job.asked(FILE) == 4, "two files each"
    # A newer version of the program takes them up by itself.
    monkeypatch.undo()
    job.sandbox.fragalysis.downloads._builds.clear()
    for module in ("legs", "upload_queues"):
        monkeypatch.setattr(f"watcher.store.{module}.__version__", "99.0")
    await job.once()
    assert await state(job) == ["stored", "stored"]
    assert await job.conditions() == {}


@pytest.mark.parametrize(
    ("age", "label", "content", "name"), [("2026", "tar.gz", "2024", "zip"), ("2024", "zip", "2026", "tar.gz")]
)
async def test_an_archive_under_a_wrong_label_is_stored_as_what_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    age: Literal["2024", "2026"],
    label: str,
    content: Literal["2024", "2026"],
    name: str,
) -> None:
    monkeypatch.setattr("watcher.sandbox.downloads.build", lambda *what: build(what[0], what[1], what[2], content))
    async with world(tmp_path, age=age) as job:
        await job.once()
        assert await state(job) == ["stored", "stored"]
        for (target, tas), upload in zip((A, B), await job.uploads(), strict=True):
            assert job.asked(f"{target}.{label}") == 1, "what the link says"
            folder = job.downloads / tas / target / "1"
            archive = folder / f"{target}.{name}"
            assert job.downloads / str(upload.archive_path) == archive
            assert sorted(folder.iterdir()) == [archive, folder / "files"]
            assert (digest(archive), archive.stat().st_size) == (upload.archive_sha256, upload.archive_size)
            assert (folder.parent / "current" / "files" / "smiles.smi").is_file()
        async with Store(job.settings.database, read_only=True) as store:
            assert await inventory(store, job.settings.download) == []
        job.clock.advance(1)
        await job.once()  # verifies it
        assert job.asked("download_structures", "POST") == 2, "nothing is fetched again"


async def test_an_archive_that_comes_again_in_another_format_takes_the_place_of_the_first(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as mislabelled:
        mislabelled.setattr("watcher.sandbox.downloads.build", lambda *what: build(what[0], what[1], what[2], "2024"))
        await job.once()
    folder = job.downloads / A[1] / A[0] / "1"
    await asyncio.to_thread((folder / f"{A[0]}.zip").write_bytes, b"damaged")
    job.sandbox.fragalysis.downloads._builds.clear()
    await job.once()
    assert sorted(path.name for path in folder.iterdir()) == [f"{A[0]}.tar.gz", "files"]
    assert (await job.uploads())[0].archive_path == f"{A[1]}/{A[0]}/1/{A[0]}.tar.gz"
    async with Store(job.settings.database, read_only=True) as store:
        assert await inventory(store, job.settings.download) == []


@pytest.mark.parametrize("left", ["all of it", "damaged", "not unpacked"])
async def test_what_is_left_of_an_upload_that_is_passed_over_is_taken_up_or_goes(job: Job, left: str) -> None:
    """As when observations appeared after its archive was built, or when it was found to be damaged or not unpacked."""
    whole = left != "damaged"
    await job.once()
    folder = job.downloads / A[1] / A[0] / "1"
    if left == "damaged":
        await asyncio.to_thread((folder / f"{A[0]}.tar.gz").write_bytes, b"damaged")
    elif left == "not unpacked":
        await asyncio.to_thread(shutil.rmtree, folder / "files")
    async with Store(job.settings.database) as store, store.write() as session:
        upload, _ = await targets.upload_with_target(session, 1)
        legs.set_archive_state(session, upload, "wanted", now=job.clock.now(), why="test")
        upload.archive_due_at = job.clock.now() + timedelta(days=1)
    job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
    await job.once()
    assert [one.archive_state for one in await job.uploads()] == ["skipped", "stored", "stored"]
    assert folder.is_dir(), "another start decides: no download of it is under way then"
    await job.once()
    await job.once()  # what goes is noted first, and removed by what keeps house
    upload = (await job.uploads())[0]
    assert upload.archive_state == ("stored" if whole else "pruned")
    assert (upload.archive_path is not None, folder.exists()) == (whole, whole)
    async with Store(job.settings.database, read_only=True) as store:
        assert await inventory(store, job.settings.download) == []


async def test_an_older_upload_that_is_seen_later_has_a_folder_of_its_own(job: Job) -> None:
    job.sandbox.fragalysis.touch(*A)
    await job.once()
    async with Store(job.settings.database) as store, store.write() as session:
        first, target = await targets.upload_with_target(session, 1)
        key = (first.upload_index, first.committed_at - timedelta(days=1))
        older = await targets.add_upload(session, target, key, scan_no=2, now=job.clock.now())
        download = Download(SimpleNamespace(settings=job.settings))  # type: ignore[arg-type]
        assert await download._folder(session, target, older) != (job.downloads / str(first.archive_path)).parent
        assert await download._folder(session, target, first) == (job.downloads / str(first.archive_path)).parent


@pytest.mark.slow
async def test_what_is_no_archive_counts_as_a_failed_build(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, job, b"<html><body>Bad gateway</body></html>")
    async with job.run() as runner:
        await job.again(runner)
    assert await state(job) == ["unavailable", "unavailable"]
    assert job.asked(FILE) == 10
    assert set(await job.conditions()) == {
        f"{UPLOAD_A}: archive_unavailable",
        "Mpro@lb18145-1 upload 1: archive_unavailable",
    }


async def test_a_restart_waits_for_the_same_build(job: Job) -> None:
    job.sandbox.fragalysis.downloads.pace.polls = 10**6
    async with job.run(crash=True) as runner:
        await runner.scan.request()
        settling = asyncio.create_task(settle(runner))
        await until(lambda: job.asked("/viewer/task_status") >= 3)
        settling.cancel()
    assert job.asked("download_structures", "POST") == 1
    job.sandbox.fragalysis.downloads.pace.polls = 2
    await job.once()
    assert await state(job) == ["stored", "stored"]
    assert job.asked("download_structures", "POST") == 2, "one for each target"


async def test_a_full_disk_pauses_downloads_only(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    full = True

    def write(fd: int, data: bytes) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        os.write(fd, data)

    monkeypatch.setattr(sys.modules["watcher.archives.receive"], "write_all", write)
    async with job.run() as runner:
        await job.again(runner)
        assert job.bought == {"CCO": 1, "CCN": 1, "c1ccccc1": 1}
        assert [*await job.conditions()] == ["download: machine"]
        assert await state(job) == ["wanted", "wanted"]
        assert not list(job.downloads.glob("**/*.part"))
        full = False
        for _ in range(3):
            await job.later(runner, minutes=15)
        assert await state(job) == ["stored", "stored"]
    assert await job.conditions() == {}
    assert len(await job.ever("machine")) == 1


async def test_an_upload_that_the_server_has_replaced_is_not_taken_for_the_old_one(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Fragalysis.download_target
    published = False

    async def replaced(self: Fragalysis, name: str, *arguments: Any, **more: Any) -> Any:
        nonlocal published
        if name == A[0] and not published:
            published = True
            job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
        return await original(self, name, *arguments, **more)

    monkeypatch.setattr(Fragalysis, "download_target", replaced)
    await job.once()
    first, _, second = await job.uploads()
    assert (first.upload_index, first.archive_state) == (1, "skipped")
    assert (second.upload_index, second.archive_state) == (2, "stored")
    assert not (job.downloads / A[1] / A[0] / "1").exists()
    assert "CCC" in (job.downloads / A[1] / A[0] / "current" / "files" / "smiles.smi").read_text()


async def test_no_build_is_asked_for_once_it_is_not_wanted(job: Job) -> None:
    """What looked due may have been stored, or passed over, since it was looked at."""
    async with job.run() as runner:
        await job.again(runner)
        asked = job.asked("download_structures", "POST")
        await runner.download.step(1)
        async with runner._context.store.write() as session:
            upload, target = await targets.upload_with_target(session, 2)
            legs.set_archive_state(session, upload, "wanted", now=job.clock.now(), why="test")
            target.followed = False
        await runner.download.step(2)
        assert job.asked("download_structures", "POST") == asked > 0


async def test_the_download_of_an_upload_that_is_passed_over_makes_room(job: Job) -> None:
    job.sandbox.fragalysis.downloads.pace.polls = 10**6
    async with job.run() as runner:
        await runner.scan.request()
        settling = asyncio.create_task(settle(runner))
        await until(lambda: job.asked("/viewer/task_status") >= 3)
        async with asyncio.timeout(20):
            job.sandbox.fragalysis.downloads.pace.polls = 2
            job.sandbox.fragalysis.downloads._builds.clear()  # the old build never ends
            job.sandbox.fragalysis.touch(*A)
            await runner.scan.request()
            await settling
    old, _, new = await job.uploads()
    assert (old.archive_state, new.archive_state) == ("skipped", "stored")


async def test_what_the_record_has_forgotten_counts_as_passed_over(job: Job) -> None:
    """As when the record went back in time while its archive was fetched: it ends nothing else."""
    async with job.run() as runner:
        await job.again(runner)
        assert await runner.download.passed_over([1, 2, 99]) == [99]


@pytest.mark.slow
async def test_a_renamed_target_is_asked_for_by_its_new_name(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Fragalysis.download_target
    renamed = False

    async def rename(self: Fragalysis, name: str, *arguments: Any, **more: Any) -> Any:
        nonlocal renamed
        if name == A[0] and not renamed:
            renamed = True
            job.sandbox.fragalysis.rename(*A, "Entero")
        return await original(self, name, *arguments, **more)

    monkeypatch.setattr(Fragalysis, "download_target", rename)
    await job.once()
    assert await state(job) == ["stored", "stored"]
    assert await job.conditions() == {}
    assert (job.downloads / A[1] / "Entero" / "current").is_symlink()


async def test_a_target_that_is_renamed_while_its_archive_is_fetched_does_not_lack_it(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.sandbox.fragalysis.break_builds(*A)
    async with job.run() as runner:
        await job.again(runner)
        assert [*await job.conditions()] == [f"{UPLOAD_A}: archive_unavailable"]
        job.sandbox.fragalysis.break_builds(*A, False)

        async def renamed(*arguments: Any, **more: Any) -> Any:
            job.sandbox.fragalysis.rename(*A, "Entero")
            await runner.scan.step(0)
            return await receive(*arguments, **more)

        monkeypatch.setattr("watcher.pipeline.download.receive", renamed)
        await job.later(runner, hours=8)
    assert await state(job) == ["stored", "stored"]
    assert await job.conditions() == {}


async def test_an_archive_is_built_again_when_rows_appear_while_it_is_built(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: Counter[str] = Counter()
    monkeypatch.setattr(points, "hook", lambda name: reached.update([name]))
    began, pace = job.clock.now(), job.sandbox.fragalysis.downloads.pace
    pace.polls = 10**6
    async with job.run() as runner:
        await runner.scan.request()
        settling = asyncio.create_task(settle(runner))
        await until(lambda: reached["extract.recorded"] == 2 and reached["download.task-remembered"])
        bring_late_rows(job)
        await until(lambda: job.clock.now() - began > timedelta(minutes=11))
        await runner.turn()
        await until(lambda: reached["extract.recorded"] == 4)
        assert await state(job) == ["wanted", "wanted"]
        pace.polls = 2
        await settling
    assert await state(job) == ["stored", "stored"]
    assert "CCCl" in (job.downloads / A[1] / A[0] / "current" / "files" / "smiles.smi").read_text()


async def test_a_bad_archive_does_not_take_the_place_of_a_good_one(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    async with job.run() as runner:
        await job.again(runner)
        folder = job.downloads / A[1] / A[0] / "1"
        good = (folder / f"{A[0]}.tar.gz").read_bytes()
        bring_late_rows(job)
        serve(monkeypatch, job, tar_gz([Entry("a", os.urandom(9000))])[:-4000])
        await job.later(runner, minutes=11)
        await job.later(runner, minutes=30)
    assert await state(job) == ["quarantined", "stored"]
    assert (folder / f"{A[0]}.tar.gz").read_bytes() == good
    assert {path.name for path in folder.iterdir()} == {f"{A[0]}.tar.gz", "files"}
    assert (folder / "files" / "smiles.smi").is_file()


async def test_nor_does_a_bad_archive_of_another_format(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passed over then, the good one is what is left of its upload."""
    with monkeypatch.context() as mislabelled:
        mislabelled.setattr("watcher.sandbox.downloads.build", lambda *what: build(what[0], what[1], what[2], "2024"))
        await job.once()
    before = (await job.uploads())[0]
    folder = job.downloads / A[1] / A[0] / "1"
    async with Store(job.settings.database) as store, store.write() as session:
        upload, _ = await targets.upload_with_target(session, 1)
        legs.set_archive_state(session, upload, "wanted", now=job.clock.now(), why="observations appeared")
    job.sandbox.fragalysis.downloads._builds.clear()
    with monkeypatch.context() as hostile:
        serve(hostile, job, tar_gz([Entry("../../escape", b"x")]))
        await job.once()
    after = (await job.uploads())[0]
    assert after.archive_state == "quarantined"
    assert after.archive_path == before.archive_path == f"{A[1]}/{A[0]}/1/{A[0]}.zip"
    assert after.archive_sha256 == before.archive_sha256
    job.sandbox.fragalysis.downloads._builds.clear()
    job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
    await job.once()
    await job.once()
    assert [one.archive_state for one in await job.uploads()] == ["stored", "stored", "stored"]
    assert (folder / f"{A[0]}.zip").is_file()


async def test_a_file_that_trickles_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, trickled = Fragalysis.fetch, 0

    async def drops() -> AsyncIterator[bytes]:
        while True:
            yield b"PK\x03\x04"
            await asyncio.sleep(0.05)

    @asynccontextmanager
    async def trickle(self: Fragalysis, link: FileLink) -> AsyncIterator[Any]:
        nonlocal trickled
        if A[0] in link.path and not trickled:
            trickled += 1
            yield None, drops()
            return
        async with original(self, link) as file:
            yield file

    monkeypatch.setattr(Fragalysis, "fetch", trickle)
    async with world(tmp_path, age="2024") as job:
        job.set("fragalysis", build_timeout=timedelta(seconds=2))
        async with job.run() as runner, asyncio.timeout(30):
            await job.again(runner)
            await job.later(runner, minutes=1)
        assert await state(job) == ["stored", "stored"]
        assert trickled
        assert not list(job.downloads.glob("**/*.part"))


async def test_the_check_of_a_large_archive_ends_with_its_unit(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = threading.Event(), threading.Event()

    def noted(*arguments: Any, **more: Any) -> str:
        begun.set()
        try:
            return damage(*arguments, **more)
        finally:
            ended.set()

    monkeypatch.setattr("watcher.pipeline.verify.damage", noted)
    async with job.run() as runner:
        await job.again(runner)
        os.truncate(job.downloads / A[1] / A[0] / "1" / f"{A[0]}.tar.gz", 40 << 30)  # takes minutes to read
        checking = asyncio.create_task(runner._verify.step(1))
        await until(begun.is_set)
        checking.cancel()
        await until(ended.is_set)
    assert await state(job) == ["stored", "stored"]


async def test_a_disk_that_hangs_while_current_is_pointed_does_not_hold_the_record(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, over = threading.Event(), threading.Event()

    def hang(*arguments: Path) -> None:
        begun.set()
        over.wait(30)
        point_current(*arguments)

    async with job.run() as runner:
        await job.again(runner)
        monkeypatch.setattr("watcher.pipeline.verify.point_current", hang)
        checking = asyncio.create_task(runner._verify.step(1))
        await until(begun.is_set)
        try:
            async with asyncio.timeout(5), runner._context.store.write() as session:
                await instance(session)
        finally:
            over.set()
        await checking


async def test_archives_of_what_was_recorded_without_them_are_fetched_once_they_are_asked_for(job: Job) -> None:
    job.sandbox.fragalysis.add_target("Bare", "lb00001-1")
    job.sandbox.fragalysis.add_upload("Bare", "lb00001-1", [])
    job.set("download", enabled=False)
    await job.once()
    job.set("download", enabled=True)
    await job.once()
    assert await state(job) == ["stored", "stored", "skipped"]
    assert job.asked("download_structures", "POST") == 2, "there is nothing to pack of an upload without observations"


async def test_nobody_is_called_about_archives_that_are_not_asked_for_any_more(job: Job) -> None:
    job.sandbox.fragalysis.break_builds(*A)
    job.set("download", max_archive_size="1B")
    await job.once()
    assert await state(job) == ["unavailable", "quarantined"]
    assert len(await job.conditions()) == 2
    job.set("download", enabled=False)
    await job.once()
    assert await job.conditions() == {}
    assert await state(job) == ["skipped", "skipped"]
    job.sandbox.fragalysis.break_builds(*A, False)
    job.set("download", enabled=True, max_archive_size="1GB")
    await job.once()
    assert await state(job) == ["stored", "stored"]


async def test_what_was_pruned_and_counts_again_is_fetched_once_archives_are_asked_for(job: Job) -> None:
    job.set("download", keep_uploads=1)
    await job.once()
    job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
    await job.once()
    async with job.run() as runner:
        await job.later(runner, minutes=1)
    assert await state(job) == ["pruned", "stored", "stored"]
    job.set("download", enabled=False)
    job.sandbox.fragalysis.withdraw(*A)
    await job.once()
    assert await state(job) == ["pruned", "stored", "stored"]
    job.set("download", enabled=True)
    await job.once()
    assert (await state(job))[0] == "stored"
    assert (job.downloads / A[1] / A[0] / "current" / "files").is_dir()


async def test_what_was_set_aside_and_has_nothing_to_pack_needs_nobody(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of the program has taken it up again."""
    job.set("download", max_archive_size="1B")
    await job.once()
    assert len(await job.conditions()) == 2
    monkeypatch.setattr("watcher.store.upload_queues.__version__", "99.0")
    body = {"message": "Please enter a list of valid protein codes for the download, these are not: []"}
    job.fault("fragalysis", "status", "download_structures", method="POST", status=404, body=body, times=None)
    await job.once()
    assert await state(job) == ["skipped", "skipped"]
    assert await job.conditions() == {}


async def test_no_archives_unless_asked_for(job: Job) -> None:
    job.set("download", enabled=False)
    await job.once()
    assert await state(job) == ["skipped", "skipped"]
    assert not job.downloads.exists()
    assert job.asked("download_structures", "POST") == 0
