"""Looking into the record: targets, uploads, and the story of a target."""

from datetime import timedelta

import pytest
from blockbuster import BlockBuster

from tests.support.clock import START
from tests.support.record import World, verdict
from watcher.cli.output import when
from watcher.cli.targets import told
from watcher.store import targets
from watcher.store.conditions import close_condition, open_condition
from watcher.store.schema import Target, Upload
from watcher.store.target_views import events, next_try, target_views, upload_views

pytest_plugins = ("tests.support.store",)
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _commands_import_within_the_loop(blockbuster: BlockBuster) -> None:
    blockbuster.deactivate()


async def test_where_each_target_and_upload_stands(world: World) -> None:
    one, empty = await world.target("A"), await world.target("B", public=False)
    first = await world.upload(one, ["C", "N"])
    second = await world.upload(one, ["C", "N", "O"], extracted=False)
    await world.change(one, remote_index=7)
    await world.change(empty, followed=False)
    async with world.store.write() as session:
        upload, _ = await targets.upload_with_target(session, second)
        upload.scoring_due_at = START + HOUR
        await open_condition(
            session, "fragalysis", "unreachable", reason="r", action="a", now=START, retry_at=START + 2 * HOUR
        )
    async with world.store.read() as session:
        a, b = await target_views(session, archives=False)
        assert (a.target, a.remote_index, a.recorded_index, a.archive, a.scoring) == (
            "A", 7, upload.upload_index, "wanted", "detected"
        )  # fmt: skip
        assert (a.observations, a.next_try_at) == (0, START + 2 * HOUR), "the service pauses"
        assert (await target_views(session, archives=True))[0].next_try_at == START + 2 * HOUR
        assert (b.recorded_index, b.archive, b.next_try_at, b.open_to_public, b.followed) == (
            None, None, None, False, False
        )  # fmt: skip
        old, new = await upload_views(session, [one])
        assert (old.observations, old.counts_now, old.scoring) == (2, False, "extracted")
        assert (new.observations, new.counts_now, new.scoring) == (0, True, "detected")
        assert await upload_views(session, [empty]) == []
        assert len(await upload_views(session, None)) == 2
    assert first != second
    assert verdict("C").smiles


def test_what_is_tried_next() -> None:
    upload = Upload(archive_state="unavailable", archive_due_at=START + HOUR, scoring_state="scored")
    assert next_try(upload, {}, archives=True) == START + HOUR
    assert next_try(upload, {"download": START + 3 * HOUR, "extract": START}, archives=True) == START + 3 * HOUR
    assert next_try(upload, {}, archives=False) is None
    upload.settle_due_at = START
    assert next_try(upload, {}, archives=True) == START
    upload.archive_state, upload.settle_due_at = "quarantined", None
    assert next_try(upload, {}, archives=True) is None


async def test_the_story_of_a_target(world: World) -> None:
    one, other = await world.target("A"), await world.target("B")
    await world.upload(one, ["C", "N"])
    await world.upload(other, ["O"])
    batch = await world.buy(batch_size=2)
    unrelated = await world.buy()
    assert batch
    async with world.store.write() as session:
        target = await session.get_one(Target, one)
        later = START + HOUR
        for subject, kind in (("target A@lb1", "vanished"), ("A@lb1 upload 3", "archive_unavailable"),
                              (f"batch {unrelated}", "lost"), ("B@lb1 upload 4", "archive_unavailable")):  # fmt: skip
            await open_condition(session, subject, kind, reason="it is so", action="a", now=later)
        await close_condition(session, "target A@lb1", now=later + HOUR)
        target.name = "A\x1b[31m"
    async with world.store.read() as session:
        found = await events(session, await session.get_one(Target, one), "A@lb1")
    story = [told(event) for event in found]
    upload = next(line for line in story if "counts now" in line)
    assert upload.startswith("upload ")
    assert story[0] == "first seen"
    assert f"batch {batch}: 2 of 2 compounds of it are of this target" in story
    assert f"batch {batch}: is at Molecule.one: accepted" in story
    assert any(line.endswith("its observations are read: read") for line in story)
    assert story[-3:] == [
        "not well, vanished: it is so",
        "upload 3: not well, archive_unavailable: it is so",
        "well again, no more vanished",
    ]
    assert not any(f"batch {unrelated}" in line or "upload 4" in line for line in story)
    assert [event.at for event in found] == sorted(event.at for event in found)


def test_times_as_ages() -> None:
    assert when(None, START) == ""
    assert [when(START - timedelta(seconds=s), START) for s in (5, 200, 7200, 200_000)] == [
        "5 s ago", "3 min ago", "2 h ago", "2 d ago"
    ]  # fmt: skip
    assert when(START + timedelta(minutes=90), START) == "in 90 min"
    assert (when(START, START, due="now"), when(START - HOUR, START, due="now")) == ("now", "now")
