"""Uploads: seen, compared, read, exported, in either age of Fragalysis and with either version of Molecule.one."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog

from tests.support.pipeline import PRIVATE, ROWS_A, ROWS_B, A, B, Job, QuickChemistry, Version, world
from watcher import points
from watcher.chemistry_records import Identity, Rejection
from watcher.errors import Invalid
from watcher.fragalysis import Fragalysis, NoObservations
from watcher.pipeline.runner import Runner
from watcher.sandbox import FragalysisServer

pytest_plugins = ("tests.support.at_once",)
pytestmark = pytest.mark.usefixtures("sqlite_at_once")

FOUR = {"CCO": 1, "CCN": 1, "c1ccccc1": 1}


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[Job]:
    async with world(tmp_path) as job:
        yield job


@pytest.mark.parametrize("age", ["2024", "2026"])
@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_the_whole_job(tmp_path: Path, age: Literal["2024", "2026"], version: Version) -> None:
    async with world(tmp_path, age=age, version=version) as job:
        await job.once()
        rows = await job.rows()
        assert [(row.target, row.code, row.smiles_input) for row in rows] == [
            *((A[0], code, smiles) for code, smiles, _ in ROWS_A),
            *((B[0], code, smiles) for code, smiles, _ in ROWS_B),
        ]
        assert {row.disposition for row in rows} == {"scored"}
        assert all(row.score and row.batch_id and row.profile and row.scored_at for row in rows)
        assert job.bought == FOUR
        assert await job.conditions() == {}
        assert {(one.archive_state, one.scoring_state) for one in await job.uploads()} == {("stored", "scored")}
        for name, tas in (A, B):
            current = job.downloads / tas / name / "current"
            assert current.readlink() == Path("1")
            assert (current / "files" / "metadata.csv").is_file()
        # An archive of each, and one batch for both although they were read one by one.
        assert job.posts() == 1

        before = (job.asked("download_structures"), job.asked("download_structures", "POST"))
        await job.once()
        assert job.bought == FOUR
        assert (job.asked("download_structures"), job.asked("download_structures", "POST")) == before
        assert await job.rows() == rows
        assert job.asked("/api/site_observations/") == 2


async def test_a_new_upload_buys_only_what_is_new(job: Job) -> None:
    await job.once()
    job.sandbox.fragalysis.add_upload(*A, [*ROWS_A, ("A0400a", "CCC", "Z9"), ("A0401a", "OCC", "Z1")])
    await job.once()
    assert job.bought == FOUR | {"CCC": 1}
    assert [(row.code, row.upload_index) for row in await job.rows() if row.target == A[0]] == [
        *((code, 2) for code, _, _ in ROWS_A),
        ("A0400a", 2),
        ("A0401a", 2),
    ]
    assert (job.downloads / A[1] / A[0] / "current").readlink() == Path("2")
    old, *_ = await job.uploads()
    assert (old.upload_index, old.archive_state, old.scoring_state) == (1, "stored", "scored")


async def test_an_index_that_goes_down_moves_back_and_repeats_nothing(job: Job) -> None:
    await job.once()
    job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
    await job.once()
    posted, built = job.posts(), job.asked("download_structures", "POST")
    job.sandbox.fragalysis.withdraw(*A)
    await job.once()
    rows = [row for row in await job.rows() if row.target == A[0]]
    assert {row.upload_index for row in rows} == {1}
    assert (job.downloads / A[1] / A[0] / "current").readlink() == Path("1")
    assert (job.posts(), job.asked("download_structures", "POST")) == (posted, built)
    # The index is used again under another time: another upload, in a folder of its own.
    job.sandbox.fragalysis.publish(*A)
    await job.once()
    assert job.bought == FOUR | {"CCC": 1}
    current = (job.downloads / A[1] / A[0] / "current").readlink()
    assert current.name.startswith("2-")
    assert (job.downloads / A[1] / A[0] / "2").is_dir(), "what was there stays"


async def test_the_index_moves_when_an_upload_is_seen_not_when_it_is_done(job: Job) -> None:
    async def recorded() -> list[int]:
        index = {one.id: one.upload_index for one in await job.uploads()}
        return [index[one.current_upload_id or 0] for one in await job.targets()]

    job.set("download", enabled=False)
    await job.once()
    job.fault("fragalysis", "status", "site_observations", status=400, times=None)
    async with job.run() as runner:
        for number, smiles in enumerate(("CCC", "CCS"), start=2):
            job.sandbox.fragalysis.add_upload(*A, [(f"A040{number}a", smiles, "Z9")])
            await job.again(runner)
            assert await recorded() == [number, 1]
            assert (await job.uploads())[-1].scoring_state == "quarantined"
        assert job.bought == FOUR, "neither was read yet"
        job.sandbox.clear_faults()
        job.sandbox.fragalysis.add_upload(*A, [("A0404a", "CCF", "Z9")])
        await job.again(runner)
    assert job.bought == FOUR | {"CCC": 1, "CCS": 1, "CCF": 1}
    assert await job.conditions() == {}


async def test_a_timestamp_alone_is_a_change(job: Job) -> None:
    await job.once()
    job.sandbox.fragalysis.touch(*B)
    await job.once()
    first, second = [one for one in await job.uploads() if one.target_id == 2]
    assert (first.upload_index, second.upload_index) == (1, 1)
    assert second.scoring_state == "scored"
    assert job.bought == FOUR


async def test_an_upload_that_failed_is_no_change(tmp_path: Path) -> None:
    async with world(tmp_path, age="2024") as job:
        await job.once()
        job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")], status="FAILURE")
        await job.once()
        assert len(await job.uploads()) == 2
        job.sandbox.fragalysis.add_upload(*A, [("A0401a", "CCCC", "Z9")], status="LOADING")
        await job.once()
        assert [one.upload_index for one in await job.uploads()] == [1, 1, 3]
        assert job.bought == FOUR | {"CCCC": 1}


@pytest.mark.slow
async def test_targets_that_are_renamed_or_moved_stay_themselves(job: Job) -> None:
    job.sandbox.fragalysis.break_builds(*B)
    await job.once()
    assert "Mpro@lb18145-1 upload 1: archive_unavailable" in await job.conditions()
    job.sandbox.fragalysis.rename(*A, "Enterovirus")
    job.sandbox.fragalysis.move(*B, "lb18145-2")
    await job.once()
    assert [(one.name, one.target_access_string) for one in await job.targets()] == [
        ("Enterovirus", A[1]),
        (B[0], "lb18145-2"),
    ]
    assert [*await job.conditions()] == ["Mpro@lb18145-2 upload 1: archive_unavailable"], "follows the target"
    assert len(await job.uploads()) == 2
    assert job.bought == FOUR
    job.sandbox.fragalysis.break_builds(B[0], "lb18145-2", False)
    async with job.run() as runner:
        await job.later(runner, hours=8)
    assert await job.conditions() == {}


async def test_a_target_that_is_made_anew_at_the_server_has_not_vanished(job: Job) -> None:
    """The server gives it another id, under the same name and access string."""
    async with job.run() as runner:
        await job.again(runner)
        await job.later(runner, minutes=11)  # the second reading
        job.sandbox.fragalysis.vanish(*A).name = "gone"
        job.sandbox.fragalysis.add_target(*A)
        job.sandbox.fragalysis.add_upload(*A, [*ROWS_A, ("A0400a", "CCC", "Z9")])
        await job.again(runner)
        await job.later(runner, minutes=11)
        await no_more_is_said(job, runner)
        assert await job.ever("vanished") == []
        assert [(one.name, one.listed) for one in await job.targets()] == [(A[0], False), (B[0], True), (A[0], True)]
    assert job.bought == FOUR | {"CCC": 1}


async def test_a_target_that_is_made_anew_after_a_while_has_vanished_once(job: Job) -> None:
    async with job.run() as runner:
        await job.again(runner)
        await job.later(runner, minutes=11)
        job.sandbox.fragalysis.vanish(*A).name = "gone"
        await job.again(runner)
        assert [*await job.conditions()] == [f"target {A[0]}@{A[1]}: vanished"]
        job.sandbox.fragalysis.add_target(*A)
        job.sandbox.fragalysis.add_upload(*A, ROWS_A)
        await job.again(runner)
        assert await job.conditions() == {}
        await job.later(runner, minutes=11)
        await no_more_is_said(job, runner)
    assert len(await job.ever("vanished")) == 1


LISTED: dict[str, tuple[Callable[[FragalysisServer], object], dict[str, tuple[object, object]]]] = {
    "vanished": (
        lambda server: server.vanish(*PRIVATE), {"target_listed_changed": (True, False)}
    ),
    "renamed": (
        lambda server: server.rename(*A, "Enterovirus"), {"target_name_changed": (A[0], "Enterovirus")}
    ),
    "the index went down": (
        lambda server: server.withdraw(*A), {"target_current_upload_index_changed": (2, 1)}
    ),
    "another time": (
        lambda server: server.touch(*A), {"target_current_upload_index_changed": (2, 2)}
    ),
}  # fmt: skip
"""What happens to a target, and what is said of it."""


@pytest.mark.slow
@pytest.mark.parametrize("what", LISTED)
async def test_what_the_listing_shows_is_said_once(job: Job, what: str) -> None:
    """A private target vanishes just so when the session that showed it ends."""
    happens, told = LISTED[what]
    job.set("fragalysis", token=job.sandbox.fragalysis.session_token)
    job.sandbox.fragalysis.add_target(*PRIVATE, public=False)
    job.sandbox.fragalysis.add_upload(*PRIVATE, [("S0001a", "CC(C)CCNS(C)=O", "Z7")])
    job.sandbox.fragalysis.add_upload(*A, [*ROWS_A, ("A0400a", "CCC", "Z9")])
    async with job.run() as runner:
        await job.again(runner)
        await job.later(runner, minutes=11)
        happens(job.sandbox.fragalysis)
        with structlog.testing.capture_logs() as logs:
            await job.again(runner)
        changed = [one for one in logs if re.fullmatch("target_.*_changed", one["event"])]
        assert [one["log_level"] for one in changed] == ["info"]
        assert {one["event"]: (one["old"], one["new"]) for one in changed} == told
        opened = [(one["subject"], one["kind"]) for one in logs if one["event"] == "condition_opened"]
        assert opened == ([(f"target {PRIVATE[0]}@{PRIVATE[1]}", "vanished")] if what == "vanished" else [])
        await job.later(runner, minutes=11)
        await no_more_is_said(job, runner)


async def no_more_is_said(job: Job, runner: Runner) -> None:
    """Four more scans of the same listing say no more than that they took place."""
    with structlog.testing.capture_logs() as logs:
        for _ in range(4):
            job.clock.advance(timedelta(minutes=15))
            await job.again(runner)
    scans = [one for one in logs if one["event"] == "scan_finished"]
    assert [one["changed"] for one in scans] == [0] * 4
    assert {one["event"] for one in logs if one["log_level"] != "debug"} == {"scan_finished", "stage_run"}


@pytest.mark.slow
async def test_two_targets_of_one_name_share_nothing(job: Job) -> None:
    job.sandbox.fragalysis.add_target(A[0], "lb00001-1")
    job.sandbox.fragalysis.add_upload(A[0], "lb00001-1", [("X1a", "CCS", "Z1")])
    await job.once()
    assert {(row.target_access_string, row.code) for row in await job.rows() if row.target == A[0]} == {
        *((A[1], code) for code, _, _ in ROWS_A),
        ("lb00001-1", "X1a"),
    }
    assert (job.downloads / "lb00001-1" / A[0] / "current" / "files").is_dir()
    assert (job.downloads / A[1] / A[0] / "current" / "files").is_dir()


async def test_targets_without_uploads_or_observations(job: Job) -> None:
    job.sandbox.fragalysis.add_target("Empty", "lb00001-1")
    job.sandbox.fragalysis.add_target("Bare", "lb00001-1")
    job.sandbox.fragalysis.add_upload("Bare", "lb00001-1", [])
    await job.once()
    bare = (await job.uploads())[2]
    assert (bare.archive_state, bare.scoring_state) == ("skipped", "scored")
    assert await job.conditions() == {}
    assert job.bought == FOUR
    # Its rows come late: the second reading finds them, and then there is something to pack.
    job.sandbox.fragalysis.world.find("Bare", "lb00001-1").published = 0
    job.sandbox.fragalysis.world.find("Bare", "lb00001-1").uploads.clear()
    job.sandbox.fragalysis.add_upload("Bare", "lb00001-1", [("B1a", "CCCCC", "Z1")])
    job.sandbox.fragalysis.world.find("Bare", "lb00001-1").uploads[0].committed = bare.committed_at
    async with job.run() as runner:
        await job.again(runner)
        await job.later(runner, minutes=11)
    bare = (await job.uploads())[2]
    assert (bare.archive_state, bare.scoring_state) == ("stored", "scored")
    assert job.bought == FOUR | {"CCCCC": 1}


async def test_late_rows_are_picked_up_once_more(job: Job) -> None:
    await job.once()
    first = (await job.uploads())[0]
    fragalysis = job.sandbox.fragalysis
    fragalysis.add_upload(*A, [("A0500a", "CCCl", "Z7")])
    target = fragalysis.world.find(*A)
    target.uploads.pop()
    target.published = 1
    assert target.uploads[0].committed == first.committed_at
    async with job.run() as runner:
        await job.again(runner)
        assert job.bought == FOUR
        built = job.asked("download_structures", "POST")
        await job.later(runner, minutes=11)
        assert job.bought == FOUR | {"CCCl": 1}
        assert job.asked("download_structures", "POST") > built, "the archive lacked them"
        asked = job.asked("/api/site_observations/")
        await job.later(runner, minutes=60)
        assert job.asked("/api/site_observations/") == asked
    smiles = (job.downloads / A[1] / A[0] / "1" / "files" / "smiles.smi").read_text()
    assert "CCCl" in smiles


async def test_rows_that_appear_while_the_request_is_refused_for_want_of_them_are_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal arrives after the first reading, and the second one finds nothing that is new."""
    request, read = Fragalysis.download_target, Fragalysis.get_target_compound_smiles
    refused, recorded = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(points, "hook", lambda name: recorded.set() if name == "extract.recorded" else None)

    async with world(tmp_path, empty=True) as job:
        target = job.sandbox.fragalysis.add_target(*A)
        job.sandbox.fragalysis.add_upload(*A, [])

        async def late(self: Fragalysis, *arguments: Any, **more: Any) -> Any:
            try:
                return await request(self, *arguments, **more)
            except NoObservations:
                committed = target.uploads.pop().committed
                target.published = 0
                job.sandbox.fragalysis.add_upload(*A, ROWS_A)
                target.uploads[0].committed = committed
                refused.set()
                await recorded.wait()
                raise

        async def later(self: Fragalysis, target_id: int) -> Any:
            await refused.wait()
            return await read(self, target_id)

        monkeypatch.setattr(Fragalysis, "download_target", late)
        monkeypatch.setattr(Fragalysis, "get_target_compound_smiles", later)
        async with job.run() as runner:
            await job.again(runner)
            assert [one.archive_state for one in await job.uploads()] == ["skipped"]
            await job.later(runner, minutes=11)
        assert [one.archive_state for one in await job.uploads()] == ["stored"]


