"""`watcher db check`: a sound record has no finding; each thing that must hold is found when it does not."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import insert, text

from tests.support.clock import START
from tests.support.pipeline import A, B, world
from watcher.pipeline.inventory import inventory
from watcher.settings import DatabaseSettings, DownloadSettings
from watcher.store import invariants
from watcher.store.engine import Store
from watcher.store.invariants import Finding
from watcher.store.schema import Base

pytest_plugins = ("tests.support.store",)
NOW = "'2026-03-01 12:00:00'"
NEW_CLAIM = (
    "INSERT INTO claim (id, compound_id, profile_id, round, state, scan_no, over_scan_limit, asked_by, created_at,"
    " changed_at) VALUES (900, 1, {profile}, 2, 'wanted', 1, false, 'me', '2020-01-01 00:00:00', '2020-01-01 00:00:00')"
)
NEW_PROFILE = (
    "INSERT INTO profile (id, key, api_version, normalised, created_at, approved_at)"
    f" VALUES (900, 'other', 'v2', 'x', {NOW}, {{approved}})"
)
NEW_ITEM = "INSERT INTO batch_item (id, batch_id, position, claim_id, live) VALUES (900, 1, 3, 1, true)"
NEW_CONDITION = (
    "INSERT INTO condition (id, subject, kind, reason, action, since, attempts)"
    f" VALUES (900, 'batch 1', 'lost', 'r', 'a', {NOW}, 1)"
)
BREAK: dict[str, tuple[str, ...]] = {
    "reserved, but in no batch": ("UPDATE batch_item SET live = false WHERE id = 1",
                                  "UPDATE claim SET state = 'reserved' WHERE id = 1"),
    "free to be sent, but in a batch already": ("UPDATE claim SET state = 'wanted' WHERE id = 1",),
    "in two batches at once": ("DROP INDEX uq_batch_item_live", NEW_ITEM),
    "ended without a score that says so": ("UPDATE score SET kind = 'failed' WHERE claim_id = 1",),
    "has a result, but is free to be sent again": (
        "UPDATE batch_item SET live = false WHERE claim_id = 1", "UPDATE claim SET state = 'wanted' WHERE id = 1"),
    "ended with a result, but no batch holds it any more": (
        "UPDATE batch_item SET live = false WHERE claim_id = 1",),
    "withheld or failed without a reason": ("UPDATE claim SET state = 'failed' WHERE id = 1",),
    "free to be sent under a profile that nobody approved": (
        NEW_PROFILE.format(approved="NULL"), NEW_CLAIM.format(profile=900)),
    "free to be sent while another profile is in force": (
        NEW_PROFILE.format(approved=NOW), NEW_CLAIM.format(profile=1),
        NEW_CLAIM.format(profile=900).replace("(900, 1", "(901, 1")),
    "its size does not agree with its items": ("UPDATE batch SET size = 7 WHERE id = 1",),
    "at the service, but without its id there or the time of it": ("UPDATE batch SET remote_id = NULL WHERE id = 1",),
    "would never be looked at again: nothing is due": ("UPDATE batch SET state = 'submitted' WHERE id = 1",),
    "finished without the time of it": (
        f"UPDATE batch SET state = 'finished', finished_at = NULL, due_at = {NOW} WHERE id = 1",),
    "collected without the times of it": ("UPDATE batch SET collected_at = NULL WHERE id = 1",),
    "unconfirmed without the time since when": (f"UPDATE batch SET state = 'unconfirmed', due_at = {NOW}",),
    "closed without the time of it": ("UPDATE batch SET state = 'closed' WHERE id = 1",),
    "released without the time of it": ("UPDATE batch SET state = 'released' WHERE id = 1",),
    "closed or released, but holds compounds that wait for it": (
        f"UPDATE batch SET state = 'released', closed_at = {NOW} WHERE id = 1",
        "UPDATE claim SET state = 'reserved' WHERE id = 1"),
    "collected, but compounds still wait for it": ("UPDATE claim SET state = 'reserved' WHERE id = 1",),
    "its current upload belongs to another target, or to none": (
        "UPDATE target SET current_upload_id = 77 WHERE id = 1",),
    "its archive is stored without path, digest or size": ("UPDATE upload SET archive_sha256 = NULL WHERE id = 1",),
    "its archive is another upload's too": (
        "UPDATE upload SET archive_path = (SELECT archive_path FROM upload WHERE id = 2) WHERE id = 1",),
    "its archive would never be fetched: nothing is due": (
        "UPDATE upload SET archive_state = 'wanted', archive_due_at = NULL WHERE id = 1",),
    "a build at the server without the time of it, or the other way round": (
        "UPDATE upload SET archive_task = '/viewer/task_status/x/' WHERE id = 1",),
    "would never be read: nothing is due": (
        "UPDATE upload SET scoring_state = 'detected', scoring_due_at = NULL WHERE id = 1",),
    "extracted or scored without the time of it": ("UPDATE upload SET scored_at = NULL WHERE id = 1",),
    "set aside without a reason": ("UPDATE upload SET scoring_state = 'quarantined' WHERE id = 1",),
    "its SMILES has no verdict: neither a compound nor a reason": (
        "UPDATE alias SET compound_id = NULL, reason = NULL WHERE id = 1",),
    "its payload does not agree with its digest": ("UPDATE batch SET payload = 'other' WHERE id = 1",),
    "unconfirmed, but nobody is told: there is no open condition": (
        f"UPDATE batch SET state = 'unconfirmed', unconfirmed_at = {NOW}, due_at = {NOW} WHERE id = 1",),
    "lost, but nobody is told: there is no open condition": ("UPDATE batch SET state = 'lost' WHERE id = 1",),
    "an open condition says lost, but the batch is not": (NEW_CONDITION,),
    "the record has no name of its own at the service": ("DELETE FROM instance",),
}  # fmt: skip

ADVICE = {
    "has a result, but is free to be sent again": "stop the program before it buys anything more",
    "ended with a result, but no batch holds it any more": "stop the program before it buys anything more",
    "free to be sent, but in a batch already": "stop the program before it buys anything more",
    "in two batches at once": "stop the program before it buys anything more",
    "free to be sent under a profile that nobody approved": "stop the program before it buys anything more",
    "free to be sent while another profile is in force": "stop the program before it buys anything more",
    "its archive is stored without path, digest or size": "`watcher retry` does not see it",
    "set aside without a reason": "`watcher retry` takes it up again",
    "its payload does not agree with its digest": "restore a backup; batches bought since are read back",
    "unconfirmed, but nobody is told: there is no open condition": "`watcher batches show`",
    "lost, but nobody is told: there is no open condition": "`watcher batches show`",
    "an open condition says lost, but the batch is not": "`watcher batches show`",
    "the record has no name of its own at the service": "restore a backup; batches bought since are read back",
}
"""What is said to do about it; about all else it is to report it."""


@dataclass
class Sound:
    """What a run over the sandbox left behind."""

    database: Path
    downloads: Path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """A record after a whole run, with an upload that came later and one that was taken back."""
    folder = tmp_path_factory.mktemp("sound")

    async def run() -> None:
        async with world(folder) as job:
            await job.once()
            job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9"), ("A0401a", "no molecule", "Z10")])
            await job.once()
            job.sandbox.fragalysis.withdraw(*A)
            job.sandbox.fragalysis.touch(*B)
            job.clock.advance(3600)
            await job.once()

    with pytest.MonkeyPatch.context():
        asyncio.run(run())
    return Sound(folder / "watcher.db", folder / "downloads")


@pytest.fixture
async def store(sound: Sound, database: DatabaseSettings, tmp_path: Path) -> AsyncIterator[Store]:
    """The record of that run, on each database in turn."""
    copy = tmp_path / "copy.db"
    shutil.copyfile(sound.database, copy)
    async with Store(DatabaseSettings(url=SecretStr(f"sqlite+aiosqlite:///{copy}"))) as source:
        if database.url.get_secret_value().startswith("sqlite"):
            yield source
            return
        async with Store(database) as store:
            async with source.read() as reading, store.write() as writing:
                await writing.execute(text("DELETE FROM instance"))
                for table in Base.metadata.sorted_tables:
                    rows = (await reading.execute(table.select())).mappings().all()
                    if rows:
                        await writing.execute(insert(table), [dict(row) for row in rows])
            yield store
            async with store.write() as writing:  # the database is shared with other tests
                for table in reversed(Base.metadata.sorted_tables):
                    await writing.execute(table.delete())
                await writing.execute(
                    Base.metadata.tables["instance"].insert(),
                    {"id": 1, "name": "a-record-of-tests", "created_at": START, "program_version": "1", "scan_no": 0,
                     "scan_attempts": 0},
                )  # fmt: skip


async def findings(store: Store) -> list[Finding]:
    async with store.read() as session:
        return await invariants.integrity(session, sqlite=store.is_sqlite) + await invariants.broken(session)


async def test_a_sound_record_has_no_finding(store: Store, sound: Sound) -> None:
    assert await findings(store) == []
    assert await inventory(store, DownloadSettings(directory=sound.downloads)) == []


class _Undo(Exception):
    pass


async def broken_by(store: Store, *statements: str) -> list[Finding]:
    """What is found within a transaction that is taken back."""
    found: list[Finding] = []
    with suppress(_Undo):
        async with store.write() as session:
            if store.is_sqlite:
                await session.execute(text("PRAGMA ignore_check_constraints = ON"))
            elif any("alias SET" in one for one in statements):
                await session.execute(text("ALTER TABLE alias DROP CONSTRAINT ck_alias_one_verdict"))
            for statement in statements:
                await session.execute(text(statement))
            found = await invariants.broken(session)
            raise _Undo
    return found


async def test_every_rule_is_tried() -> None:
    assert {what for _, what, _, _ in invariants.RULES} <= set(BREAK)


async def test_what_must_hold_is_found_when_it_does_not(store: Store) -> None:
    kinds = {"claim", "batch", "target", "upload", "observation", "instance"}
    for what, statements in BREAK.items():
        found = {one.what: one for one in await broken_by(store, *statements)}
        assert what in found, (what, list(found))
        assert ADVICE.get(what, "report it with a copy of the record") in found[what].action, what
        assert found[what].where.split()[0] in kinds
    assert await findings(store) == []


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("DROP INDEX uq_batch_item_live", "index uq_batch_item_live is missing, or is not what it should be"),
        ("ALTER TABLE upload DROP COLUMN archive_error", "column upload.archive_error is missing"),
        ("DROP TABLE outbox", "table outbox is missing"),
    ],
)
async def test_a_schema_that_lacks_something_is_found(store: Store, statement: str, what: str) -> None:
    with suppress(_Undo):
        async with store.write() as session:
            await session.execute(text(statement))
            found = await invariants.integrity(session, sqlite=store.is_sqlite)
            assert [(one.where, one.what) for one in found] == [("schema", what)]
            assert "restore a backup" in found[0].action
            assert "`watcher db upgrade` does not bring back" in found[0].action
            raise _Undo


async def test_a_reference_to_nothing_and_a_broken_page_are_found(sound: Sound, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    shutil.copyfile(sound.database, copy)
    settings = DatabaseSettings(url=SecretStr(f"sqlite+aiosqlite:///{copy}"))
    async with Store(settings, upgrading=True) as store:
        async with store.write() as session:
            await session.execute(text("UPDATE observation SET alias_id = 77 WHERE id = 1"))
        async with store.read() as session:
            (found,) = await invariants.integrity(session, sqlite=True)
            page = await session.scalar(text("SELECT rootpage FROM sqlite_master WHERE name = 'ix_alias_compound_id'"))
            size = await session.scalar(text("PRAGMA page_size"))
    assert found.where.startswith("observation")
    assert "backup" in found.action

    def scribble() -> None:
        with copy.open("r+b") as file:
            file.seek((page - 1) * size + 20)
            file.write(b"\xff" * (size - 40))

    await asyncio.to_thread(scribble)
    async with Store(settings, read_only=True) as store, store.read() as session:
        found_now = await invariants.integrity(session, sqlite=True)
    assert any("the database says" in one.what for one in found_now)
    assert all("restore a backup" in one.action for one in found_now)
