"""Unpacking an archive: complete and safe, or not at all.

Members are written into a new directory that only the owner can enter, and which gets its name when all is there.
Only regular files and folders are ever made, so that no link can lead a later member elsewhere.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from watcher.archives.faults import Unsafe, disk
from watcher.archives.layout import make_directory, part_of, write_all
from watcher.archives.members import Member, source_of
from watcher.errors import Transient
from watcher.fsync import sync_directory
from watcher.points import reach

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_NAME_REFUSED = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)
_NAMES_KEPT = 100


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was unpacked: members, bytes written, and the first hundred members that a later namesake replaced."""

    members: int
    bytes: int
    replaced: tuple[str, ...]


def unpack(
    archive: Path,
    destination: Path,
    *,
    max_unpacked_size: int,
    max_members: int,
    stop: Callable[[], bool] = lambda: False,
) -> Unpacked:
    """Unpack a zip or tar.gz into the directory `destination`, taking the place of an earlier one.

    Sizes are bytes really written; folders that are only implied count as members. Of two files of one name the last
    one stays; times and rights in the archive are ignored. Blocks: to be run in a thread, where `stop` ends it.

    Raises Unsafe for a member or size against the rules, Undecodable for bytes that cannot be read, Ours for the disk,
    Transient when it was stopped. Nothing is left behind by a failure.
    """
    part = part_of(destination)
    make_directory(destination.parent)
    _remove(part)
    try:
        with disk(part, "creating"):
            part.mkdir(mode=0o700)
        writer = _Writer(part, max_unpacked_size, max_members, stop)
        with disk(archive, "reading"), archive.open("rb") as file:
            for member in source_of(file)(file, max_members=max_members):
                writer.add(member)
        with disk(destination, "storing"):
            reach("unpack.unpacked")
            os.sync()  # one for all files, before the name says that they are there
            _swap(part, destination)
    except BaseException:
        _remove(part)
        raise
    return Unpacked(writer.members, writer.bytes, tuple(writer.replaced))


class _Writer:
    """Writes members below a fresh directory, within the limits."""

    def __init__(self, root: Path, max_bytes: int, max_members: int, stop: Callable[[], bool]) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._max_members = max_members
        self._stop = stop
        self._entries = 0
        self.members = 0
        self.bytes = 0
        self.replaced: list[str] = []

    def add(self, member: Member) -> None:
        """Write one member."""
        self.members += 1
        self._count()
        path = self._root.joinpath(*member.parts)
        with disk(path, "writing"):
            try:
                if member.chunks is None:
                    self._folder(path)
                else:
                    self._file(path, member.chunks)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise _unsafe(member, "is both a file and a folder") from None
            except OSError as error:
                if error.errno in _NAME_REFUSED:
                    raise _unsafe(member, f"has a name that the file system refuses ({error.strerror})") from None
                raise

    def _count(self) -> None:
        self._entries += 1
        if self._entries > self._max_members:
            raise Unsafe(
                f"the archive has more than the {self._max_members} files and folders of download.max_members",
                action="raise download.max_members, then `watcher retry`",
            )

    def _folder(self, path: Path) -> None:
        self._look_up()
        try:
            path.mkdir(mode=0o700)
        except FileNotFoundError:
            self._count()
            self._folder(path.parent)
            path.mkdir(mode=0o700)
        except FileExistsError:
            if not path.is_dir():
                raise

    def _file(self, path: Path, chunks: Iterator[bytes]) -> None:
        fd = self._open(path)
        try:
            for chunk in chunks:
                self._look_up()
                self.bytes += len(chunk)
                if self.bytes > self._max_bytes:
                    raise Unsafe(
                        f"the archive holds more than the {self._max_bytes} bytes of download.max_unpacked_size",
                        action="raise download.max_unpacked_size, then `watcher retry`",
                    )
                write_all(fd, chunk)
        finally:
            os.close(fd)

    def _open(self, path: Path) -> int:
        try:
            return os.open(path, _NEW_FILE, 0o600)
        except FileNotFoundError:
            self._count()
            self._folder(path.parent)
            return os.open(path, _NEW_FILE, 0o600)
        except FileExistsError:
            if not path.is_file():
                raise
            if len(self.replaced) < _NAMES_KEPT:
                self.replaced.append("/".join(path.relative_to(self._root).parts))
            path.unlink()
            return os.open(path, _NEW_FILE, 0o600)

    def _look_up(self) -> None:
        if self._stop():
            raise Transient("unpacking was stopped; it starts again later")


def _unsafe(member: Member, why: str) -> Unsafe:
    return Unsafe(f"the archive is unsafe: its member {'/'.join(member.parts)[:120]!a} {why}")


def _swap(part: Path, destination: Path) -> None:
    """Give the new directory its name; what had it before goes."""
    old = part_of(destination.with_name(f"{destination.name}.old"))
    _remove(old)
    if os.path.lexists(destination):
        destination.rename(old)
        reach("unpack.moved-aside")
    part.rename(destination)
    sync_directory(destination.parent)
    reach("unpack.renamed")
    _remove(old)


def _remove(path: Path) -> None:
    """Remove a file, link or tree, if it is there."""
    with disk(path, "removing"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
