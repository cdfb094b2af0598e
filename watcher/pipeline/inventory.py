"""Inventory: what lies on the disk against what the record says of it. It changes nothing, and runs beside a daemon.

The disk is listed before the record is read, since a folder is made after its upload was recorded; what the record says
differently afterwards has changed meanwhile and is no finding.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from watcher.archives import CURRENT, FILES, archive_folders, archive_names, entries, folders, leftovers
from watcher.errors import Ours
from watcher.pipeline.verify import damage
from watcher.settings import DownloadSettings
from watcher.store.engine import Store
from watcher.store.invariants import Finding
from watcher.store.states import TO_FETCH
from watcher.store.stored import Stored, stored_uploads

_FETCHED = "nothing by hand: `watcher run` or `watcher once` fetches it again"
_GONE = (
    "copy it back from a backup of the folder: it does not count any more, and the server may not have it any more; "
    "if the upload counts again it is fetched by itself"
)
_NOT_FETCHED = "set download.enabled, then `watcher once` fetches it again"
_SWEPT = "nothing by hand: the next start removes it"
_UNKNOWN = "look at it: the record knows nothing of it and nothing uses it; remove it to free the space"
_STRAY = "look at it: the program did not put it there, or has forgotten it, and uses nothing of it; move or remove it"
_POINTED = "nothing by hand: the next start points it at the upload that counts"


async def inventory(store: Store, settings: DownloadSettings) -> list[Finding]:
    """Return where disk and record do not agree. Raises RecordUnavailable."""
    root = settings.directory.absolute()
    listed = await asyncio.to_thread(_list, root)
    uploads = await _uploads(store)
    found = await asyncio.to_thread(_compare, root, listed, uploads, settings)
    if not found:
        return []
    unchanged = await _uploads(store)
    return [
        finding
        for upload, path, finding in found
        if upload in unchanged or (upload is None and await asyncio.to_thread(_is_there, path))
    ]


_Found = tuple[Stored | None, Path, Finding]
"""The upload that it is about, if it is about one, the place and the finding."""


@dataclass(frozen=True, slots=True)
class _Listed:
    uploads: Sequence[Path]
    within: Sequence[Path]
    """What lies in the folders of uploads, without the parts."""
    parts: Sequence[Path]


async def _uploads(store: Store) -> list[Stored]:
    async with store.read() as session:
        return await stored_uploads(session)


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _list(root: Path) -> _Listed:
    found = [upload for tas in folders(root) for target in folders(tas) for upload in folders(target)]
    uploads = [upload for upload in found if not upload.name.startswith(".")]
    parts = leftovers(root)
    within = {path for upload in uploads for path in entries(upload)}.difference(parts)
    return _Listed(uploads, sorted(within), parts)


def _compare(root: Path, listed: _Listed, uploads: Sequence[Stored], settings: DownloadSettings) -> list[_Found]:
    places = {root / upload.path for upload in uploads if upload.path}
    known = {place.parent for place in places}
    expected = places | {folder / FILES for folder in known}
    making: set[Path] = set()
    for upload in uploads:
        own = archive_folders(
            root,
            upload.target_access_string,
            upload.target,
            upload.remote_id,
            upload.upload_index,
            upload.committed_at,
        )
        known |= own  # also of one that was superseded before it was whole
        if upload.state in TO_FETCH:
            making |= own | ({(root / upload.path).parent} if upload.path else set())
    found: list[_Found] = [
        (None, folder, Finding(str(folder), "a folder that belongs to no recorded upload", _UNKNOWN))
        for folder in listed.uploads
        if folder not in known
    ]
    expected |= {folder / name for folder in making for name in (FILES, *archive_names(folder.parent))}
    found += [
        (None, path, Finding(str(path), "it is no archive that the record knows, and no part of one", _STRAY))
        for path in listed.within
        if path.parent in known and path not in expected
    ]
    found += [
        (None, part, Finding(str(part), "left by a crash", _SWEPT))
        for part in listed.parts
        if part.parent not in making
    ]
    for upload in uploads:
        if upload.state == "stored" and upload.path is not None:
            found += _of_archive(root / upload.path, upload, settings)
            found += _of_link((root / upload.path).parent, upload)
    return found


def _of_archive(path: Path, upload: Stored, settings: DownloadSettings) -> list[_Found]:
    advice = _GONE if not upload.fetched_again else _FETCHED if settings.enabled else _NOT_FETCHED
    try:
        wrong = damage(path, upload.sha256, files=settings.extract and upload.fetched_again)
        size = path.stat().st_size if not wrong else upload.size
    except (Ours, OSError) as error:
        action = error.action if isinstance(error, Ours) else "look at the rights of the folder"
        return [(upload, path, Finding(upload.name, f"{path} cannot be read: {error}", action))]
    if not wrong and size != upload.size:
        wrong = f"the stored archive has {size} bytes, the record says {upload.size}"
        advice = "this is a fault of the program: report it with a copy of the record"
    return [(upload, path, Finding(upload.name, f"{wrong}: {path}", advice))] if wrong else []


def _of_link(folder: Path, upload: Stored) -> list[_Found]:
    """Check where `current` points, once the program has had its turn to point it."""
    if not upload.verified:
        return []
    link = folder.parent / CURRENT
    try:
        right = link.is_symlink() and link.readlink() == Path(folder.name)
    except OSError:
        right = False
    if right:
        return []
    return [(upload, link, Finding(upload.name, f"{link} does not point at {folder.name}", _POINTED))]
