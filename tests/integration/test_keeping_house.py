"""Superseded archives, old history and the daily copies: what goes, what never goes, and what a crash leaves."""

import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockbuster import BlockBuster
from sqlalchemy import select
from structlog.testing import capture_logs

from tests.support.clock import START, FakeClock
from tests.support.pipeline import ROWS_A, A, Job, QuickChemistry, until, world
from tests.support.record import DAY, World
from watcher import points, schedule
from watcher.archives import removal
from watcher.errors import Invalid, Ours
from watcher.pipeline import prune
from watcher.pipeline.backup import Backup
from watcher.pipeline.inventory import inventory
from watcher.pipeline.stage import Context
from watcher.pipeline.verify import Verify
from watcher.program import opened
from watcher.settings import DatabaseSettings, Settings
from watcher.store import backups, invariants, legs, retention, targets
from watcher.store.conditions import close_condition, open_condition
from watcher.store.engine import Store
from watcher.store.schema import Batch, Claim, Condition, Observation, Outbox, Score, Transition, Upload

pytest_plugins = ("tests.support.store",)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def _the_tests_look_at_files(blockbuster: BlockBuster) -> None:
    blockbuster.deactivate()


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the program end at a point."""

    def arm(name: str) -> None:
        def hook(reached: str) -> None:
            if reached == name:
                raise Killed(name)

        monkeypatch.setattr(points, "hook", hook)

    return arm


@dataclass
class House:
    """A record with one target, and archives on the disk."""

    world: World
    settings: Settings
    target: int

    @property
    def store(self) -> Store:
        return self.world.store

    @property
    def folder(self) -> Path:
        return self.settings.download.directory / "lb1" / "A"

    @property
    def context(self) -> Context:
        return cast("Context", SimpleNamespace(store=self.store, settings=self.settings, clock=FakeClock()))

    async def publish(self) -> int:
        """Record an upload with its archive, as if it had been downloaded."""
        upload_id = await self.world.upload(self.target, ["C"])
        async with self.store.write() as session:
            upload, _ = await targets.upload_with_target(session, upload_id)
            folder = self.folder / str(upload.upload_index)
            (folder / "files" / "aligned").mkdir(parents=True)
            (folder / "files" / "aligned" / "a.pdb").write_text("ATOM")
            (folder / "A.tar.gz").write_text("archive")
            legs.set_archive_state(session, upload, "stored", now=START, why="downloaded")
            upload.archive_path = str((folder / "A.tar.gz").relative_to(self.settings.download.directory))
            upload.archive_sha256 = removal_digest(folder / "A.tar.gz")
            upload.archive_size, upload.archive_verified_at = 7, START
        current = self.folder / "current"
        current.unlink(missing_ok=True)
        current.symlink_to(folder.name)
        return upload_id

    async def states(self) -> list[str]:
        async with self.store.read() as session:
            return list(await session.scalars(select(Upload.archive_state).order_by(Upload.id)))

    async def prune(self) -> list[int]:
        """Remove what is not kept; return the uploads."""
        async with self.store.read() as session:
            found = await prune.superseded(session, self.settings)
        return [one.upload_id for one in found if await prune.remove(self.store, self.settings, one, now=START)]

    @property
    def on_disk(self) -> list[str]:
        """The folders of the uploads that are there, and what is in the making within them."""
        parts = [path.name for path in self.folder.rglob(".*.part")]
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir() and not path.is_symlink()) + parts


def removal_digest(path: Path) -> str:
    from watcher.archives import digest

    return digest(path)


@pytest.fixture
async def house(tmp_path: Path, world: World) -> House:
    settings = Settings().replace("download", directory=tmp_path / "downloads")
    return House(world, settings, await world.target())


async def test_the_newest_and_the_current_archive_are_kept(house: House) -> None:
    uploads = [await house.publish() for _ in range(4)]
    assert await house.prune() == uploads[:2]
    assert await house.states() == ["pruned", "pruned", "stored", "stored"]
    assert len(house.on_disk) == 2
    assert (house.folder / "current" / "A.tar.gz").is_file()
    async with house.store.read() as session:
        first, _ = await targets.upload_with_target(session, uploads[0])
        assert (first.archive_path, first.archive_size) == (None, 7)
        last = (await session.scalars(select(Transition).order_by(Transition.id))).all()[-1]
        assert (last.old, last.new, last.why) == ("stored", "pruned", "download.keep_uploads is 2")
        assert await invariants.broken(session) == []
    assert await inventory(house.store, house.settings.download) == []
    assert await house.prune() == []


@pytest.mark.parametrize("whole", [True, False])
async def test_what_a_download_that_was_superseded_left_takes_the_place_of_no_archive_unless_it_is_one(
    house: House, whole: bool
) -> None:
    """Where it would lie is noted before it lies there: often there is nothing."""
    uploads = [await house.publish() for _ in range(2)]
    async with house.store.write() as session:
        upload, _ = await targets.upload_with_target(session, uploads[1])
        legs.set_archive_state(session, upload, "wanted", now=START, why="observations appeared")
    if not whole:
        removal.set_aside(house.folder / str(upload.upload_index) / "A.tar.gz", house.folder / "no files")
        removal.remove_set_aside(house.folder / str(upload.upload_index))
    uploads.append(await house.publish())
    assert await house.states() == ["stored", "skipped", "stored"]
    assert await house.prune() == []
    await Verify(house.context).step(uploads[1])
    assert await house.prune() == (uploads[:1] if whole else uploads[1:2])
    assert await house.states() == (["pruned", "stored", "stored"] if whole else ["stored", "pruned", "stored"])
    assert len(house.on_disk) == 2
    assert await inventory(house.store, house.settings.download) == []


@pytest.mark.parametrize(("keep", "left"), [(0, 4), (1, 2), (3, 3), (9, 4)])
async def test_what_counts_now_is_kept_whatever_its_time(house: House, keep: int, left: int) -> None:
    uploads = [await house.publish() for _ in range(4)]
    house.settings = house.settings.replace("download", keep_uploads=keep)
    async with house.store.write() as session:
        oldest, target = await targets.upload_with_target(session, uploads[0])
        await legs.make_current(session, target, oldest, keep_archive=True, now=START, why="the index went down")
    # With one kept, `current` still points at the newest: the check of the older archive was not made yet.
    await house.prune()
    states = await house.states()
    assert states[0] == "stored"
    assert (states.count("stored"), len(house.on_disk)) == (2 if keep == 1 else left, left)
    assert (house.folder / "current").exists()


async def test_without_downloads_nothing_is_touched(house: House) -> None:
    for _ in range(3):
        await house.publish()
    house.settings = house.settings.replace("download", enabled=False)
    assert await house.prune() == []


@pytest.mark.parametrize("point", ["prune.intended", "prune.set-aside", "prune.removed"])
async def test_a_removal_that_was_killed_is_taken_up(house: House, point: str, kill_at: Callable[[str], None]) -> None:
    uploads = [await house.publish() for _ in range(3)]
    kill_at(point)
    with pytest.raises(Killed):
        await house.prune()
    points.hook = None
    assert await house.states() == ["pruned", "stored", "stored"]
    assert await house.prune() == uploads[:1]
    assert len(house.on_disk) == 2
    async with house.store.read() as session:
        assert (await targets.upload_with_target(session, uploads[0]))[0].archive_path is None


async def test_an_upload_that_counts_again_is_left_to_its_download(
    house: House, kill_at: Callable[[str], None]
) -> None:
    uploads = [await house.publish() for _ in range(3)]
    async with house.store.read() as session:
        (pruned, *_) = await prune.superseded(session, house.settings)
    kill_at("prune.intended")
    with pytest.raises(Killed):
        await house.prune()
    points.hook = None
    async with house.store.write() as session:
        upload, target = await targets.upload_with_target(session, uploads[0])
        await legs.make_current(session, target, upload, keep_archive=True, now=START, why="the index went down")
    assert (await house.states())[0] == "wanted"
    assert not await prune.remove(house.store, house.settings, pruned, now=START)
    assert len(house.on_disk) == 3


async def test_nothing_that_is_not_ours_is_removed(house: House, tmp_path: Path) -> None:
    await house.publish()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    (folder,) = (path for path in house.folder.iterdir() if not path.is_symlink())
    (folder / "files" / "link").symlink_to(outside)
    (folder / "notes.txt").write_text("mine")
    await house.publish()
    await house.publish()
    assert len(await house.prune()) == 1
    assert (outside / "precious").read_text() == "mine"
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "path", ["/etc/a/1/x", "../lb1/A/1/A.tar.gz", "lb1/A/current/A.tar.gz", "lb1/A/x", "link/A/1/x"]
)
def test_only_places_of_archives_are_places(tmp_path: Path, path: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(Invalid):
        removal.folder_of(tmp_path, path)
    assert removal.folder_of(tmp_path, "lb1/A/1/A.tar.gz") == tmp_path / "lb1" / "A" / "1"


async def test_old_history_goes_and_nothing_else(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "CHUNK", 2)
    await house.publish()
    await house.world.buy()
    old, now = START - 400 * DAY, START
    async with house.store.write() as session:
        for at in (*[old] * 5, now):
            session.add(Transition(entity="x", entity_id=1, field="f", at=at, who="w", why="y"))
        for subject, until in (("over", old), ("just over", now), ("open", None)):
            await open_condition(session, subject, "machine", reason="r", action="a", now=old - DAY)
            if until:
                await close_condition(session, subject, now=until)
        for sent in (old, now, None):
            session.add(Outbox(address=1, event="e", subject="s", body="b", created_at=old, sent_at=sent))
    gone = await prune.forget_history(house.store, house.settings, now)
    assert gone == {"transitions": 5, "conditions": 1, "notifications": 1}
    async with house.store.read() as session:
        assert {one.subject for one in await session.scalars(select(Condition))} == {"just over", "open"}
        assert {one.sent_at for one in await session.scalars(select(Outbox))} == {now, None}
        for model in (Upload, Observation, Claim, Batch):
            assert (await session.scalars(select(model))).all() != []
        assert (await session.scalars(select(Score))).all() == []
    assert not any((await prune.forget_history(house.store, house.settings, now)).values())
    for_ever = house.settings.replace("database", keep_transitions="0s")
    assert await prune.forget_history(house.store, for_ever, now + 4000 * DAY) == {}


# In the program


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[Job]:
    async with world(tmp_path) as job:
        yield job


async def test_the_program_keeps_house_by_itself(job: Job) -> None:
    folder = job.downloads / A[1] / A[0]
    job.set("download", keep_uploads=1)
    async with job.run() as runner:
        await job.again(runner)
        job.sandbox.fragalysis.add_upload(*A, [*ROWS_A, ("A0400a", "CCC", "Z9")])
        await job.again(runner)
        assert (folder / "1").is_dir()
        await runner.keep_house()
        await job.later(runner, minutes=1)
        assert not (folder / "1").exists()
        job.sandbox.fragalysis.withdraw(*A)  # what was pruned counts again
        await job.again(runner)
    assert (folder / "current").readlink() == Path("1")
    assert (folder / "current" / "files").is_dir()
    assert await job.conditions() == {}


def copies(job: Job) -> list[Path]:
    return sorted((Path(job.file).parent / "backups").glob("*"))


async def test_a_copy_is_made_once_a_day_and_the_oldest_make_room(job: Job) -> None:
    job.set("database", backup_keep=2)
    await job.once()
    assert copies(job) == [], "a record of today needs none"
    for day in range(1, 4):
        job.clock.advance(DAY)
        for _ in range(2):  # also of a program that is started again and again
            await job.once()
        assert len(copies(job)) == min(day, 2)
    assert copies(job)[-1].name == f"watcher.db.{job.clock.now():%Y%m%dT%H%M%S}Z"
    for copy in copies(job):
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        with closing(sqlite3.connect(copy)) as opened:
            assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert opened.execute("SELECT count(*) FROM claim").fetchone() == (4 - 1,)


async def test_a_copy_that_fails_is_said_and_holds_nothing_up(job: Job) -> None:
    job.clock.advance(timedelta())
    await job.once()
    place = Path(job.file).parent / "backups"
    place.write_text("in the way")
    job.clock.advance(DAY)
    job.sandbox.fragalysis.add_upload(*A, [*ROWS_A, ("A0400a", "CCC", "Z9")])
    async with job.run() as runner:
        await job.again(runner)
        assert "backups" in (await job.conditions())["backup: backup_failed"]
        assert "CCC" in job.bought
        place.unlink()
        await runner.keep_house()
        await job.later(runner, minutes=1)
    assert await job.conditions() == {}
    assert len(copies(job)) == 1


async def test_a_copy_for_which_the_disk_has_no_room_is_made_by_the_daemon_later(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fills up while the pages are written; what is bought meanwhile does not wait."""
    job.set("download", enabled=False)
    await job.once()
    with closing(sqlite3.connect(job.file)) as record, record:
        record.execute("UPDATE instance SET created_at = '2020-01-01 00:00:00.000000'")
    connect, begun, full = sqlite3.connect, 0, True

    def connect_to_a_small_disk(database: str | Path, *more: Any, **options: Any) -> sqlite3.Connection:
        nonlocal begun
        connection: sqlite3.Connection = connect(database, *more, **options)
        if str(database).endswith(".part"):
            begun += 1
            connection.execute(f"PRAGMA max_page_count = {8 if full else 10**6}")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_to_a_small_disk)
    monkeypatch.setattr(schedule, "KEEP_HOUSE", timedelta(seconds=0.2))
    job.sandbox.fragalysis.add_upload(*A, [*ROWS_A, ("A0400a", "CCC", "Z9")])
    failures: list[BaseException] = []

    with capture_logs() as logs:
        async with (
            opened(job.settings, "run", chemistry=QuickChemistry()) as program,
            schedule.working(job.settings, program, failures.append),
        ):
            await until(lambda: begun >= 3 and "CCC" in job.bought)
            (reason,) = [one for kind, one in (await job.conditions()).items() if kind == "backup: backup_failed"]
            assert "disk is full" in reason
            folder = Path(job.file).parent / "backups"
            await until(lambda: not [*folder.iterdir()])  # but while a copy is tried
            full = False
            await until(lambda: copies(job))
            await until(lambda: any(one["event"] == "condition_closed" for one in logs))
    assert failures == []
    assert await job.conditions() == {}
    assert len(copies(job)) == 1
    assert [(one["event"], one["subject"]) for one in logs if "condition" in one["event"]] == [
        ("condition_opened", "backup"),
        ("condition_closed", "backup"),
    ]


