"""Unpacking, of good archives and of hostile ones: nothing lands outside, no link is made, nothing is left behind."""

import gzip
import io
import os
import re
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hostile import BUILDERS, Entry, tar_gz, write, zip_
from watcher.archives import Undecodable, Unpacked, Unsafe, unpack
from watcher.errors import Invalid, Ours, Transient

MANY, LARGE = 10_000, 10**8
FORMATS = sorted(BUILDERS)


@pytest.fixture(autouse=True)
def _no_sync_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sync", lambda: None)


def run(content: bytes, root: Path, *, size: int = LARGE, members: int = MANY, **more: Any) -> Unpacked:
    archive = write(root / "archive", content)
    return unpack(archive, root / "files", max_unpacked_size=size, max_members=members, **more)


def tree(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))
    }


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("format_", FORMATS)
def test_a_good_archive(tmp_path: Path, format_: str) -> None:
    entries = [
        Entry("./", kind="folder") if format_ == "tar.gz" else Entry("empty/", kind="folder"),
        Entry("metadata.csv", b"Code\n", mode=0o4777),
        Entry("aligned_files/A71EV2A-x0310/Ä β.pdb", b"ATOM" * 10**5, mode=0),
        Entry("empty/" if format_ == "zip" else "empty", kind="folder", mode=0o777),
        Entry("./README.md", b""),
    ]
    done = run(BUILDERS[format_](entries), tmp_path)
    assert tree(tmp_path / "files") == {
        "metadata.csv": b"Code\n",
        "aligned_files": None,
        "aligned_files/A71EV2A-x0310": None,
        "aligned_files/A71EV2A-x0310/Ä β.pdb": b"ATOM" * 10**5,
        "empty": None,
        "README.md": b"",
    }
    assert done == Unpacked(5, 400_005, ())
    for path in (tmp_path / "files", *(tmp_path / "files").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
        assert path.stat().st_mtime > 10**9 + 1
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "files"}


@pytest.mark.parametrize("format_", FORMATS)
def test_an_empty_archive_and_one_in_the_place_of_another(tmp_path: Path, format_: str) -> None:
    (tmp_path / ".files.part").mkdir()
    (tmp_path / ".files.part" / "left").touch()
    run(BUILDERS[format_]([Entry("a", b"1"), Entry("b", b"1")]), tmp_path)
    run(BUILDERS[format_]([Entry("a", b"2")]), tmp_path)
    assert tree(tmp_path / "files") == {"a": b"2"}
    assert run(BUILDERS[format_]([]), tmp_path) == Unpacked(0, 0, ())
    assert tree(tmp_path / "files") == {}
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "files"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("format_", FORMATS)
def test_of_two_files_of_one_name_the_last_stays(tmp_path: Path, format_: str) -> None:
    entries = [Entry("d/a", b"first, longer"), Entry("d/", kind="folder"), Entry("d/a", b"last"), Entry("D/a", b"case")]
    assert run(BUILDERS[format_](entries), tmp_path) == Unpacked(4, 21, ("d/a",))
    assert tree(tmp_path / "files") == {"d": None, "d/a": b"last", "D": None, "D/a": b"case"}


BAD_NAMES = [
    "../evil", "a/../../evil", "a/..", "..", "/etc/evil", "//evil", "C:evil", "c:/evil", "a\\b", "..\\evil", "a//b",
    "a/\nb", "a\x7f", "a\x1b[2J", "\x85", "x" * 256, "é" * 128, "/".join(["d"] * 101), "/".join(["x" * 240] * 9),
]  # fmt: skip


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_names_that_are_refused(tmp_path: Path, format_: str, name: str) -> None:
    with pytest.raises(Unsafe) as raised:
        run(BUILDERS[format_]([Entry("good", b"1"), Entry(name, b"2")]), tmp_path)
    assert raised.value.message.isprintable()
    assert {path.name for path in tmp_path.iterdir()} == {"archive"}


