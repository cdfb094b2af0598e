"""Receiving an archive, and the places where everything lies."""

import asyncio
import errno
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.archives import (
    NotAnArchive,
    Received,
    Unsafe,
    archive_name,
    digest,
    point_current,
    receive,
    removal,
    rename,
    sweep,
    target_directory,
    upload_directory,
)
from watcher.archives.layout import slug
from watcher.errors import Invalid, Ours, Transient

ZIP, GZIP = b"PK\x03\x04" + bytes(3 << 20), b"\x1f\x8b\x08" + bytes(100)
GB = 10**9


async def pieces(content: bytes, size: int = 70_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def files(path: Path) -> list[Path]:
    return sorted(path.iterdir())


async def take(
    content: bytes, path: Path, *, size: int = 70_000, length: int | None = None, limit: int = GB
) -> Received:
    return await receive(pieces(content, size), path, expected_length=length, max_size=limit)


@pytest.mark.parametrize(("content", "format_"), [(ZIP, "zip"), (GZIP, "tar.gz"), (b"PK\x05\x06" + bytes(18), "zip")])
@pytest.mark.parametrize("size", [70_000, 1 << 22])
async def test_an_archive_is_received(tmp_path: Path, content: bytes, format_: str, size: int) -> None:
    path = tmp_path / "lb1-1" / "Mpro" / "1" / "Mpro.zip"
    received = await take(content, path, size=size, length=len(content))
    assert received == Received(path, hashlib.sha256(content).hexdigest(), len(content), format_)  # type: ignore[arg-type]
    assert path.read_bytes() == content
    assert digest(path) == received.sha256
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert files(path.parent) == [path]


async def test_bytes_one_by_one_and_a_leftover_of_a_crash(tmp_path: Path) -> None:
    (tmp_path / ".a.zip.part").symlink_to(tmp_path / "elsewhere")
    await take(GZIP, tmp_path / "a.zip", size=1)
    assert (tmp_path / "a.zip").read_bytes() == GZIP
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("content", "length", "limit", "kind"),
    [
        (ZIP, len(ZIP) + 1, GB, Transient),
        (ZIP, len(ZIP) - 1, GB, Unsafe),
        (ZIP, None, len(ZIP) - 1, Unsafe),
        (ZIP, 2 * GB, GB, Unsafe),
        (b"", None, GB, NotAnArchive),
        (b"PK", None, GB, NotAnArchive),
        (b"<!doctype html><html>" + bytes(10**6), None, GB, NotAnArchive),
        (b"Rar!" + bytes(100), None, GB, NotAnArchive),
    ],
)
async def test_what_is_not_taken(tmp_path: Path, content: bytes, length: int | None, limit: int, kind: Any) -> None:
    with pytest.raises(kind) as raised:
        await take(content, tmp_path / "a.zip", length=length, limit=limit)
    assert type(raised.value) is kind
    assert files(tmp_path) == []


def test_kinds_tell_what_a_caller_does_next() -> None:
    assert issubclass(NotAnArchive, Transient)
    assert issubclass(Unsafe, Invalid)


async def test_a_page_is_refused_before_the_rest_comes(tmp_path: Path) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"<html>" * 100

    with pytest.raises(NotAnArchive, match="web page"):
        await receive(endless(), tmp_path / "a.zip", expected_length=None, max_size=GB)
    assert taken == 1


async def test_a_transfer_that_breaks_off_or_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async def broken(error: BaseException) -> AsyncIterator[bytes]:
        yield ZIP
        raise error

    for error in (Transient("reset"), asyncio.CancelledError(), ValueError("bug")):
        with pytest.raises(type(error)):
            await receive(broken(error), tmp_path / "a.zip", expected_length=None, max_size=GB)
        assert files(tmp_path) == []


