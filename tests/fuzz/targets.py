"""What is fuzzed: each target takes any bytes and fails only when something else than our own refusal comes out.

A target needs no fuzzer: `tests/unit/test_parsers.py` runs each over its seeds.
"""

import os
import tempfile
import zlib
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from unittest.mock import patch

from multidict import CIMultiDict, CIMultiDictProxy

from watcher.answers import Answer, parse_retry_after
from watcher.archives import unpack
from watcher.errors import Invalid, Transient
from watcher.fragalysis.builds import BuildTask, FileLink, TaskStatus
from watcher.fragalysis.paging import read_listing
from watcher.fragalysis.records import ObservationRow, ProjectRow, Row, TargetRow, UploadRow
from watcher.molecule_one.outcome import Accepted, Outcome, Unknown, classify, same_words
from watcher.molecule_one.records import read_counts, read_details, read_results
from watcher.molecule_one.records import read_listing as read_batches

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LARGEST, MOST = 1 << 20, 200
_QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_STATUSES = (200, 201, 303, 400, 404, 413, 422, 429, 500, 504)


def archives(data: bytes) -> None:
    """Unpack what comes: the rest of the bytes as it is, or, after an odd first byte, packed as gzip."""
    content = _gzip(data[1:]) if data[:1] and data[0] & 1 else data[1:]
    with tempfile.TemporaryDirectory(dir=_QUICK) as name, patch("os.sync", new=lambda: None):
        root = Path(name)
        (root / "archive").write_bytes(content)
        (root / "beside").touch()
        files = root / "home" / "files"
        try:
            done = unpack(root / "archive", files, max_unpacked_size=LARGEST, max_members=MOST)
        except Invalid:
            assert not os.path.lexists(files)
        else:
            assert done.members <= MOST
            assert done.bytes <= LARGEST
            for path in files.rglob("*"):
                assert not path.is_symlink()
                assert path.is_dir() or path.is_file()
        assert {path.name for path in (root / "home").iterdir()} <= {"files"}
        assert {path.name for path in root.iterdir()} == {"archive", "beside", "home"}


def _gzip(content: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(content) + packer.flush()


def fragalysis(data: bytes) -> None:
    """Read what comes as every kind of listing, as a task page, and as the answer to a request for a download."""
    answer = _answer(200, data)
    for row_type in (ProjectRow, TargetRow, UploadRow, ObservationRow):
        with suppress(Transient, Invalid):
            for row in _ended(read_listing(_Page(answer), "/x/", row_type, operation="x")):  # type: ignore[arg-type]
                _recorded(row)
    with suppress(Transient, Invalid):
        status = answer.json(TaskStatus).read()
        assert "/code/media/downloads" not in repr(status)
    text = data.decode("utf-8", "replace")
    with suppress(Invalid):
        assert FileLink(text).path.startswith("/code/media/downloads/")
    with suppress(Invalid):
        assert BuildTask(text, NOW).path.startswith("/viewer/task_status/")
    assert answer.text.isprintable()
    wait = parse_retry_after(text, NOW)
    assert wait is None or 0 <= wait.total_seconds() <= 86400


class _Page:
    """Stands in for a session: every page is the same."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def get(self, path: str, **_: Any) -> Answer:
        return self._answer

    def json(self, answer: Answer, type_: Any) -> Any:
        return answer.json(type_)


def _recorded(row: Row) -> None:
    match row:
        case UploadRow():
            upload = row.record()
            assert upload.committed_at.tzinfo is UTC
            assert 0 <= upload.upload_index < 2**63
            row.target_record({})
        case ObservationRow():
            assert 0 <= row.record().observation_id < 2**63
        case TargetRow():
            assert row.record({}).open_to_public is None


def _ended(work: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine comes to that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits for something")


def molecule_one(data: bytes) -> None:
    """Read what comes as every answer of the service; the first byte is the status of the answer to a purchase."""
    status, body = _STATUSES[data[0] % len(_STATUSES)] if data else 200, data[1:]
    for read in (read_counts, read_details, read_batches):
        with suppress(Transient):
            read(body, "x")
    with suppress(Transient):
        for item in read_results(body, "x"):
            assert item.kind in ("scored", "no_route", "failed", "running")
            for text in (item.smiles, item.status, item.raw, item.route or ""):
                text.encode()
    outcome = classify(_answer(status, body))
    assert isinstance(outcome, Outcome)
    assert not isinstance(outcome, Accepted) or (status < 300 and outcome.remote_id.strip())
    assert isinstance(outcome, Accepted | Unknown) or 300 <= status < 500
    if not isinstance(outcome, Accepted):
        assert len(outcome.reason) < 1000
        assert same_words(outcome.reason, outcome.reason)


def _answer(status: int, body: bytes) -> Answer:
    headers = CIMultiDictProxy(CIMultiDict({"Content-Type": "application/json"}))
    return Answer(status, headers, SimpleCookie(), body, "GET /x", NOW)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "archives": archives,
    "fragalysis": fragalysis,
    "molecule_one": molecule_one,
}
