"""The record as people and dashboards see it: the export, counts and waits, conditions, and who changed what."""

from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, select
from structlog.contextvars import bound_contextvars
from structlog.testing import capture_logs

from tests.support.record import World, result
from watcher.settings import DatabaseSettings
from watcher.store import (
    allowance,
    batches,
    claims,
    compounds,
    export,
    forgotten,
    legs,
    overview,
    standing,
    targets,
    transitions,
    upload_queues,
)
from watcher.store.compounds import Verdict
from watcher.store.conditions import all_open, close_condition, find, open_condition
from watcher.store.engine import Store
from watcher.store.instance import instance
from watcher.store.migrate import is_current
from watcher.store.schema import Alias, Compound, Observation, Target, Transition, Upload
from watcher.store.standing import Policy
from watcher.store.waits import Waits, waits

pytest_plugins = ("tests.support.store",)
COLUMNS = (
    "target, target_access_string, upload_index, code, compound_code, smiles_input, smiles, inchikey, disposition, "
    "reason, status, score, certainty, price_usd, reaction_count, timed_out, profile, batch_id, scored_at"
)


async def exported(world: World, *target_ids: int) -> list[dict[str, Any]]:
    async with world.store.read() as session:
        found = export.rows(session, profile_key=world.profile_key, target_ids=target_ids or None)
        return [asdict(row) async for row in found]


def test_the_columns_are_firm() -> None:
    assert ", ".join(export.COLUMNS) == COLUMNS


async def test_every_disposition(world: World) -> None:
    target_id = await world.target()
    await world.upload(target_id, ["C", "N", "O", "bad", "S"])
    batch_id = await world.buy(3) or 0
    await world.results(batch_id, result("C"), result("N", "no_route", 10.0), result("O", "failed", -1.0))
    rows = await exported(world)
    shown = [(row["smiles_input"], row["disposition"], row["reason"], row["score"], row["status"]) for row in rows]
    assert shown == [
        ("C", "scored", None, 3.5, "ok"),
        ("N", "no_route", None, 10.0, "ok"),
        ("O", "failed", "the service answered error", None, "error"),
        ("bad", "rejected", "unparsable", None, None),
        ("S", "pending", "waits to be sent", None, None),
    ]
    first, rejected, waiting = rows[0], rows[3], rows[4]
    assert (first["code"], first["compound_code"], first["inchikey"]) == ("code-1", "Z1", "KEY-C")
    assert (first["profile"], first["batch_id"], first["scored_at"]) == (world.profile_key, batch_id, world.now)
    assert (first["certainty"], first["price_usd"], first["reaction_count"], first["timed_out"]) == (
        0.75,
        12.5,
        2,
        False,
    )
    assert (rejected["smiles"], rejected["inchikey"], rejected["profile"], rejected["batch_id"]) == (None,) * 4
    assert (waiting["profile"], waiting["batch_id"], waiting["scored_at"]) == (world.profile_key, None, None)


@pytest.mark.parametrize(
    ("policy", "public", "reason"),
    [
        (Policy(), False, f"withheld: {standing.PRIVATE}"),
        (Policy(compounds_per_day=1), True, f"withheld: {standing.DAILY_LIMIT}"),
        (Policy(new_compounds_per_scan=1), True, f"withheld: {standing.SCAN_LIMIT}"),
        (Policy(max_heavy_atoms=1), True, f"withheld: {standing.TOO_LARGE}"),
    ],
)
async def test_pending_says_what_it_waits_for(world: World, policy: Policy, public: bool, reason: str) -> None:
    world.policy = policy
    await world.upload(await world.target(public=public), ["C", "NN"])
    await world.reserve()
    assert [row["reason"] for row in await exported(world)][-1] == reason


async def test_pending_names_the_batch_it_is_in(world: World) -> None:
    await world.upload(await world.target(), ["C"])
    batch_id = await world.reserve() or 0
    await world.doubt(batch_id)
    (row,) = await exported(world)
    assert (row["disposition"], row["reason"]) == ("pending", f"in batch {batch_id}, which is unconfirmed")
    assert row["batch_id"] == batch_id