async def test_cancelled_from_outside_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, loop = asyncio.Event(), asyncio.get_running_loop()
    write = os.write

    def slow(fd: int, data: Any) -> int:
        loop.call_soon_threadsafe(started.set)
        return write(fd, data)

    monkeypatch.setattr(os, "write", slow)

    async def chunks() -> AsyncIterator[bytes]:
        yield ZIP
        await asyncio.Event().wait()

    task = asyncio.create_task(receive(chunks(), tmp_path / "a.zip", expected_length=None, max_size=GB))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("call", ["write", "open", "fsync", "replace"])
async def test_a_sick_disk_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(Path if call == "replace" else os, call, fail)
        with pytest.raises(Ours) as raised:
            await take(ZIP, tmp_path / "a.zip")
    assert os.strerror(code) in raised.value.message
    assert str(tmp_path) in raised.value.action
    assert files(tmp_path) == []


def test_an_archive_is_renamed_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[Path, bool]] = []
    monkeypatch.setattr(
        "watcher.archives.layout.sync_directory",
        lambda folder: synced.append((folder, (tmp_path / "a.tar.gz").exists())),
    )
    (tmp_path / "a.zip").write_bytes(GZIP)
    assert rename(tmp_path / "a.zip", tmp_path / "a.tar.gz") == tmp_path / "a.tar.gz"
    assert files(tmp_path) == [tmp_path / "a.tar.gz"]
    assert synced == [(tmp_path, True)], "after the name has changed"
    with pytest.raises(Ours, match="renaming"):
        rename(tmp_path / "missing.zip", tmp_path / "b.zip")


def test_what_came_in_another_format_goes_and_nothing_else(tmp_path: Path) -> None:
    folder, outside = tmp_path / "Mpro" / "1", tmp_path / "outside"
    folder.mkdir(parents=True)
    for path in (outside, *(folder / name for name in ("Mpro.zip", "Mpro.tar.gz", "Mpro.txt", "other.zip"))):
        path.write_text("x")
    removal.remove_other_formats(folder / "Mpro.tar.gz")
    assert [path.name for path in files(folder)] == ["Mpro.tar.gz", "Mpro.txt", "other.zip"]
    (folder / "Mpro.zip").symlink_to(outside)
    removal.remove_other_formats(folder / "Mpro.tar.gz")
    assert [path.name for path in files(folder)] == ["Mpro.tar.gz", "Mpro.txt", "other.zip"]
    assert outside.exists()
    (folder / "Mpro.zip").mkdir()
    removal.remove_other_formats(folder / "Mpro.tar.gz")
    assert (folder / "Mpro.zip").is_dir(), "no archive"


async def test_an_archive_that_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(Ours, match="does not fit"):
        await take(ZIP, tmp_path / "a.zip", length=10**18, limit=10**19)


async def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: max(1, len(data) // 2)]))
    assert (await take(ZIP, tmp_path / "a.zip")).sha256 == digest(tmp_path / "a.zip")


def test_digest_of_nothing_is_ours(tmp_path: Path) -> None:
    with pytest.raises(Ours):
        digest(tmp_path / "missing.zip")


def test_names_that_are_safe_stay(tmp_path: Path) -> None:
    assert target_directory(tmp_path, "lb32627-66", "A71EV2A", 1) == tmp_path / "lb32627-66" / "A71EV2A"
    assert archive_name(tmp_path / "A71EV2A", "tar.gz") == "A71EV2A.tar.gz"
    odd = target_directory(tmp_path, "lb18145-1", "NS2B-NS3 \u03b1", 8)
    assert odd.name.startswith("NS2B-NS3__~")
    assert odd == target_directory(tmp_path, "lb18145-1", "NS2B-NS3 \u03b1", 8)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../etc", "/etc", ".hidden", "-rf", "a/b", "CON", "nul.txt", "x" * 81, "a."]
)
def test_names_that_are_not(tmp_path: Path, name: str) -> None:
    path = target_directory(tmp_path, name, name, 1)
    assert path.parent.parent == tmp_path
    assert name not in path.parts
    assert all("~" in part for part in path.relative_to(tmp_path).parts)


