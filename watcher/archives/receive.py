"""An archive from the network to the disk: complete, whole, of the right kind, or not there at all."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from watcher.archives.faults import NotAnArchive, Unsafe, disk
from watcher.archives.layout import Format, make_directory, part_of, write_all
from watcher.errors import Ours, Transient
from watcher.fsync import sync_directory
from watcher.points import reach

T = TypeVar("T")

_BUFFER = 1 << 20
_SIGNATURES: dict[bytes, Format] = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # an empty one
    b"\x1f\x8b\x08": "tar.gz",
}
_LONGEST_SIGNATURE = max(map(len, _SIGNATURES))


@dataclass(frozen=True, slots=True)
class Received:
    """An archive that is on the disk for good; `size` in bytes, `sha256` in hexadecimal digits."""

    path: Path
    sha256: str
    size: int
    format: Format


async def receive(
    chunks: AsyncIterator[bytes], destination: Path, *, expected_length: int | None, max_size: int
) -> Received:
    """Write `chunks` to `destination` by way of a temporary file beside it; on any failure nothing is left.

    The first bytes decide about the format, for the server labels everything a zip (capture `download_get_file`).
    Raises Transient for fewer bytes than announced, NotAnArchive for something else than an archive, Unsafe for more
    than announced or allowed, Ours for the disk. Files are written in a thread of their own.
    """
    if expected_length is not None and expected_length > max_size:
        raise _too_large(destination.name, f"{expected_length} bytes", max_size)
    file = _PartFile(destination)
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="archive")
    try:
        await _in(thread, file.open, expected_length)
        size, format_ = await _write(chunks, file, thread, destination.name, expected_length, max_size)
        sha256 = await _in(thread, file.finish)
    except BaseException:
        with suppress(Ours):  # what went wrong first is what counts
            await asyncio.shield(_in(thread, file.discard))  # after whatever write is still under way
        raise
    finally:
        thread.shutdown(wait=False)
    return Received(destination, sha256, size, format_)


async def _write(
    chunks: AsyncIterator[bytes],
    file: "_PartFile",
    thread: ThreadPoolExecutor,
    name: str,
    expected_length: int | None,
    max_size: int,
) -> tuple[int, Format]:
    size, format_, buffer = 0, None, bytearray()
    async for chunk in chunks:
        buffer += chunk
        size += len(chunk)
        if size > max_size:
            raise _too_large(name, "more", max_size)
        if expected_length is not None and size > expected_length:
            raise Unsafe(f"{name} is longer than the {expected_length} bytes that were announced")
        if format_ is None and size >= _LONGEST_SIGNATURE:
            format_ = _format(buffer, name)
        if len(buffer) >= _BUFFER:
            await _in(thread, file.write, bytes(buffer))
            buffer.clear()
    if expected_length is not None and size < expected_length:
        raise Transient(f"{name} broke off after {size} of {expected_length} bytes; it is fetched again")
    format_ = format_ or _format(buffer, name)
    await _in(thread, file.write, bytes(buffer))
    return size, format_


def digest(path: Path, *, stop: Callable[[], bool] = lambda: False) -> str:
    """Return the SHA-256 of a stored archive, in hexadecimal digits. To be run in a thread, where `stop` ends it.

    Raises Ours when it cannot be read, Transient when it was stopped.
    """
    sha256, buffer = hashlib.sha256(), bytearray(_BUFFER)
    with disk(path, "reading"), path.open("rb", buffering=0) as file, memoryview(buffer) as view:
        while size := file.readinto(view):
            if stop():
                raise Transient(f"the check of {path.name} was stopped; it starts again later")
            sha256.update(view[:size])
    return sha256.hexdigest()


class _PartFile:
    """The temporary file, used by one thread."""

    def __init__(self, destination: Path) -> None:
        self._destination = destination
        self._part = part_of(destination)
        self._sha256 = hashlib.sha256()
        self._fd = -1
        self._made = False

    def open(self, expected_length: int | None) -> None:
        directory = self._destination.parent
        make_directory(directory)
        with disk(self._part, "creating"):
            if shutil.disk_usage(directory).free < (expected_length or 0):
                raise Ours(
                    f"{self._destination} with {expected_length} bytes does not fit; it is fetched when there is room",
                    action=f"free space where {directory} lies",
                )
            self._part.unlink(missing_ok=True)  # of an earlier crash; one process at a time writes here
            self._fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            self._made = True

    def write(self, data: bytes) -> None:
        self._sha256.update(data)
        with disk(self._part, "writing"):
            write_all(self._fd, data)

    def finish(self) -> str:
        with disk(self._part, "storing"):
            os.fsync(self._fd)
            self._close()
            reach("receive.written")
            self._part.replace(self._destination)
            self._made = False
            sync_directory(self._destination.parent)
            reach("receive.renamed")
        return self._sha256.hexdigest()

    def discard(self) -> None:
        with disk(self._part, "removing"):
            if self._made:
                self._part.unlink(missing_ok=True)
            if self._fd >= 0:
                self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)


async def _in(thread: ThreadPoolExecutor, work: Callable[..., T], *arguments: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, work, *arguments)


def _format(start: bytes | bytearray, name: str) -> Format:
    for signature, format_ in _SIGNATURES.items():
        if start.startswith(signature):
            return format_
    kind = "a web page" if start.lstrip()[:1] == b"<" else "empty" if not start else "something else"
    raise NotAnArchive(f"{name} is no zip or tar.gz archive but {kind}; it is asked for again")


def _too_large(name: str, size: str, max_size: int) -> Unsafe:
    return Unsafe(
        f"{name} has {size}; download.max_archive_size allows {max_size} bytes",
        action="raise download.max_archive_size or switch off some contents, then `watcher retry`",
    )