async def test_the_newest_extracted_upload_stands_in_for_the_current_one(world: World) -> None:
    target_id = await world.target()
    await world.upload(target_id, ["C"])
    second = await world.upload(target_id, ["N"])
    assert [row["smiles"] for row in await exported(world)] == ["N"]
    third = await world.upload(target_id, ["O"], extracted=False)
    rows = await exported(world)
    assert [row["smiles"] for row in rows] == ["N"]
    async with world.store.read() as session:
        assert rows[0]["upload_index"] == (await session.get_one(Upload, second)).upload_index
    await world.read(third, ["O"])
    assert [row["smiles"] for row in await exported(world)] == ["O"]


async def test_an_older_upload_that_is_current_again_is_shown(world: World) -> None:
    target_id = await world.target()
    first = await world.upload(target_id, ["C"])
    await world.upload(target_id, ["N"])
    async with world.store.write() as session:
        target = await session.get_one(Target, target_id)
        upload = await session.get_one(Upload, first)
        await legs.make_current(session, target, upload, keep_archive=False, now=world.now, why="down")
    assert [row["smiles"] for row in await exported(world)] == ["C"]


async def test_a_target_without_an_extracted_upload_has_no_rows(world: World) -> None:
    await world.target("empty")
    await world.upload(await world.target("listed"), ["C"], extracted=False)
    assert await exported(world) == []


async def test_targets_of_one_name_are_told_apart(world: World) -> None:
    ids = [await world.target("A", tas=tas) for tas in ("lb2", "lb1", "lb1")]
    for target_id, raw in zip(ids, ["C", "N", "O"], strict=True):
        await world.upload(target_id, [raw])
    assert [(row["target_access_string"], row["smiles"]) for row in await exported(world)] == [
        ("lb1", "N"), ("lb1", "O"), ("lb2", "C"),
    ]  # fmt: skip
    assert [row["smiles"] for row in await exported(world, ids[2])] == ["O"]
    async with world.store.read() as session:
        assert len(await targets.find_by_name(session, "A", None)) == 3
        assert len(await targets.find_by_name(session, "A", "lb1")) == 2


async def test_observations_of_one_compound_share_its_score(world: World) -> None:
    await world.upload(await world.target("A"), ["C", "C"])
    await world.upload(await world.target("B"), ["C"])
    await world.results(await world.buy() or 0, result("C"))
    assert [(row["target"], row["score"]) for row in await exported(world)] == [("A", 3.5), ("A", 3.5), ("B", 3.5)]


async def test_a_result_of_another_profile_stands_in(world: World) -> None:
    await world.upload(await world.target(), ["C", "N"])
    await world.results(await world.buy() or 0, result("C"))
    world.profile_key = "profile-2"
    async with world.store.write() as session:
        profile = await world.profile(session)
        await claims.add_missing(session, profile, world.policy, upload=None, scan_no=1, now=world.now)
    old, pending = await exported(world)
    assert (old["score"], old["profile"]) == (3.5, "profile-1")
    assert (pending["disposition"], pending["profile"]) == ("pending", "profile-2")
    await world.approve_profile()
    await world.results(await world.buy() or 0, result("C", value=2.0))
    row = (await exported(world))[0]
    assert (row["score"], row["profile"]) == (2.0, "profile-2")


async def test_of_several_results_the_last_that_agrees_is_shown(world: World) -> None:
    await world.upload(await world.target(), ["C"])
    batch_id = await world.buy() or 0
    await world.results(batch_id, result("C", value=3.0), result("C", value=4.0), result("C", "failed", -1.0))
    (row,) = await exported(world)
    assert (row["disposition"], row["score"], row["status"]) == ("scored", 4.0, "ok")


# Counts and waits