def test_names_that_differ_by_case_do_not_share(tmp_path: Path) -> None:
    assert target_directory(tmp_path, "lb1-1", "Mpro", 1) != target_directory(tmp_path, "lb1-1", "MPRO", 2)


anything = st.text(max_size=120) | st.text(st.sampled_from("aA./\\~-_ \n\0é"), max_size=6)


@given(st.sets(st.tuples(anything, anything, st.integers(0, 5)), max_size=8))
def test_no_name_leads_out_and_no_two_share(names: set[tuple[str, str, int]]) -> None:
    root = Path("/nonexistent/root")
    found: dict[Path, set[tuple[str, str]]] = {}
    for tas, name, target_id in names:
        path = target_directory(root, tas, name, target_id)
        assert path == target_directory(root, tas, name, target_id)
        assert Path(os.path.normpath(path)) == path
        assert path.parent.parent == root
        for part in path.relative_to(root).parts:
            assert part.isascii()
            assert 0 < len(part) <= 80
            assert part[0] not in ".-"
            assert set(part) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~")
        found.setdefault(path, set()).add((tas, name))
    assert all(len(sharers) == 1 for sharers in found.values())


@given(st.text(st.sampled_from("aB1-_."), max_size=90))
def test_a_slug_that_is_the_name_is_the_name(name: str) -> None:
    once = slug(name, name)
    assert once == name or "~" in once


def test_upload_directories() -> None:
    time = datetime(2026, 9, 1, 9, 14, 7, 123456, tzinfo=UTC)
    target = Path("/d/lb1-1/Mpro")
    assert upload_directory(target, 3, time) == target / "3"
    assert upload_directory(target, 3, time, reused=True) == target / "3-20260901T091407.123456Z"


def test_current_moves_in_one_step(tmp_path: Path) -> None:
    for index in ("1", "2"):
        (tmp_path / index).mkdir()
        (tmp_path / ".current.part").touch()  # of an earlier crash
        point_current(tmp_path, tmp_path / index)
        assert (tmp_path / "current").readlink() == Path(index)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "current"]
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert (moved / "current").resolve() == moved / "2"


def test_current_of_a_target_that_was_swept_away(tmp_path: Path) -> None:
    point_current(tmp_path, tmp_path / "1")
    point_current(tmp_path, tmp_path / "2")  # over a link that leads nowhere
    assert (tmp_path / "current").readlink() == Path("2")


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_a_current_of_somebody_else_is_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "current")
    with pytest.raises(Ours, match="in the way") as raised:
        point_current(tmp_path, tmp_path / "1")
    assert raised.value.action
    assert not (tmp_path / "current").is_symlink()


def test_current_points_to_an_upload_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no upload"):
        point_current(tmp_path, tmp_path / "1" / "files")


def test_sweep_takes_leftovers_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "downloads"
    target = root / "lb1-1" / "Mpro"
    uploads = [target / "1", target / "2-20260901T091407.123456Z"]
    outside = tmp_path / "outside"
    for directory in (outside / "a" / "1", *(upload / "files" / "1" for upload in uploads), target / "own"):
        directory.mkdir(parents=True)
    places = [
        root,
        root / "lb1-1",
        target / "own",
        *(upload / "files" for upload in uploads),
        outside,
        outside / "a" / "1",
    ]
    kept = [place / ".x.part" for place in places] + [
        uploads[0] / name for name in ("Mpro.zip", "notes.part", ".hidden")
    ]
    for path in kept:
        path.touch()
    (root / "link").symlink_to(outside)
    (target / "3").symlink_to(outside / "a" / "1")
    left = [target / ".current.part", uploads[0] / ".l.part", uploads[0] / ".Mpro.zip.part", uploads[1] / ".files.part"]
    left[0].symlink_to("nowhere")
    left[1].symlink_to(outside)
    left[2].touch()
    (left[3] / "deep").mkdir(parents=True)
    assert set(sweep(root)) == set(left)
    assert all(path.exists() for path in kept)
    assert not any(os.path.lexists(path) for path in left)
    assert sweep(root) == []
    assert sweep(tmp_path / "missing") == []
