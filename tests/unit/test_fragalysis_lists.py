"""Targets, uploads and the user, out of the captured lists of both ages."""

from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from tests.support.fragalysis import LANDING, PROJECTS, TARGETS, TOKEN, UPLOADS, answer, capture, captured, rows, stack
from watcher.fragalysis import Target

LISTS_2024 = {
    TARGETS: answer(capture("targets.json")),
    PROJECTS: answer(capture("projects.json")),
    UPLOADS: answer(capture("target_experiment_uploads.json")),
}


async def test_target_list_keeps_targets_of_one_name_apart() -> None:
    async with stack(LISTS_2024) as server, server.client() as client:
        targets = await client.target_list()
    assert [target.target_id for target in targets] == [1, 2, 3, 4, 7, 8, 9, 10, 11]
    assert [t.target_access_string for t in targets if t.name == "Mpro"] == ["lb18145-1", "lb32627-66"]
    assert {t.name: t.open_to_public for t in targets}["SARS2_Nprot"] is False


async def test_a_project_that_is_not_listed_or_not_there() -> None:
    lists = {TARGETS: rows({"id": 1, "title": "A", "project": None}, {"id": 2, "title": "B", "project": 99})}
    async with stack({**lists, PROJECTS: rows()}) as server, server.client() as client:
        assert await client.target_list() == [Target(1, "A", "", None), Target(2, "B", "", None)]


async def test_target_uploads_of_2024() -> None:
    async with stack(LISTS_2024) as server, server.client() as client:
        found = await client.target_uploads()
    assert list(found) == [1, 2, 3, 4, 7, 8, 9, 10, 11]
    assert [upload.upload_index for upload in found[1].uploads] == [1, 2, 3, 4]
    assert [upload.failed for upload in found[1].uploads] == [False, False, False, True]
    assert found[1].last_upload == found[1].uploads[2]
    assert found[2].uploads[-1].committed_at == datetime(2026, 9, 3, 9, 14, 7, 123456, tzinfo=UTC)
    assert found[4].uploads == ()  # ZIKV_NS5 holds nothing yet
    assert sum(len(each.uploads) for each in found.values()) == 12


async def test_target_uploads_of_2026_name_targets_that_the_list_does_not_have_yet() -> None:
    page = captured("2026/target_experiment_uploads_page1.json")["results"]
    lists = {UPLOADS: rows(*page), TARGETS: rows({"id": 1, "title": "old name", "project": 1}), PROJECTS: rows()}
    async with stack(lists) as server, server.client() as client:
        found = await client.target_uploads()
    assert found[1].target == Target(1, "A71EV2A", "lb32627-66", None)
    assert found[2].target == Target(2, "Mpro", "lb18145-1", None)
    assert len(found[1].uploads) == 4


async def test_the_newest_row_names_the_target() -> None:
    def row(day: int, name: str, tas: str) -> dict[str, Any]:
        time = f"2026-09-{day:02}T00:00:00Z"
        return {
            "target": 1,
            "upload_version": day,
            "commit_datetime": time,
            "target_name": name,
            "proposal_number": tas,
        }

    lists = {UPLOADS: rows(row(2, "B", "lb2-1"), row(1, "A", "lb1-1")), TARGETS: rows(), PROJECTS: rows()}
    async with stack(lists) as server, server.client() as client:
        (only,) = (await client.target_uploads()).values()
    assert (only.target.name, only.target.target_access_string) == ("B", "lb2-1")
    assert [upload.upload_index for upload in only.uploads] == [1, 2]


@pytest.mark.parametrize(
    ("upload_says", "target_says", "public"),
    [(2, 2, True), (2, 5, False), (5, 2, False), (2, 99, None), (99, 2, None), (2, None, None), (2, "unlisted", True)],
)
async def test_a_target_is_public_only_if_its_newest_upload_and_the_list_say_so(
    upload_says: int, target_says: int | str | None, public: bool | None
) -> None:
    """As after a move, when one of them still names the project that the target has left."""
    page = captured("2026/target_experiment_uploads_target1.json")["results"]
    row = {"id": 1, "title": "A71EV2A", "project": target_says}
    lists = {
        UPLOADS: rows(*({**upload, "project": upload_says} for upload in page)),
        TARGETS: rows(*([] if target_says == "unlisted" else [row])),
        PROJECTS: answer(capture("projects.json")),
    }
    async with stack(lists) as server, server.client() as client:
        (only,) = (await client.target_uploads()).values()
    assert only.target == Target(1, "A71EV2A", "lb32627-66", public)


async def test_an_upload_of_2024_whose_target_is_not_listed_is_left_out() -> None:
    short = rows({"id": 1, "title": "A71EV2A", "project": 2})
    lists = {**LISTS_2024, TARGETS: [short, short, LISTS_2024[TARGETS]]}
    async with stack(lists) as server, server.client() as client:
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                assert list(await client.target_uploads()) == [1]
            for _ in range(2):
                assert len(await client.target_uploads()) == 9
    began, ended = logs  # said once, not at every scan
    assert (began["log_level"], began["target_ids"]) == ("warning", [2, 3, 7, 8, 9, 10, 11])
    assert (ended["log_level"], ended["event"]) == ("info", "uploads_of_unlisted_targets_no_more")


async def test_user_of_2026() -> None:
    anonymous, member = captured("2026/api_user_anonymous.json"), {"user": "abc12345", "user_id": "3", "ping": "OK"}
    async with stack({"/api/user": [answer(anonymous), answer(member)]}) as server, server.client() as client:
        assert await client.user() is None
        assert await client.user() == "abc12345"


async def test_user_of_2024_comes_from_the_landing_page() -> None:
    page = capture("landing_anonymous.html")
    signed_in = page.replace(b"NOT_LOGGED_IN", b"o&#x27;hara").replace(b"authenticated: false", b"authenticated: true")
    assert signed_in != page
    replies = {"/api/user": answer(capture("api_user.html"), 404), LANDING: [answer(page), answer(signed_in)]}
    async with stack(replies) as server, server.client(TOKEN) as client:
        assert await client.user() is None
        assert await client.user() == "o'hara"


@pytest.mark.parametrize("name", ["site_observations_target4_empty.json", "site_observations_unknown_target.json"])
async def test_a_target_without_observations(name: str) -> None:
    async with stack({"/api/site_observations/": answer(capture(name))}) as server, server.client() as client:
        assert await client.get_target_compound_smiles(4) == []


async def test_observations_come_by_id() -> None:
    raw = captured("site_observations_target1.json")["results"]
    async with stack({"/api/site_observations/": rows(*raw)}) as server, server.client() as client:
        found = await client.get_target_compound_smiles(1)
    assert [each.observation_id for each in found] == sorted(row["id"] for row in raw)
    assert {each.smiles for each in found} == {row["smiles"] for row in raw}