async def test_an_upload_that_comes_back_is_still_read_once_more(job: Job) -> None:
    fragalysis = job.sandbox.fragalysis
    async with job.run() as runner:
        await job.again(runner)
        fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
        await job.again(runner)
        fragalysis.withdraw(*A)
        fragalysis.add_upload(*A, [("A0500a", "CCCl", "Z7")])
        target = fragalysis.world.find(*A)
        del target.uploads[1:]
        target.published = 1
        await job.again(runner)
        assert "CCCl" not in job.bought
        await job.later(runner, minutes=11)
    assert job.bought == FOUR | {"CCC": 1, "CCCl": 1}


async def test_a_second_reading_that_breaks_the_contract_sets_nothing_aside_and_is_told(job: Job) -> None:
    with structlog.testing.capture_logs() as logs:
        async with job.run() as runner:
            await job.again(runner)
            job.fault("fragalysis", "status", "/api/site_obs", status=400, times=None)
            await job.later(runner, minutes=11)
            await job.later(runner, hours=3)
    told = [one for one in logs if one["event"] == "second_reading_given_up"]
    assert len(told) == len(await job.uploads())
    assert {one.scoring_state for one in await job.uploads()} == {"scored"}
    assert await job.conditions() == {}


async def test_a_reading_that_fails_once_its_upload_is_passed_over_changes_and_says_nothing(job: Job) -> None:
    async with job.run() as runner:
        await job.again(runner)
        job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
        await job.again(runner)
        extract = next(stage for stage in runner.stages if stage.name == "extract")
        before = (await job.uploads())[0]
        with structlog.testing.capture_logs() as logs:
            await extract.put_off(before.id, Invalid("too late"))
        after = (await job.uploads())[0]
    assert logs == []
    assert before.settle_due_at is not None
    assert (after.settle_due_at, after.scoring_attempts) == (before.settle_due_at, 0)


