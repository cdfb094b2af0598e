"""Removing a stored archive and its unpacked files: these and nothing else, below the root, through no link.

First they get names of the form `.<name>.<number>.pruned.part`, at once; removing them takes longer, and what a crash
leaves of that is swept at the next start.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePath

from watcher.archives.faults import disk
from watcher.archives.layout import CURRENT, archive_names, is_upload
from watcher.errors import Invalid
from watcher.fsync import sync_directory

_ASIDE = re.compile(r"\..+\.\d+\.pruned\.part")


def folder_of(root: Path, archive: str) -> Path:
    """Return the folder of an archive. Raises Invalid unless it is `<TAS>/<target>/<upload>` with no link on the way.

    `archive` is its path relative to the root, as the record has it.
    """
    path = PurePath(archive)
    if path.is_absolute() or len(path.parts) != 4 or ".." in path.parts or not is_upload(path.parts[2]):
        raise Invalid(f"{root / archive} is no place of an archive; it is left alone", action="remove it by hand")
    folder = root
    for part in path.parts[:3]:
        folder /= part
        if folder.is_symlink():
            raise Invalid(f"{folder} is a link; what lies behind it is left alone", action="remove it by hand")
    return folder


def is_pointed_at(folder: Path) -> bool:
    """Say whether `current` points at the folder of an upload."""
    with suppress(OSError):
        return (folder.parent / CURRENT).readlink() == Path(folder.name)
    return False


def set_aside(archive: Path, files: Path) -> None:
    """Take an archive and its unpacked files out of use, at once. What is gone already is no fault. Raises Ours."""
    with disk(archive, "removing"):
        for path in (files, archive, *_in_other_formats(archive)):
            if os.path.lexists(path):
                path.rename(_free_name(path))
        if archive.parent.is_dir():
            sync_directory(archive.parent)


def remove_set_aside(folder: Path) -> None:
    """Remove what was set aside in the folder of an upload; another process may do so too. Raises Ours."""
    for path in _set_aside(folder):
        with disk(path, "removing"):
            while os.path.lexists(path):
                with suppress(FileNotFoundError):
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    else:
                        path.unlink()


def remove_other_formats(archive: Path) -> None:
    """Remove what came for the same upload in another format, under another name. Raises Ours."""
    for path in _in_other_formats(archive):
        with disk(path, "removing"):
            if path.is_symlink() or path.is_file():
                path.unlink()
                sync_directory(path.parent)


def _in_other_formats(archive: Path) -> list[Path]:
    return [archive.with_name(name) for name in sorted(archive_names(archive.parent.parent)) if name != archive.name]


def remove_empty(folder: Path) -> None:
    """Remove the folder of an upload if nothing is left in it; what people put there stays."""
    with suppress(OSError):
        folder.rmdir()


def size_of(archive: Path, files: Path) -> int:
    """Return the bytes of an archive, of its unpacked files, and of what was set aside of them."""
    places = [archive, files, *_set_aside(archive.parent)]
    return sum(map(_bytes, places))


def _set_aside(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if _ASIDE.fullmatch(path.name))
    return []


def _free_name(path: Path) -> Path:
    numbered = (path.with_name(f".{path.name}.{number}.pruned.part") for number in range(1, 10**6))
    return next(name for name in numbered if not os.path.lexists(name))


def _bytes(path: Path) -> int:
    return sum(_own_bytes(one) for one in _walk(path))


def _walk(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir() and not path.is_symlink():
        for folder, _, names in os.walk(path):
            yield from (Path(folder, name) for name in names)


def _own_bytes(path: Path) -> int:
    with suppress(OSError):
        status = path.lstat()
        return status.st_size if not path.is_dir() or path.is_symlink() else 0
    return 0
