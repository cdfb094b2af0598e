"""The members of an archive, one after the other, whichever format it has; and the one rule for their names.

Both readers take nothing on trust that a header says: memory stays bounded whatever it claims.
"""

import gzip
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, RawIOBase
from typing import IO, NoReturn, Protocol, cast

from watcher.archives.faults import Undecodable, Unsafe

_CHUNK = 1 << 18
_HEADERS_OF_ONE_MEMBER = 1 << 20
_BYTES_PER_ENTRY = 1 << 8
_LONGEST_COMPONENT = 255
_LONGEST_NAME = 2000
_DEEPEST = 100
_SINGLE_BYTES = 1 << 22
_ENTRY = b"PK\x01\x02"
_ENCRYPTED = 0x1 | 0x40


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its place below the destination, and its content; None for a folder."""

    parts: tuple[str, ...]
    chunks: Iterator[bytes] | None


class Source(Protocol):
    """Gives the members of an open archive in order; raises Undecodable and Unsafe."""

    def __call__(self, file: BufferedReader, *, max_members: int) -> Iterator[Member]:
        """Read members until the end, which is checked too."""
        ...


def safe_parts(name: str) -> tuple[str, ...]:
    """Split a member's name into the components of a path that stays below its root; () for the root itself.

    A `.` component means nothing and goes. Raises Unsafe for everything else that is not plainly a relative path:
    absolute, `..`, drive letters, backslashes, empty or over-long components, characters that cannot be printed.
    """
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        _unsafe(name, "has control characters in its name")
    if not name or name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name):
        _unsafe(name, "is not named relative to the archive")
    parts = name.removesuffix("/").split("/")
    if "" in parts or ".." in parts:
        _unsafe(name, "has an empty or `..` component in its name")
    if max(len(part.encode()) for part in parts) > _LONGEST_COMPONENT:
        _unsafe(name, "has a component in its name that is too long")
    if len(name.encode()) > _LONGEST_NAME or len(parts) > _DEEPEST:
        _unsafe(name, "has a name that is too long")
    return tuple(part for part in parts if part != ".")


def zip_members(file: BufferedReader, *, max_members: int) -> Iterator[Member]:
    """Read a zip. Its directory is one block that the library reads whole, so that block is limited and counted."""
    guarded = _GuardedFile(file, max_members)
    with _decoding(), zipfile.ZipFile(cast("IO[bytes]", guarded)) as archive:
        guarded.relax()
        for info in archive.infolist():
            name = info.orig_filename  # `filename` ends at a NUL
            folder = name.endswith("/") or stat.S_ISDIR(info.external_attr >> 16)
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                _unsafe(name, "is a link or a device")
            if info.flag_bits & _ENCRYPTED:
                _unsafe(name, "is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                _unsafe(name, f"is compressed by method {info.compress_type}, which Fragalysis does not use")
            if folder and info.file_size:
                _unsafe(name, "is a folder with content")
            safe_parts(info.filename)
            parts = safe_parts(name)
            yield Member(parts, None if folder else _zip_content(archive, info))


def _zip_content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    size = 0
    with _decoding(), archive.open(info) as content:
        while chunk := content.read(_CHUNK):  # the checksum is compared at the end
            size += len(chunk)
            yield chunk
    if size != info.file_size:
        raise Undecodable(f"the archive is undecodable: {_shown(info.filename)} has {size} of {info.file_size} bytes")


class _GuardedFile:
    """A file that hands no more to the zip library at once than a directory of `max_members` entries may hold."""

    def __init__(self, file: BufferedReader, max_members: int) -> None:
        self._file = file
        self._max_members: int | None = max_members

    def relax(self) -> None:
        """Stop counting: the directory is read."""
        self._max_members = None

    def read(self, size: int = -1) -> bytes:
        if self._max_members is None:
            return self._file.read(size)
        if size > max(_HEADERS_OF_ONE_MEMBER, self._max_members * _BYTES_PER_ENTRY):
            raise _TooMany(f"the archive's directory of {size} bytes is too large")
        data = self._file.read(size)
        if data.count(_ENTRY) > self._max_members:
            raise _TooMany(f"the archive has more than {self._max_members} members")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """Leave the file to its owner."""


def tar_members(file: BufferedReader, *, max_members: int) -> Iterator[Member]:  # noqa: ARG001 - the writer counts
    """Read a tar.gz from front to back, without a list of its members, to the checksum at its very end."""
    with _decoding(), gzip.GzipFile(fileobj=_NoByteByByte(file), mode="rb") as unzipped:
        stream = _Forward(unzipped)
        with tarfile.TarFile(fileobj=cast("IO[bytes]", stream), mode="r", encoding="utf-8") as archive:
            while (info := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined] # the library would keep every one
                archive.pax_headers = {}
                yield Member(safe_parts(info.name), _tar_content(stream, info))
                stream.forget_headers()
        stream.check_end()


def _tar_content(stream: "_Forward", info: tarfile.TarInfo) -> Iterator[bytes] | None:
    if info.isdir():
        return None
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.issparse():
        _unsafe(info.name, "is a link, a device or a sparse file")
    if info.size < 0:
        raise Undecodable(f"the archive is undecodable: {_shown(info.name)} has a negative size")
    return stream.content(info.offset_data, info.size)


class _NoByteByByte(RawIOBase):
    """What the gzip library reads from. It takes names in headers, and zeros after the end, a byte at a time."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._single = 0

    def read(self, size: int = -1) -> bytes:
        self._single += size == 1
        if self._single > _SINGLE_BYTES:
            raise _TooMany("the archive has a header or a padding that takes forever to read")
        return self._file.read(size)