async def test_a_second_reading_leaves_a_newer_upload_to_itself(job: Job) -> None:
    async with job.run() as runner:
        await job.again(runner)
        job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
        await job.later(runner, minutes=11)
        await job.later(runner, minutes=1)
        assert job.bought == FOUR | {"CCC": 1}, "the second reading has asked for a scan"
        job.sandbox.fragalysis.withdraw(*A)
        await job.again(runner)
        assert [row.code for row in await job.rows() if row.target == A[0]] == [code for code, _, _ in ROWS_A]


async def test_an_unreadable_listing_sets_no_upload_aside(job: Job) -> None:
    async with job.run() as runner:
        rule = job.fault("fragalysis", "edit", "target_exp", values={"upload_version": "x"}, times=2, skip=1)
        await job.again(runner)
        assert rule.hits == 2
        assert await job.ever("scoring_quarantined") == []
        await job.later(runner, minutes=1)
        assert job.bought == FOUR


async def test_vanished_targets_keep_everything(job: Job) -> None:
    job.set("fragalysis", token=job.sandbox.fragalysis.session_token)
    job.set("limits", submit_private=True)
    job.sandbox.fragalysis.add_target(*PRIVATE, public=False)
    job.sandbox.fragalysis.add_upload(*PRIVATE, [("S1a", "CCBr", "Z1")])
    await job.once()
    rows = await job.rows()
    job.sandbox.fragalysis.vanish(*A)
    job.set("fragalysis", token="")
    await job.once()
    assert await job.rows() == rows
    conditions = {f"{one.subject}: {one.kind}": one.action for one in await job.ever("vanished")}
    assert conditions.keys() == {f"target {A[0]}@{A[1]}: vanished", f"target {PRIVATE[0]}@{PRIVATE[1]}: vanished"}
    assert "sign in" in conditions[f"target {PRIVATE[0]}@{PRIVATE[1]}: vanished"]
    job.sandbox.fragalysis.reappear(*A)
    job.set("fragalysis", token=job.sandbox.fragalysis.session_token)
    await job.once()
    assert await job.conditions() == {}
    assert job.bought == FOUR | {"CCBr": 1}