async def test_counts_and_the_oldest_that_waits(world: World) -> None:
    began = world.now
    target_id = await world.target()
    await world.target("empty")
    await world.change(await world.target("other"), followed=False)
    await world.upload(target_id, ["C", "N", "bad"])
    world.now += timedelta(hours=1)
    await world.buy(1)
    async with world.store.read() as session:
        counts = await overview.counts(session)
        oldest = await overview.oldest_pending(session)
        rows = await overview.targets_with_current(session)
        pending = await overview.pending(session)
        assert (await overview.pending(session, archives=False))["download"] == overview.Pending(0, None)
        marks = await overview.marks(session)
        assert await overview.followed(session) == 2
        assert await is_current(session)
    assert {stage: queue.units for stage, queue in pending.items() if queue.units} == {
        "download": 1, "submit": 1, "collect": 1, "finish": 1,
    }  # fmt: skip
    assert sorted((mark.name, mark.recorded_index is None, mark.last_success_at) for mark in marks) == [
        ("A", False, None), ("empty", True, None),
    ]  # fmt: skip
    assert counts.targets == {"followed": 2, "without_upload": 1, "not_followed": 1}
    assert (counts.archives, counts.scorings) == ({"wanted": 1}, {"extracted": 1})
    assert (counts.batches, counts.claims, counts.withheld) == ({"submitted": 1}, {"reserved": 1, "wanted": 1}, {})
    assert oldest == {
        "download": began, "extract": None, "submit": began, "reconcile": None, "collect": world.now, "finish": began,
    }  # fmt: skip
    assert [(target.name, upload is not None) for target, upload in rows] == [
        ("A", True), ("empty", False), ("other", False),
    ]  # fmt: skip


async def test_claims_of_a_profile_that_is_not_in_force_do_not_age(world: World) -> None:
    await world.upload(await world.target(), ["C"])
    world.profile_key = "profile-2"
    await world.review()
    async with world.store.read() as session:
        assert (await overview.oldest_pending(session))["submit"] is None
        assert (await overview.counts(session)).withheld == {standing.OTHER_PROFILE: 1}


async def test_a_pause_that_is_over_is_nothing_to_wait_for(world: World) -> None:
    """A claim is wanted that cannot be sent for another reason: nobody looks again at once, and for ever."""
    now = world.now
    async with world.store.write() as session:
        await open_condition(
            session,
            "molecule_one",
            "unreachable",
            reason="r",
            action="a",
            now=now,
            retry_at=now + timedelta(seconds=30),
        )
    async with world.store.read() as session:
        assert (await waits(session, archives=False)).next_at is None, "nothing is wanted"
    await world.upload(await world.target(), ["C"])
    for seconds, later, first_look in [(0, 30, None), (30, None, None), (40, None, None), (40, 50, 50), (0, 50, 50)]:
        async with world.store.read() as session:
            found = await waits(
                session,
                archives=False,
                first_look_at=None if first_look is None else now + timedelta(seconds=first_look),
                after=now + timedelta(seconds=seconds),
            )
        assert found.next_at == (None if later is None else now + timedelta(seconds=later)), seconds


async def test_an_archive_that_is_wanted_anew_comes_of_a_new_build(world: World) -> None:
    upload_id = await world.upload(await world.target(), ["C"])
    async with world.store.write() as session:
        upload, _ = await targets.upload_with_target(session, upload_id)
        upload.archive_task, upload.archive_task_at = "/viewer/task_status/1/", world.now
        legs.set_archive_state(session, upload, "wanted", now=world.now, why="observations appeared")
    async with world.store.read() as session:
        upload, _ = await targets.upload_with_target(session, upload_id)
        assert (upload.archive_task, upload.archive_task_at) == (None, None)


async def test_nothing_waits_for_a_target_that_is_not_listed(world: World) -> None:
    target = await world.target()
    await world.upload(target, ["C"], extracted=False)
    await world.change(target, listed=False)
    async with world.store.read() as session:
        assert await waits(session, archives=True) == Waits(None, at_work=False)
        assert await upload_queues.due_archives(session, world.now, "wanted") == []
        assert await upload_queues.due_extractions(session, world.now) == []
        found = await overview.pending(session)
        assert (found["download"].units, found["extract"].units) == (0, 0)
    await world.change(target, listed=True)
    async with world.store.read() as session:
        assert (await waits(session, archives=True)).next_at == world.now
        assert len(await upload_queues.due_archives(session, world.now, "wanted")) == 1
        assert len(await upload_queues.due_extractions(session, world.now)) == 1


