"""Every captured row, of both ages, is read without loss; rows of another shape say which and why."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.fragalysis import CAPTURES, capture, captured
from watcher.fragalysis.paging import Page
from watcher.fragalysis.records import (
    ObservationRow,
    ProjectRow,
    Target,
    TargetRow,
    TargetUploads,
    Upload,
    UploadRow,
    moment,
    whole,
)

LISTS = sorted(
    str(path.relative_to(CAPTURES)) for path in CAPTURES.rglob("*.json") if b'"results"' in path.read_bytes()
)
PROJECT_ROWS = {row["id"]: msgspec.convert(row, ProjectRow) for row in captured("projects.json")["results"]}


def lists(word: str) -> list[str]:
    found = [name for name in LISTS if word in name]
    assert found
    return found


@pytest.mark.parametrize("name", lists("uploads"))
def test_every_captured_upload_is_read(name: str) -> None:
    page = msgspec.json.decode(capture(name), type=Page[UploadRow])
    raw = captured(name)
    assert (page.count, page.next, len(page.results)) == (raw["count"], raw["next"], len(raw["results"]))
    for row, source in zip(page.results, raw["results"], strict=True):
        assert row.record() == Upload(
            source["target"],
            source["upload_version"],
            datetime.fromisoformat(source["commit_datetime"]),
            failed=source.get("status") == "FAILURE",
        )
        target = row.target_record(PROJECT_ROWS)
        if name.startswith("2026"):
            assert target is not None
            assert target.target_id == source["target"]
            assert (target.name, target.target_access_string) == (source["target_name"], source["proposal_number"])
        else:
            assert target is None
    assert len({row.key() for row in page.results}) == len(raw["results"])


@pytest.mark.parametrize("name", lists("targets"))
def test_every_captured_target_is_read(name: str) -> None:
    projects = {row["id"]: row for row in captured("projects.json")["results"]}
    page = msgspec.json.decode(capture(name), type=Page[TargetRow])
    for row, source in zip(page.results, captured(name)["results"], strict=True):
        project = projects.get(source["project"], {})
        assert row.record(PROJECT_ROWS) == Target(
            source["id"],
            source["title"],
            project.get("target_access_string", ""),
            project.get("open_to_public"),
        )


@pytest.mark.parametrize("name", lists("site_observations"))
def test_every_captured_observation_is_read(name: str) -> None:
    page = msgspec.json.decode(capture(name), type=Page[ObservationRow])
    for row, source in zip(page.results, captured(name)["results"], strict=True):
        record = row.record()
        assert record.observation_id == source["id"]
        for field in ("code", "longcode", "smiles", "compound_code"):
            assert getattr(record, field) == source[field]
        assert bool(row.superseded) == source["superseded"]


def test_the_large_message_is_not_kept() -> None:
    message = [f"INFO: {'x' * 100}"] * 1000
    row = {"target": 1, "upload_version": 1, "commit_datetime": "2026-09-01T00:00:00Z", "message": message}
    read = msgspec.json.decode(msgspec.json.encode(row), type=UploadRow)
    assert "message" not in repr(read)
    assert read.record().upload_index == 1


@pytest.mark.parametrize(
    ("more", "failed"),
    [
        ({}, False),  # a row of 2026
        ({"status": "LOADING", "message": None}, False),
        ({"status": "LOADED", "message": []}, False),
        ({"status": "FAILURE", "message": ["FAILURE"]}, True),
    ],
)
def test_which_upload_failed(more: dict[str, Any], failed: bool) -> None:
    row = {"target": "7", "upload_version": "2", "commit_datetime": "2026-09-01T00:00:00Z", **more}
    upload = msgspec.json.decode(msgspec.json.encode(row), type=UploadRow).record()
    assert (upload.target_id, upload.upload_index, upload.failed) == (7, 2, failed)


@pytest.mark.parametrize(
    "text",
    ["2026-09-01T09:14:07.123456Z", "2026-09-01T11:14:07.123456+02:00", "2026-09-01T09:14:07.123456"],
)
def test_times_are_utc(text: str) -> None:
    assert moment(text, "t") == datetime(2026, 9, 1, 9, 14, 7, 123456, tzinfo=UTC)
    assert moment(text, "t").tzinfo is UTC


def test_times_without_microseconds() -> None:
    assert moment("2026-09-01T09:14:07Z", "t") == datetime(2026, 9, 1, 9, 14, 7, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="`commit_datetime` is"):
        moment(text, "commit_datetime")


@given(st.datetimes(timezones=st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))))
def test_any_time_in_any_zone(local: datetime) -> None:
    assume(1 < local.year < 9999)
    assert moment(local.isoformat(), "t") == local


@pytest.mark.parametrize("value", ["", "-1", -1, 2**63, "1.0", "\u0661", "9" * 30, " 1"])
def test_what_is_no_id(value: int | str) -> None:
    with pytest.raises(ValueError, match="`id` is"):
        whole(value, "id")


@pytest.mark.parametrize("project", ["abc", -1, 2**63, ""])
def test_a_row_whose_project_is_none_is_refused_while_the_listing_is_read(project: int | str) -> None:
    row = {"target": 1, "upload_version": 1, "commit_datetime": "2026-09-01T00:00:00Z", "project": project}
    named = msgspec.convert(row | {"target_name": "Mpro", "proposal_number": "lb1-1"}, UploadRow)
    target = msgspec.convert({"id": 1, "title": "Mpro", "project": project}, TargetRow)
    for one in (named, target):
        with pytest.raises(ValueError, match="`project` is"):
            one.key()
    nameless = msgspec.convert(row, UploadRow)
    assert nameless.key() == (1, 1, moment("2026-09-01", "t"), None), "nobody asks it for its project"


def upload(index: int, day: int, *, failed: bool = False) -> Upload:
    return Upload(1, index, datetime(2026, 9, day, tzinfo=UTC), failed)


def test_the_last_upload_is_the_newest_good_one_not_the_highest() -> None:
    target = Target(1, "Mpro", "lb1-1", open_to_public=True)
    history = TargetUploads(target, (upload(5, 1), upload(3, 2), upload(4, 3, failed=True)))
    assert history.last_upload == upload(3, 2)
    nothing = TargetUploads(target, (upload(1, 1, failed=True),))
    assert nothing.last_upload is None