async def test_a_copy_that_is_not_sound_is_no_copy(
    sqlite_settings: DatabaseSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Store(sqlite_settings) as store:
        await World.begin(store)
    with (tmp_path / "watcher.db").open("r+b") as file:
        file.seek(8 * 4096)
        file.write(b"\xff" * 4096)
    async with Store(sqlite_settings) as store:
        with pytest.raises(Ours, match="could not be written"):
            await backups.make(store, tmp_path / "watcher.db", tmp_path / "backups", START)
    assert list((tmp_path / "backups").iterdir()) == []


async def test_there_is_no_copy_of_postgresql(store: Store) -> None:
    stage = Backup(cast("Context", SimpleNamespace(store=store, settings=Settings(), clock=FakeClock())))
    async with store.read() as session:
        assert await stage.due(session) == []
        stage.ask()
        assert await stage.due(session) == ([1] if store.is_sqlite else [])


def at(day: int) -> datetime:
    return datetime(2026, 1, day, tzinfo=UTC)


def test_a_copy_is_due_when_a_day_has_passed() -> None:
    born, future = at(1), {Path("later"): at(30)}
    assert not backups.is_due({}, born, at(1) + timedelta(hours=23))
    assert backups.is_due({}, born, at(2))
    assert not backups.is_due({Path("x"): at(5)}, born, at(5) + timedelta(hours=23))
    assert backups.is_due({Path("x"): at(5), **future}, born, at(6)), "a clock that was wrong holds nothing up"
    made = {Path(str(day)): at(day) for day in range(1, 6)} | future
    assert backups.too_many(made, 3, at(5)) == [Path("2"), Path("1"), Path("later")]