async def test_waits_are_for_what_is_due_next_and_respect_pauses(world: World) -> None:
    now = world.now
    async with world.store.write() as session:
        (await instance(session)).scan_due_at = now + timedelta(hours=2)
    async with world.store.read() as session:
        assert await waits(session, archives=True) == Waits(now + timedelta(hours=2), at_work=False)
    await world.upload(await world.target(), ["C"])
    async with world.store.read() as session:
        assert (await waits(session, archives=True)).next_at == now  # the archive
        assert (await waits(session, archives=False)).next_at == now + timedelta(hours=2)
    batch_id = await world.buy() or 0
    async with world.store.write() as session:
        (await batches.get(session, batch_id)).due_at = now + timedelta(minutes=1)
    async with world.store.read() as session:
        assert await waits(session, archives=False) == Waits(now + timedelta(minutes=1), at_work=True)
    async with world.store.write() as session:
        await open_condition(
            session, "molecule_one", "credentials", reason="r", action="a", now=now, retry_at=now + timedelta(hours=1)
        )
    async with world.store.read() as session:
        assert await waits(session, archives=False) == Waits(now + timedelta(hours=1), at_work=False)


async def test_late_rows_are_waited_for(world: World) -> None:
    now = world.now
    target = await world.target()
    upload_id = await world.upload(target, ["C"])
    async with world.store.write() as session:
        upload, _ = await targets.upload_with_target(session, upload_id)
        upload.settle_due_at = now + timedelta(minutes=5)
    for due, expected in [(None, 5), (2, 2)]:  # what failed meanwhile is tried when it says, not before
        async with world.store.write() as session:
            upload, _ = await targets.upload_with_target(session, upload_id)
            upload.scoring_due_at = None if due is None else now + timedelta(minutes=due)
        async with world.store.read() as session:
            assert (await waits(session, archives=False)).next_at == now + timedelta(minutes=expected)
    await world.change(target, listed=False)
    async with world.store.read() as session:
        assert (await waits(session, archives=False)).next_at is None


async def test_uploads_are_settled_when_nothing_of_them_waits(world: World) -> None:
    world.policy = Policy(compounds_per_day=1)
    first = await world.upload(await world.target("A"), ["C", "bad"])
    second = await world.upload(await world.target("B"), ["N"])
    private = await world.upload(await world.target("P", public=False), ["P"])

    async def settled() -> list[int]:
        async with world.store.read() as session:
            return sorted(await claims.settled_uploads(session))

    assert await settled() == [private]
    batch_id = await world.buy() or 0
    assert await world.reserve() is None
    await world.results(batch_id, result("C"))
    assert await settled() == [first, private]  # over the daily limit still waits
    world.policy = Policy()
    await world.results(await world.buy() or 0, result("N", "failed", -1.0))
    assert await settled() == [first, second, private]
    world.policy = Policy(max_heavy_atoms=5)
    large = await world.upload(await world.target("D"), ["CCCCCC"])
    assert await settled() == [first, second, private, large]


# Conditions


async def test_a_condition_is_one_row_from_its_first_to_its_last_moment(world: World) -> None:
    began = world.now

    async def say(reason: str) -> None:
        async with world.store.write() as session:
            retry_at = world.now + timedelta(minutes=5)
            await open_condition(session, "s", "machine", reason=reason, action="a", now=world.now, retry_at=retry_at)

    with capture_logs() as logs:
        await say("first")
        world.now += timedelta(minutes=1)
        await say("second")
        async with world.store.write() as session:
            await open_condition(session, "s", "unexpected", reason="r", action="a", now=world.now)
        async with world.store.read() as session:
            condition = await find(session, "s", "machine")
            assert condition is not None
            assert (condition.since, condition.attempts, condition.reason) == (began, 2, "second")
            assert condition.retry_at == world.now + timedelta(minutes=5)
            assert [one.kind for one in await overview.needs_attention(session)] == ["machine", "unexpected"]
        async with world.store.write() as session:
            assert await close_condition(session, "s", "machine", "another", now=world.now) == 1
            assert await close_condition(session, "s", "machine", now=world.now) == 0
            assert await close_condition(session, "s", now=world.now) == 1
        async with world.store.read() as session:
            assert await all_open(session) == []
            assert await find(session, "s", "machine") is None
    assert [log["event"] for log in logs] == ["condition_opened"] * 2 + ["condition_closed"] * 2
    assert logs[2]["lasted_seconds"] == 60
    await say("again")
    async with world.store.read() as session:
        reopened = await find(session, "s", "machine")
        assert reopened is not None
        assert (reopened.attempts, reopened.since) == (1, world.now)