async def test_what_has_vanished_may_be_private_now_and_stays_in_the_house(job: Job) -> None:
    async with job.run() as runner:
        job.fault("molecule_one", "status", "batch-search", status=401, times=None)
        await job.again(runner)
        job.sandbox.clear_faults()
        job.sandbox.fragalysis.vanish(*A)
        await job.again(runner)
        await job.later(runner, minutes=90)
        assert "CCO" not in job.bought
        job.sandbox.fragalysis.reappear(*A)
        await job.again(runner)
        await job.later(runner, minutes=90)
    assert job.bought == FOUR


@pytest.mark.slow
async def test_a_target_that_is_left_out_of_the_settings_needs_nobody(job: Job) -> None:
    job.sandbox.fragalysis.break_builds(*A)
    await job.once()
    job.sandbox.fragalysis.vanish(*A)
    await job.once()
    assert len(await job.conditions()) == 2
    job.set("fragalysis", exclude=["A71*"])
    await job.once()
    assert await job.conditions() == {}
    assert [one.followed for one in await job.targets()] == [False, True]


@pytest.mark.slow
async def test_what_was_set_aside_of_a_target_is_taken_up_when_it_is_followed_again(job: Job) -> None:
    """Its condition has ended with the following: else nobody would hear of it any more."""
    job.fault("fragalysis", "edit", "site_observations/.*target=1", drop=["smiles"], times=None)
    job.set("download", max_archive_size="1B")
    await job.once()
    subject = f"{A[0]}@{A[1]} upload 1"
    told = {f"{subject}: archive_quarantined", f"{subject}: scoring_quarantined"}
    assert told <= {*await job.conditions()}
    job.set("fragalysis", exclude=["A71*"])
    await job.once()
    job.set("fragalysis", exclude=[])
    await job.once()
    assert told <= {*await job.conditions()}, "tried again, and said again"
    job.set("fragalysis", exclude=["A71*"])
    await job.once()
    job.sandbox.clear_faults()
    job.set("fragalysis", exclude=[])
    job.set("download", max_archive_size="1GB")
    await job.once()
    assert job.bought == FOUR
    first = (await job.uploads())[0]
    assert (first.archive_state, first.scoring_state) == ("stored", "scored")
    assert not told & {*await job.conditions()}


