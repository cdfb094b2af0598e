"""Where things lie: `<directory>/<TAS>/<target>/<upload index>/` with the archive and `files/`, and `current` beside.

A name from the server never chooses a path: it becomes a slug, with a suffix that tells it from every other name
whenever the slug is not the name itself.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from watcher.archives.faults import disk
from watcher.errors import Ours
from watcher.fsync import sync_directory
from watcher.points import reach

Format = Literal["zip", "tar.gz"]
CURRENT = "current"
FILES = "files"
"""Folder of the unpacked files, beside the archive."""
_LONGEST = 80
_CLEAN = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{_LONGEST - 1}}}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_UPLOAD = re.compile(r"\d+(-\d{8}T\d{6}\.\d{6}Z)?")
_PART = re.compile(r"\..+\.part")


def target_directory(root: Path, tas: str, name: str, remote_target_id: int) -> Path:
    """Return the directory of a target. Two targets share one only when TAS and name are the same, case included."""
    return root / slug(tas, tas) / slug(name, f"{remote_target_id}/{name}")


def upload_directory(
    target_directory: Path, upload_index: int, committed_at: datetime, *, reused: bool = False
) -> Path:
    """Return the directory of an upload; with its commit time when its index belonged to another upload before."""
    suffix = f"-{committed_at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}" if reused else ""
    return target_directory / f"{upload_index}{suffix}"


def archive_folders(
    root: Path, tas: str, name: str, remote_target_id: int, upload_index: int, committed_at: datetime
) -> set[Path]:
    """Return every directory that an upload may be put in, whatever else bears its target's name or its index."""
    targets = (target_directory(root, tas, one, remote_target_id) for one in (name, f"{name}~{remote_target_id}"))
    return {
        upload_directory(target, upload_index, committed_at, reused=reused)
        for target in targets
        for reused in (False, True)
    }


def is_upload(name: str) -> bool:
    """Say whether the name of a directory is one that `upload_directory` gives."""
    return _UPLOAD.fullmatch(name) is not None


def archive_name(target_directory: Path, format_: str) -> str:
    """Return the file name of an archive in an upload's directory; `format_` is `zip` or `tar.gz`."""
    return f"{target_directory.name}.{format_}"


def archive_names(target_directory: Path) -> set[str]:
    """Return every file name that an archive in an upload's directory can have."""
    return {archive_name(target_directory, format_) for format_ in get_args(Format)}


def slug(name: str, identity: str) -> str:
    """Return a name that is safe as one path component; `~` and a hash of `identity` mark one that was changed."""
    if _CLEAN.fullmatch(name) and not name.endswith(".") and not _RESERVED.fullmatch(name):
        return name
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    mark = "~" + hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return re.sub(r"^[.-]+", "_", safe or "_")[: _LONGEST - len(mark)] + mark


def point_current(target_directory: Path, upload_directory: Path) -> None:
    """Let `current` point to an upload, in one step and relative, so that the whole tree can be moved.

    Raises Ours when something else than a link is in its place.
    """
    if upload_directory.parent != target_directory:
        raise ValueError(f"{upload_directory} is no upload of {target_directory}")
    current = target_directory / CURRENT
    part = part_of(current)
    with disk(current, "pointing"):
        if current.exists() and not current.is_symlink():
            raise Ours(
                f"{current} is in the way: the program keeps a link of this name to the current upload",
                action=f"move {current} elsewhere",
            )
        part.unlink(missing_ok=True)
        part.symlink_to(upload_directory.name, target_is_directory=True)
        reach("current.made")
        part.replace(current)
        sync_directory(target_directory)


def sweep(root: Path) -> list[Path]:
    """Remove what crashes left: `.<name>.part` in the directories of uploads, and a `current` in the making.

    Never within unpacked files, and never through a link. Returns what was removed. What cannot be read or removed
    stays: nothing hangs on it, and whoever writes there next says what is wrong with the disk.
    """
    removed = []
    for path in leftovers(root):
        with suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed.append(path)
    return removed


def leftovers(root: Path) -> list[Path]:
    """Return what is being made below the root, or was when the program crashed."""
    return [path for tas in folders(root) for target in folders(tas) for path in _leftovers(target)]


def _leftovers(target: Path) -> Iterator[Path]:
    if os.path.lexists(part := part_of(target / CURRENT)):
        yield part
    for upload in folders(target):
        if is_upload(upload.name):
            yield from [path for path in entries(upload) if _PART.fullmatch(path.name)]


def folders(path: Path) -> list[Path]:
    """Return the folders in a folder, links left out; none where they cannot be read."""
    with suppress(OSError):
        return [entry for entry in entries(path) if entry.is_dir() and not entry.is_symlink()]
    return []


def entries(path: Path) -> list[Path]:
    """Return what lies in a folder; nothing where it cannot be read."""
    with suppress(OSError):
        return sorted(path.iterdir())
    return []


def rename(path: Path, to: Path) -> Path:
    """Give a file another name on the same disk, for good. Raises Ours."""
    with disk(path, "renaming"):
        renamed = path.replace(to)
        sync_directory(to.parent)
    return renamed


def part_of(path: Path) -> Path:
    """Return where `path` is being made, beside it."""
    return path.with_name(f".{path.name}.part")


def make_directory(path: Path) -> None:
    """Make a directory and those above it, for the owner only; structures may be unpublished. Raises Ours."""
    with disk(path, "creating"):
        for directory in (*reversed(path.parents), path):
            if not directory.is_dir():
                directory.mkdir(mode=0o700, exist_ok=True)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte; one call may write fewer."""
    with memoryview(data) as view:
        written = 0
        while written < len(view):
            written += os.write(fd, view[written:])