async def test_a_condition_said_twice_in_one_transaction_is_one(world: World) -> None:
    async with world.store.write() as session:
        for _ in range(2):
            await open_condition(session, "s", "machine", reason="r", action="a", now=world.now)
    async with world.store.read() as session:
        (condition,) = await all_open(session)
        assert condition.attempts == 2


# Who changed what


async def test_a_transition_is_written_and_said_with_its_context(world: World) -> None:
    with capture_logs() as logs, bound_contextvars(target="A"):
        async with world.store.write() as session:
            transitions.note(session, "batch", 7, "state", None, "submitting", at=world.now, why="due", who="someone")
    async with world.store.read() as session:
        row = (await session.scalars(select(Transition).where(Transition.entity_id == 7))).one()
    assert (row.entity, row.field, row.old, row.new, row.who, row.why) == (
        "batch", "state", None, "submitting", "someone", "due",
    )  # fmt: skip
    assert logs == [{
        "event": "batch_state_changed", "log_level": "info", "target": "A", "batch_id": 7, "old": None,
        "new": "submitting", "why": "due", "who": "someone",
    }]  # fmt: skip


# Compounds


async def test_what_was_stored_first_is_what_is_kept(world: World) -> None:
    await world.upload(await world.target(), ["C", "bad"])

    async def record(*verdicts: Verdict) -> None:
        async with world.store.write() as session:
            await compounds.record_verdicts(session, verdicts, chemistry="tomorrow", now=world.now)

    async with world.store.read() as session:
        known = (await session.scalars(select(Compound))).one()
        assert await compounds.unjudged(session, ["C", "bad", "new", "new"], "today") == ["new"]
        assert await compounds.unjudged(session, ["C", "bad"], "tomorrow") == ["bad"]
        found = {"c1": "KEY-C", "c2": "KEY-C", "C": "KEY-C", "x": "KEY-X", "y": ""}
        others = await compounds.other_spellings(session, found)
        assert {smiles: [one.id for one in same] for smiles, same in others.items()} == {
            "c1": [known.id], "c2": [known.id],
        }  # fmt: skip
    await record(Verdict("C", reason="unparsable"), Verdict("bad", smiles="B", inchikey="KEY-B", heavy_atoms=1))
    await record(Verdict("c1", smiles="c1", inchikey="KEY-C", heavy_atoms=1, compound_id=known.id))
    async with world.store.read() as session:
        rows = await session.execute(
            select(Alias.raw, Compound.smiles, Alias.reason)
            .outerjoin(Compound, Compound.id == Alias.compound_id)
            .order_by(Alias.id)
        )
        assert [tuple(row) for row in rows] == [("C", "C", None), ("bad", "B", None), ("c1", "C", None)]


async def test_a_second_reading_adds_and_corrects_and_takes_nothing_away(world: World) -> None:
    upload_id = await world.upload(await world.target(), ["C", "N", "O"])
    await world.read(upload_id, ["C", "S"])
    async with world.store.read() as session:
        rows = await session.execute(
            select(Observation.remote_id, Alias.raw).join(Alias, Alias.id == Observation.alias_id).order_by("remote_id")
        )
        assert [tuple(row) for row in rows] == [(1, "C"), (2, "S"), (3, "O")]


# What is asked every few seconds


async def test_frequent_questions_do_not_read_whole_tables(sqlite_settings: DatabaseSettings) -> None:
    asked: list[tuple[str, Any]] = []
    async with Store(sqlite_settings) as store:
        world = await World.begin(store)
        async with store.read() as session:
            await session.connection()

            @event.listens_for(store.engine.sync_engine, "before_cursor_execute")
            def remember(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
                asked.append((statement, parameters))

            await batches.due(session, world.now, "submitted", "finished", "collected")
            await batches.in_state(session, "submitting")
            await allowance.sendable(session, world.profile_key)
            await allowance.sent_within_a_day(session, world.now)
            await forgotten.reading_back(session)
            await claims.settled_uploads(session)
            await all_open(session)
            event.remove(store.engine.sync_engine, "before_cursor_execute", remember)
            assert len(asked) == 8
            connection = await session.connection()
            for statement, parameters in asked:
                plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                steps = [str(tuple(row)[3]) for row in plan]
                allowed = ("SCAN CONSTANT ROW", "SCAN condition USING INDEX uq_condition_open")
                assert [step for step in steps if step.startswith("SCAN ") and step not in allowed] == [], statement