async def test_a_target_that_vanishes_before_it_is_read_is_read_when_it_is_back(job: Job) -> None:
    async with job.run() as runner:
        job.fault("fragalysis", "status", "site_observations", status=503, times=None)
        await job.again(runner)
        job.sandbox.clear_faults()
        job.sandbox.fragalysis.vanish(*A)
        await job.later(runner, minutes=10)
        assert "CCO" not in job.bought
        assert (await job.uploads())[0].scoring_state == "detected", "an empty answer says nothing of it"
        job.sandbox.fragalysis.reappear(*A)
        await job.again(runner)
        await job.later(runner, minutes=20)
        assert job.bought == FOUR
        assert await job.conditions() == {}


async def test_a_target_that_vanished_is_asked_for_no_more_and_taken_up_at_once_when_it_is_back(job: Job) -> None:
    """Its archive and its observations are both still to be had; a stored archive is checked all the same."""
    job.fault("fragalysis", "status", "site_observations/.*target=1(&|$)", status=503, times=None)
    job.sandbox.fragalysis.break_builds(*A)
    async with job.run() as runner:
        await job.again(runner)
        job.sandbox.clear_faults()
        job.sandbox.fragalysis.break_builds(*A, False)
        for name, tas in (A, B):
            job.sandbox.fragalysis.vanish(name, tas)
        await job.again(runner)
        asked = len(job.sandbox.fragalysis.requests)
        for _ in range(8):
            await job.later(runner, hours=1)
        assert len(job.sandbox.fragalysis.requests) == asked
        (job.downloads / B[1] / B[0] / "current").unlink()
        await runner._verify.verify_all(everything=True)
        await job.later(runner, minutes=1)
        assert (job.downloads / B[1] / B[0] / "current").is_symlink()
        for name, tas in (A, B):
            job.sandbox.fragalysis.reappear(name, tas)
        await job.again(runner)
    assert job.bought == FOUR
    assert {(one.archive_state, one.scoring_state) for one in await job.uploads()} == {("stored", "scored")}
    assert await job.conditions() == {}