def test_a_zip_name_that_goes_on_after_a_nul(tmp_path: Path) -> None:
    content = zip_([Entry("good_./x", b"1")]).replace(b"good_./x", b"good\0./x")
    with pytest.raises(Unsafe, match="control"):
        run(content, tmp_path)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "x" * 300])
@pytest.mark.parametrize("how", ["pax", "long name"])
def test_names_that_stand_beside_a_header_are_refused_too(tmp_path: Path, how: str, name: str) -> None:
    buffer, form = io.BytesIO(), tarfile.PAX_FORMAT if how == "pax" else tarfile.GNU_FORMAT
    with tarfile.open(fileobj=buffer, mode="w:gz", format=form) as archive:
        info = tarfile.TarInfo("good" if how == "pax" else name.rjust(101, "d"))
        info.pax_headers = {"path": name} if how == "pax" else {}
        archive.addfile(info)
    content = buffer.getvalue()
    if how == "long name":
        long, short = name.rjust(101, "d").encode(), name.encode()
        content = gzip.compress(gzip.decompress(content).replace(long, short.ljust(len(long), b"\0")))
    with pytest.raises(Unsafe):
        run(content, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"archive"}


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", ["symlink", "hardlink", "fifo", "device", "block device"])
@pytest.mark.parametrize("link", ["/etc/passwd", "good", "../..", "."])
def test_links_and_devices_are_refused(tmp_path: Path, format_: str, kind: Any, link: str) -> None:
    with pytest.raises(Unsafe, match="'bad'"):
        run(
            BUILDERS[format_]([Entry("good", b"1"), Entry("bad", kind=kind, link=link), Entry("bad/x", b"2")]), tmp_path
        )
    assert {path.name for path in tmp_path.iterdir()} == {"archive"}


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(
    "names", [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b"), ("a", "a/b/c"), ("a", "a/"), ("a/", "a"), (".",)]
)
def test_what_is_a_file_and_a_folder(tmp_path: Path, format_: str, names: tuple[str, ...]) -> None:
    entries = [Entry(name, b"1", kind="folder" if name.endswith("/") else "file") for name in names]
    with pytest.raises(Unsafe, match="both a file and a folder"):
        run(BUILDERS[format_](entries), tmp_path)


@pytest.mark.parametrize("format_", FORMATS)
def test_the_bytes_really_written_are_counted(tmp_path: Path, format_: str) -> None:
    bomb = BUILDERS[format_]([Entry("zeros", bytes(5 * 10**6))])
    assert len(bomb) < 50_000
    assert run(bomb, tmp_path, size=5 * 10**6).bytes == 5 * 10**6
    (tmp_path / "x").mkdir()
    with pytest.raises(Unsafe, match="max_unpacked_size"):
        run(bomb, tmp_path / "x", size=5 * 10**6 - 1)
    assert {path.name for path in (tmp_path / "x").iterdir()} == {"archive"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("format_", FORMATS)
def test_files_folders_and_repeats_are_counted(tmp_path: Path, format_: str) -> None:
    for entries in (
        [Entry(f"{index}") for index in range(6)],
        [Entry("same") for _ in range(6)],
        [Entry("a/b/c/d/e/f")],
    ):
        content = BUILDERS[format_](entries)
        with pytest.raises(Unsafe, match="more than"):
            run(content, tmp_path, members=5)
        assert run(content, tmp_path, members=6).members == len(entries)


def test_a_zip_directory_is_limited_before_it_is_read(tmp_path: Path) -> None:
    content = bytearray(zip_([Entry(f"member-{index:04}") for index in range(2000)]))
    with pytest.raises(Unsafe, match="more than 100 members"):
        run(bytes(content), tmp_path, members=100)
    end = content.rindex(b"PK\x05\x06")
    struct.pack_into("<HH", content, end + 8, 1, 1)  # a count that lies
    with pytest.raises(Unsafe, match="more than 100 members"):
        run(bytes(content), tmp_path, members=100)
    content[:] = content[:4] + bytes(3 << 20) + content[4:]
    struct.pack_into("<LL", content, content.rindex(b"PK\x05\x06") + 12, (3 << 20) + 1, 4)
    with pytest.raises(Invalid):
        run(bytes(content), tmp_path, members=100)


def test_one_content_that_is_listed_many_times_is_counted_each_time(tmp_path: Path) -> None:
    content = zip_([Entry("zeros", bytes(10**6))])
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    listed = content[start:end] * 100
    tail = bytearray(content[end:])
    struct.pack_into("<HHL", tail, 8, 100, 100, len(listed))
    bomb = content[:start] + listed + tail
    assert len(bomb) < 10_000
    with pytest.raises(Invalid):  # for its size, or because the library sees that its members overlap
        run(bomb, tmp_path, size=50 * 10**6)
    assert {path.name for path in tmp_path.iterdir()} == {"archive"}


MILLION = 10**6
_UNPACK = """
import resource, sys
from pathlib import Path
from watcher.archives import unpack
from watcher.errors import Invalid

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    unpack(Path(sys.argv[1]), Path("files"), max_unpacked_size=10**9, max_members=int(sys.argv[2]))
except Invalid as refused:
    print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before), type(refused).__name__, refused)
"""


def a_million(format_: str) -> bytes:
    if format_ == "tar.gz":
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        blocks = (b"".join(header(b"0", 0, f"d/{n}") for n in range(first, first + 1000)) for first in (0, 1000))
        pieces = [packer.compress(block) for block in list(blocks) * (MILLION // 2000)]
        return b"".join([*pieces, packer.compress(bytes(1024)), packer.flush()])
    one = zip_([Entry("d/000000", b"")], zipfile.ZIP_STORED)
    start, end = one.index(b"PK\x01\x02"), one.index(b"PK\x05\x06")
    listed = b"".join(one[start:end].replace(b"d/000000", b"d/%06d" % n) for n in range(MILLION))
    tail = bytearray(one[end:])
    struct.pack_into("<L", tail, 12, len(listed))
    return one[:start] + listed + tail


@pytest.mark.slow
@pytest.mark.parametrize(("format_", "members"), [("tar.gz", 10_000), ("zip", 10_000), ("zip", 500_000)])
def test_a_million_members_are_refused_and_not_kept(tmp_path: Path, format_: str, members: int) -> None:
    archive = write(tmp_path / "archive", a_million(format_))
    command = [sys.executable, "-c", _UNPACK, str(archive), str(members)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=True)
    grown, _, said = done.stdout.partition(" ")
    assert re.match(r"Unsafe the archive(?: has more than|'s directory of 54000000 bytes is too large)", said)
    assert int(grown) < 100 * 2**20, f"grew by {int(grown) >> 20} MB"
    assert {path.name for path in tmp_path.iterdir()} == {"archive"}


def test_encrypted_and_foreign_compression_are_refused(tmp_path: Path) -> None:
    content = bytearray(zip_([Entry("secret", b"1")]))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(Unsafe, match="encrypted"):
        run(bytes(content), tmp_path)
    with pytest.raises(Unsafe, match="compressed by method"):
        run(zip_([Entry("a", b"1")], zipfile.ZIP_BZIP2), tmp_path)


def test_a_zip_with_a_bad_checksum_or_a_lying_size(tmp_path: Path) -> None:
    stored = bytearray(zip_([Entry("a", b"content")], zipfile.ZIP_STORED))
    stored[stored.index(b"content")] ^= 1
    with pytest.raises(Undecodable, match="CRC"):
        run(bytes(stored), tmp_path)
    lying = bytearray(zip_([Entry("a", b"content")]))
    for at in (lying.index(b"PK\x03\x04") + 22, lying.index(b"PK\x01\x02") + 24):
        struct.pack_into("<L", lying, at, 2)
    with pytest.raises(Undecodable):
        run(bytes(lying), tmp_path)


@pytest.mark.parametrize("format_", FORMATS)
def test_every_cut_is_noticed(tmp_path: Path, format_: str) -> None:
    content = BUILDERS[format_]([Entry(f"dir/{index}", os.urandom(3000)) for index in range(5)])
    for length in range(0, len(content), 997):
        with pytest.raises(Undecodable):
            run(content[:length], tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"archive"}


def inner_tar(entries: list[Entry]) -> bytearray:
    return bytearray(gzip.decompress(tar_gz(entries)))


def test_a_tar_that_is_broken_in_the_middle_is_not_taken_for_its_end(tmp_path: Path) -> None:
    entries = [Entry(f"{index}", bytes([index]) * 600) for index in range(4)]
    headers = [0, 1536, 3072, 4608]
    for start in headers:
        broken = inner_tar(entries)
        broken[start + 148] ^= 1  # the header's checksum
        with pytest.raises(Undecodable):
            run(gzip.compress(broken), tmp_path)
    for end in (1536, 1536 + 512, 4608, 6144):  # whole blocks, valid gzip, no end of archive
        with pytest.raises(Undecodable):
            run(gzip.compress(inner_tar(entries)[:end]), tmp_path)


def test_a_bad_gzip_checksum_and_things_after_the_end(tmp_path: Path) -> None:
    content = bytearray(tar_gz([Entry("a", b"1")]))
    content[-8] ^= 1
    with pytest.raises(Undecodable, match="CRC"):
        run(bytes(content), tmp_path)
    inner = inner_tar([Entry("a", b"1")])
    for more in (b"junk", inner, bytes(20 << 20)):
        with pytest.raises(Undecodable, match="follows the end"):
            run(gzip.compress(bytes(inner + more), 1), tmp_path)
    with pytest.raises(Undecodable):
        run(gzip.compress(bytes(inner)) + b"junk", tmp_path)
    with pytest.raises(Undecodable):
        run(gzip.compress(b"no tar at all"), tmp_path)
    with pytest.raises(Undecodable):
        run(b"neither", tmp_path)


def header(type_: bytes, size: int, name: str = "x") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = type_, size
    return info.tobuf(tarfile.GNU_FORMAT)


def with_checksum(block: bytes | bytearray) -> bytes:
    blank = block[:148] + b" " * 8 + block[156:]
    return bytes(blank[:148] + b"%06o\0 " % sum(blank) + blank[156:])


@pytest.mark.parametrize("where", ["a name without an end", "padding"])
def test_what_the_library_reads_byte_by_byte_has_an_end(tmp_path: Path, where: str) -> None:
    """Gigabytes of it would keep a thread busy for hours."""
    good = tar_gz([Entry("a", b"1")])
    run(good + bytes(10**6), tmp_path)
    assert tree(tmp_path / "files") == {"a": b"1"}
    name = b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 10**7
    with pytest.raises(Unsafe, match="takes forever to read"):
        run(good + bytes(10**7) if where == "padding" else name, tmp_path)


def test_headers_of_a_tar_cannot_fill_the_memory(tmp_path: Path) -> None:
    def chain(type_: bytes, count: int, size: int) -> Iterator[bytes]:
        for _ in range(count):
            yield header(type_, size)
            yield bytes(512 * ((size + 511) // 512))

    long_name = b"".join(chain(b"L", 1, 3 << 20))
    pax = b"".join(chain(b"x", 1, 3 << 20))
    many = b"".join(chain(b"g", 3000, 512))
    sparse = with_checksum(header(b"S", 0)[:482] + b"\x01" + bytes(29))
    more = (bytes(504) + b"\x01" + bytes(7)) * 4000
    for content in (long_name, pax, sparse + more):
        with pytest.raises(Unsafe, match="headers that are too large"):
            run(gzip.compress(content + bytes(1024), 1), tmp_path)
    with pytest.raises(Invalid):
        run(gzip.compress(many + bytes(1024), 1), tmp_path)


def test_a_sparse_file_and_a_negative_size(tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        run(gzip.compress(header(b"S", 0) + bytes(1024)), tmp_path)
    negative = bytearray(header(b"0", 0))
    negative[124:136] = b"\xff" * 12
    with pytest.raises(Invalid):
        run(gzip.compress(with_checksum(negative) + bytes(1024)), tmp_path)


def test_a_tar_keeps_no_list_of_its_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    original = tarfile.TarFile.next

    def watched(self: Any) -> Any:
        nonlocal largest
        largest = max(largest, len(self.members))
        return original(self)

    monkeypatch.setattr(tarfile.TarFile, "next", watched)
    run(tar_gz([Entry(f"{index}") for index in range(500)]), tmp_path)
    assert largest <= 1


def test_unpacking_can_be_stopped(tmp_path: Path) -> None:
    with pytest.raises(Transient, match="stopped"):
        run(tar_gz([Entry("a", b"1")]), tmp_path, stop=lambda: True)
    assert {path.name for path in tmp_path.iterdir()} == {"archive"}


def test_a_sick_disk_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = tar_gz([Entry("a", b"1")])
    with pytest.raises(Ours):
        unpack(tmp_path / "missing", tmp_path / "files", max_unpacked_size=1, max_members=1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(Ours, match="No space"):
            run(content, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"archive"}


def test_a_name_that_this_file_system_does_not_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.open

    def picky(path: Any, *more: Any, **named: Any) -> int:
        if str(path).endswith("odd"):
            raise OSError(36, "File name too long")
        return original(path, *more, **named)

    monkeypatch.setattr(os, "open", picky)
    with pytest.raises(Unsafe, match="refuses"):
        run(tar_gz([Entry("odd", b"1")]), tmp_path)


pieces = st.sampled_from(["a", "b", "A", "..", ".", "", "~", "C:", "a\\b", "a\0b", "\n", " ", "-", "é", "x" * 256, "…"])
names = st.lists(pieces, min_size=1, max_size=4).map("/".join)
kinds: Any = st.sampled_from(["file"] * 5 + ["folder", "symlink", "hardlink", "fifo", "device"])
entries = st.builds(Entry, names, st.binary(max_size=200), kinds, st.sampled_from(["..", "/tmp", "a", "b/.."]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@given(st.sampled_from(FORMATS), st.lists(entries, max_size=6))
def test_whatever_is_in_it_nothing_leaves_the_destination(format_: str, members: list[Entry]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "home").mkdir()
        (root / "a").write_bytes(b"mine")
        try:
            done = run(BUILDERS[format_](members), root / "home")
        except Invalid:
            assert {path.name for path in (root / "home").iterdir()} == {"archive"}
        else:
            files = root / "home" / "files"
            assert done.members == len(members)
            assert all(member.kind in ("file", "folder") for member in members)
            for path in files.rglob("*"):
                assert not path.is_symlink()
                assert path.is_dir() or (path.is_file() and path.stat().st_nlink == 1)
            assert {path.name for path in (root / "home").iterdir()} == {"archive", "files"}
        assert {path.name for path in root.iterdir()} == {"home", "a"}
        assert (root / "a").read_bytes() == b"mine"


@given(st.sampled_from(FORMATS), st.data())
def test_flipped_bits_are_never_more_than_invalid(format_: str, data: st.DataObject) -> None:
    content = bytearray(BUILDERS[format_]([Entry("d/a", b"abc" * 50), Entry("b", bytes(600))]))
    if data.draw(st.booleans()) and format_ == "tar.gz":
        content = bytearray(gzip.decompress(content))
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)):
        content[at] = value
    raw = bytes(content) if content[:2] == b"\x1f\x8b" or format_ == "zip" else gzip.compress(bytes(content))
    with tempfile.TemporaryDirectory() as name, suppress(Invalid):
        run(raw, Path(name), size=10**6)


def test_the_library_reads_the_same_bytes(tmp_path: Path) -> None:
    inner = io.BytesIO(tar_gz([Entry("a/b", os.urandom(700_000)), Entry("x" * 120 + "/y", b"long name")]))
    run(inner.getvalue(), tmp_path)
    with tarfile.open(fileobj=inner) as archive:
        for info in archive:
            file = archive.extractfile(info)
            assert file is not None
            assert (tmp_path / "files" / info.name).read_bytes() == file.read()