class _Forward:
    """What the tar library reads headers from: forward only, and no more of them for one member than is sane.

    The library takes a broken header, or no header at all, for the end of the archive; the last block tells.
    """

    def __init__(self, unzipped: gzip.GzipFile) -> None:
        self._unzipped = unzipped
        self._position = 0
        self._headers = 0
        self._last = b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise tarfile.ReadError("a member begins before the end of another one")
        while gap := min(position - self._position, _CHUNK):
            if not (data := self._unzipped.read(gap)):
                raise EOFError("unexpected end")
            self._position += len(data)

    def read(self, size: int) -> bytes:
        self._headers += size
        if not 0 <= size <= _HEADERS_OF_ONE_MEMBER or self._headers > _HEADERS_OF_ONE_MEMBER:
            raise _TooMany("the archive has a member with headers that are too large")
        self._last = self._unzipped.read(size)
        self._position += len(self._last)
        return self._last

    def forget_headers(self) -> None:
        self._headers = 0

    def content(self, start: int, size: int) -> Iterator[bytes]:
        with _decoding():
            self.seek(start)
            end = start + size
            while wanted := min(end - self._position, _CHUNK):
                if not (data := self._unzipped.read(wanted)):
                    raise EOFError("unexpected end")
                self._position += len(data)
                yield data

    def check_end(self) -> None:
        """See that the archive ended as one does, and read what is left of it for the checksum."""
        if len(self._last) != tarfile.BLOCKSIZE or self._last.strip(b"\0"):
            raise tarfile.ReadError("a header is broken, or the end is missing")
        rest = 0
        while data := self._unzipped.read(_CHUNK):
            rest += len(data)
            if data.strip(b"\0") or rest > tarfile.RECORDSIZE * 1024:
                raise tarfile.ReadError("something follows the end")


class _TooMany(Exception):
    """A limit is exceeded within the library, which takes other exceptions for its own."""


@contextmanager
def _decoding() -> Iterator[None]:
    """Turn whatever a decoder says of bytes that it cannot read into Undecodable."""
    try:
        yield
    except _TooMany as error:
        raise Unsafe(str(error)) from None
    except _BROKEN as error:
        raise Undecodable(f"the archive is undecodable: {str(error)[:200] or type(error).__name__}") from error


_BROKEN: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
    RecursionError,
    NotImplementedError,
    RuntimeError,
)


def source_of(file: BufferedReader) -> Source:
    """Tell by the first bytes how to read an archive, whatever its name. Raises Undecodable for anything else."""
    start = file.peek(4)[:4]
    sources: dict[bytes, Source] = {b"PK\x03\x04": zip_members, b"PK\x05\x06": zip_members}
    source = tar_members if start.startswith(b"\x1f\x8b") else sources.get(start)
    if source is None:
        raise Undecodable("the archive is undecodable: it is neither zip nor gzip")
    return source


def _unsafe(name: str, why: str) -> NoReturn:
    raise Unsafe(f"the archive is unsafe: its member {_shown(name)} {why}", action=_LOOK)


_LOOK = "look at the archive, which is not unpacked, and tell the staff of the stack"


def _shown(name: str) -> str:
    return ascii(name[:120])