async def test_a_session_that_ended_pauses_fragalysis_until_it_is_renewed(job: Job) -> None:
    job.set("fragalysis", token=job.sandbox.fragalysis.session_token)
    job.sandbox.fragalysis.add_target(*PRIVATE, public=False)
    await job.once()
    job.sandbox.fragalysis.session_valid = False
    job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
    async with job.run() as runner:
        await job.again(runner)
        assert [*await job.conditions()] == ["fragalysis: credentials"]
        seen = len(job.sandbox.fragalysis.requests)
        await job.later(runner, minutes=1)
        await job.again(runner)
        assert len(job.sandbox.fragalysis.requests) == seen, "it is left alone"
        assert all(one.listed for one in await job.targets())
        assert "CCC" not in job.bought
    # Renewed: the pause does not stand in the way.
    job.sandbox.fragalysis.session_valid = True
    await job.once()
    assert await job.conditions() == {}
    assert job.bought == FOUR | {"CCC": 1}
    assert len(await job.ever("credentials")) == 1


@pytest.mark.slow
async def test_what_was_open_about_another_stack_needs_nobody(job: Job, tmp_path: Path) -> None:
    job.sandbox.fragalysis.break_builds(*A)
    await job.once()
    job.sandbox.fragalysis.vanish(*B)
    await job.once()
    home = job.settings.fragalysis.stack
    open_at_home = {f"{A[0]}@{A[1]} upload 1: archive_unavailable", f"target {B[0]}@{B[1]}: vanished"}
    assert {*await job.conditions()} == open_at_home
    async with world(tmp_path / "other", empty=True) as other:
        job.set("fragalysis", stack=other.sandbox.fragalysis.url)
        await job.once()
        assert await job.conditions() == {}
    job.set("fragalysis", stack=home)
    async with job.run() as runner:
        await job.again(runner)
        await job.later(runner, hours=8)
    assert {*await job.conditions()} == open_at_home - {f"target {B[0]}@{B[1]}: vanished"}, (
        "B is not listed, so nothing is asked of it"
    )


@pytest.mark.slow
async def test_another_stack_does_not_mix_with_the_first(job: Job, tmp_path: Path) -> None:
    await job.once()
    async with world(tmp_path / "other", empty=True) as other:
        other.sandbox.fragalysis.add_target("Else", "lb00001-1")
        other.sandbox.fragalysis.add_upload("Else", "lb00001-1", [("E1a", "CCCCCC", "Z1")])
        home = job.settings.fragalysis.stack
        job.set("fragalysis", stack=other.sandbox.fragalysis.url)
        async with job.run() as runner:
            await job.again(runner)
            await job.later(runner, minutes=20)
        assert [one.followed for one in await job.targets()] == [False, False, True]
        assert other.asked("/api/site_observations/?limit=5000&target=1") == 2, "first and second reading of its own"
        job.set("fragalysis", stack=home)
        await job.once()
        assert [one.followed for one in await job.targets()] == [True, True, False]
        assert job.bought == FOUR | {"CCCCCC": 1}
        assert await job.conditions() == {}


async def test_what_may_have_been_the_machine_s_fault_is_judged_anew(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chemistry was ended twice over a compound, as a machine short of memory does."""
    identify = QuickChemistry.identify

    async def short_of_memory(self: QuickChemistry, raws: Sequence[str]) -> list[Identity | Rejection]:
        found = await identify(self, raws)
        lost = Rejection("unparsable", "RDKit crashed or hung on it, twice", in_doubt=True)
        return [lost if raw == "CCN" else one for raw, one in zip(raws, found, strict=True)]

    with monkeypatch.context() as patch:
        patch.setattr(QuickChemistry, "identify", short_of_memory)
        await job.once()
    assert "CCN" not in job.bought
    async with job.run() as runner:
        await job.again(runner)
        await job.later(runner, minutes=11)
    assert job.bought == FOUR


async def test_what_another_chemistry_has_rejected_is_judged_again_at_the_start(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    identify = QuickChemistry.identify

    async def strict(self: QuickChemistry, raws: Sequence[str]) -> list[Identity | Rejection]:
        found = await identify(self, raws)
        large = Rejection("too_large", "3 heavy atoms; at most 2 are allowed")
        return [large if raw == "CCN" else one for raw, one in zip(raws, found, strict=True)]

    async def other(_: QuickChemistry) -> str:
        return "of another day"

    monkeypatch.setattr(QuickChemistry, "identify", strict)
    async with job.run() as runner:
        await job.again(runner)
        await job.later(runner, minutes=11)
    monkeypatch.setattr(QuickChemistry, "identify", identify)
    asked = job.asked("/api/site_observations/")
    await job.once()
    assert job.asked("/api/site_observations/") == asked
    assert "CCN" not in job.bought, "it is the same chemistry still"
    monkeypatch.setattr(QuickChemistry, "version", other)
    await job.once()
    assert job.bought == FOUR
    assert job.asked("/api/site_observations/") == asked + 2, "both targets hold it"
    await job.once()
    assert job.asked("/api/site_observations/") == asked + 2
