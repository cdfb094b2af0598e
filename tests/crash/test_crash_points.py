"""The daemon is killed at each point of `watcher.points` and started again: nothing is lost, nothing bought twice."""

import shutil
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Literal

import pytest

from tests.crash.scene import REMOTE_ID, TARGET, Case, Kill, Version, play_all, processes_in, scene
from tests.support.process import eventually
from watcher.points import POINTS
from watcher.sandbox import Fault
from watcher.store import migrate

pytest_plugins = ("tests.support.store",)

pytestmark = pytest.mark.timeout(300)  # a busy machine is no failure

VERSIONS: tuple[Version, ...] = ("v1", "v2")
SIGNALS: tuple[Literal["KILL", "TERM"], ...] = ("KILL", "TERM")
BY: dict[Version, Literal["KILL", "TERM"]] = {"v1": "TERM", "v2": "KILL"}
"""What ends the commands that are ended again and again."""

BEFORE: dict[str, tuple[Kill, ...]] = {
    "unpack.moved-aside": (Kill("download.pointed"),),
    "reconcile.doubted": (Kill("submit.answered"),),
    "reconcile.found": (Kill("submit.answered"),),
    "reconcile.concluding": (Kill("submit.answered"),),
    "reconcile.concluded": (Kill("submit.answered"),),
    "adopt.recording": (Kill("submit.answered"), Kill("reconcile.doubted")),
    "release.recording": (Kill("submit.intended"), Kill("reconcile.doubted")),
}
"""What must have happened before a point can be reached."""
COMMANDS: dict[str, tuple[str, ...]] = {
    "adopt.recording": ("batches", "adopt", "1", REMOTE_ID),
    "release.recording": ("batches", "release", "1", "--yes"),
}
"""The command that reaches a point, where it is not the daemon."""
TWICE = ("submit.intending", "submit.intended", "submit.answered", "submit.recorded", "collect.recorded")
"""Points at which the second time is worth a kill of its own: the record then knows a batch already."""
RECORD = (
    "migrate.changing",
    "scan.recording",
    "extract.recording",
    "submit.intending",
    "submit.intended",
    "submit.answered",
    "submit.recording",
    "submit.recorded",
    "reconcile.found",
    "reconcile.concluding",
    "collect.recording",
    "collect.recorded",
    "collect.deleted",
    "finish.recording",
    "release.recording",
)
"""Points at which another record is another matter."""
UPGRADE = ("backup.written", "backup.named", "migrate.changing", "migrate.changed")
"""Points of the upgrade of an older record, in their order."""
UPGRADE_ON_SERVER = ("migrate.changing", "migrate.changed")
"""The same where the server sees to copies."""
PRUNE = ("prune.intended", "prune.set-aside", "prune.removed")
"""Points of the removal of an archive, in their order."""
LEFT = ("receive.renamed", "unpack.renamed", "download.pointed")
"""Points at which an archive lies under its name, and does not count as stored yet."""
RESTORE = ("restore.copied", "restore.begun", "restore.log-aside", "restore.aside", "restore.done")
"""Points of going back to a copy, in their order."""
NEXT = '''
"""Made up."""
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("addition", sa.Column("id", sa.Integer(), primary_key=True))
'''
COMMITS = 26
"""As many commits as a daemon makes from an empty record to the end of this small work."""
SURE = 23
"""As many as it makes at least: results that come late come together, in fewer commits."""
ANSWER = 16
"""The commit of the first answer to a purchase."""
ASKED_TO_END = (8, ANSWER - 1, ANSWER)
"""Commits around which the daemon is asked to end, too: of what it has read, of an intent, and of its answer."""
SIDES = ("store.committing", "store.committed")
"""Points before and after any commit."""
COMMIT_ON_POSTGRES = [
    Case((Kill(side, ANSWER),), version, "postgres") for side, version in zip(SIDES, VERSIONS, strict=True)
]
AT_POINTS = [one for one in POINTS if not one.startswith(("store.", "backup.", "prune.", "restore."))]
"""Points with ends that are cases of their own."""
BY_HAND = {
    "upgrade": 1 + len(UPGRADE),
    "upgrade on postgres": 1 + len(UPGRADE_ON_SERVER),
    "removal": len(PRUNE),
    "left": 1,
    "restore": 2 + len(RESTORE),
    "daily copy": 3,
    "copy by hand": 3,
}
"""How often the tests that tell a story end the program at a point."""


WAYS_DIFFER = ("submit.", "reconcile.", "collect.")
"""What is done around these points differs between the versions of the API."""


def cases_of(point: str, on: Literal["sqlite", "postgres"] = "sqlite") -> Iterator[Case]:
    """Every way in which a daemon may end at a point."""
    for version, by in product(VERSIONS, SIGNALS):
        takes_turns = not point.startswith(WAYS_DIFFER) and (len(point) % 2 == 0) == (version == "v1")
        if by == "TERM" and takes_turns:
            continue  # where the versions are alike, one of them at each point
        listing = point != "adopt.recording"
        for nth in (1, 2) if point in TWICE and by == "KILL" else (1,):
            last = Kill(point, nth, by, COMMANDS.get(point, ("run",)))
            yield Case((*BEFORE.get(point, ()), last), version, on, listing=listing)


def cases_around(nth: int) -> Iterator[Case]:
    """End the daemon on both sides of a commit: on one side in one version, on the other side in the other."""
    for number, side in enumerate(SIDES):
        for by in SIGNALS if nth in ASKED_TO_END else SIGNALS[:1]:
            yield Case((Kill(side, nth, by),), VERSIONS[(nth + number) % 2], never_reached=nth > SURE)


def cases_on_postgres(point: str) -> Iterator[Case]:
    """One way at each point, for what differs between the versions is not the record."""
    version = VERSIONS[RECORD.index(point) % 2]
    for one in cases_of(point, "postgres"):
        if (one.version, one.kills[-1].nth, one.kills[-1].by) == (version, 1, "KILL"):
            yield one


def ends_in_the_longer_proofs() -> Counter[str]:
    """Count, by database, how often the longer proofs end the program at a point, as far as each is sure to."""
    cases = [
        *(case for point in AT_POINTS for case in cases_of(point)),
        *(case for nth in range(1, SURE + 1) for case in cases_around(nth)),
        *(case for point in RECORD for case in cases_on_postgres(point)),
        *COMMIT_ON_POSTGRES,
        *(case for version in VERSIONS for case in cases_without_listing(version)),
    ]
    counted = Counter[str]()
    for case in cases:
        counted[case.on] += len(case.kills)
    for what, ends in BY_HAND.items():
        on = "postgres" if what.endswith("postgres") else "sqlite"
        counted[on] += ends * {"upgrade": 2, "removal": 2, "left": len(LEFT), "restore": 2}.get(what, 1)
    return counted


def cases_without_listing(version: Version) -> Iterator[Case]:
    """End the daemon when only a person can know what was bought."""
    for nth in (1, 2):
        yield Case((Kill("submit.answered", nth),), version, listing=False)


def test_a_few_kills_that_matter_most(tmp_path: Path) -> None:
    play_all(
        [
            Case((Kill("submit.answered"),), "v1"),
            Case((Kill("submit.answered"), Kill("reconcile.found")), "v2"),
            Case((Kill("submit.intended", by="TERM"),), "v1"),
            Case((Kill("receive.written"),), "v2"),
            Case((Kill("download.pointed"), Kill("collect.recorded")), "v1"),
        ],
        tmp_path,
    )


@pytest.mark.slow
@pytest.mark.parametrize("point", AT_POINTS)
def test_ended_at_a_point(point: str, tmp_path: Path) -> None:
    play_all(list(cases_of(point)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_kills_and_the_check_rest_on(version: Version, tmp_path: Path) -> None:
    """As many commits as are said, and a child process that is seen while there is one."""
    with scene(tmp_path / "scene", version) as stage:
        with stage.launched("--tell", SIDES[1], "--", "run") as daemon:
            eventually(lambda: len(processes_in(stage.folder)) == 2)
            eventually(stage.is_settled)
            assert daemon.stop() == 0
        commits = sum(line == f"launch: reached {SIDES[1]}\n" for line in daemon.stderr)
        assert SURE <= commits <= COMMITS
        stage.check()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, COMMITS + 1, 5))
def test_killed_around_each_commit(first: int, tmp_path: Path) -> None:
    play_all([one for nth in range(first, min(first + 5, COMMITS + 1)) for one in cases_around(nth)], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_an_upgrade_that_is_ended_again_and_again(
    version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_an_upgrade_again_and_again(version, "sqlite", UPGRADE, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.postgres
def test_an_upgrade_on_postgresql_that_is_ended_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_server: None
) -> None:
    end_an_upgrade_again_and_again("v2", "postgres", UPGRADE_ON_SERVER, tmp_path, monkeypatch)


def end_an_upgrade_again_and_again(
    version: Version,
    on: Literal["sqlite", "postgres"],
    points: Sequence[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    migrations = tmp_path / "migrations"
    shutil.copytree(migrate.migrations_directory(), migrations, ignore=shutil.ignore_patterns("__pycache__"))
    (migrations / "versions" / "0002_made_up.py").write_text(NEXT, encoding="utf-8")
    with scene(tmp_path / "scene", version, on) as stage:
        stage.kill(Kill("submit.recorded"))
        stage.options = ("--migrations", str(migrations))
        for point in points:
            assert stage.answer("SELECT version_num FROM alembic_version") == [("0001",)]
            # A daemon that is asked to end while it starts would finish the upgrade first.
            command = ("db", "upgrade") if version == "v1" and point != points[-1] else ("run",)
            stage.kill(Kill(point, by=BY[version], command=command))
        assert stage.answer("SELECT version_num FROM alembic_version") == [("0002",)]
        stage.settle()
        monkeypatch.setattr(migrate, "HEAD", "0002")
        stage.check()
        assert stage.killed == BY_HAND["upgrade" if on == "sqlite" else "upgrade on postgres"]


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_a_removal_that_is_ended_again_and_again(version: Version, tmp_path: Path) -> None:
    with scene(tmp_path / "scene", version) as stage:
        stage.desk.set("download", keep_uploads=1)
        stage.settle()
        stage.publish([("A0400a", "CCC", "Z9")])
        stage.settle()
        old = stage.folder / "downloads" / TARGET[1] / TARGET[0] / "1"
        assert old.is_dir()
        for point in PRUNE:
            stage.kill(Kill(point, by=BY[version], command=("prune",)))
            assert stage.answer("SELECT archive_state FROM upload ORDER BY id") == [("pruned",), ("stored",)]
        stage.desk.call("prune")
        stage.check()
        assert not old.exists()
        assert stage.killed == BY_HAND["removal"]


@pytest.mark.slow
@pytest.mark.parametrize("point", LEFT)
def test_what_is_left_of_an_upload_that_is_passed_over(point: str, tmp_path: Path) -> None:
    with scene(tmp_path / "scene", VERSIONS[LEFT.index(point) % 2]) as stage:
        stage.kill(Kill(point))
        stage.publish([("A0400a", "CCC", "Z9")])
        stage.settle()
        stage.check()
        stage.desk.call("once")  # it is not whole: it is noted, then removed
        stage.desk.call("prune")
        stage.check()
        left = "skipped" if point == "receive.renamed" else "pruned"  # in its temporary folder it has no place yet
        assert stage.answer("SELECT archive_state, archive_path IS NULL FROM upload ORDER BY id") == [
            (left, 1), ("stored", 0)
        ]  # fmt: skip
        folder = stage.folder / "downloads" / TARGET[1] / TARGET[0] / "1"
        assert not folder.exists() or not any(folder.iterdir())
        assert stage.killed == BY_HAND["left"]


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_a_restore_that_is_ended_again_and_again(version: Version, tmp_path: Path) -> None:
    with scene(tmp_path / "scene", version) as stage:
        stage.desk.set("molecule_one", delete_after_collect=False)  # what is deleted cannot be read back
        stage.settle()
        stage.desk.call("db", "backup", "copy.db")
        if version == "v1":  # it has no names by which a purchase that the copy forgets could be recognised
            stage.publish([("A0400a", "CCO", "Z9")])
            stage.kill(Kill("extract.recorded"))  # its log is left
        else:
            stage.publish([("A0400a", "CCC", "Z9"), ("A0401a", "CCCC", "Z10"), ("A0402a", "CCCCC", "Z11")])
            stage.kill(Kill("collect.recorded"))
        for point in RESTORE:
            stage.kill(Kill(point, by=BY[version], command=("db", "restore", "copy.db")))
            assert len(list(stage.folder.glob(".watcher.db.*.part"))) == (point == "restore.copied")
            if point not in ("restore.copied", "restore.done"):
                with stage.launched("--", "run") as refused:
                    assert refused.wait() == 1
                    assert any("was interrupted" in line for line in refused.stderr)
        (replaced,) = stage.folder.glob("watcher.db.replaced-*Z")
        assert rows_of("upload", replaced) == 2, "its log belongs to it"
        stage.kill(Kill("restore.copied", by=BY[version], command=("db", "restore", "copy.db")))
        stage.settle()
        stage.check()
        assert stage.killed == BY_HAND["restore"]


@pytest.mark.slow
def test_a_daily_copy_that_is_killed(tmp_path: Path) -> None:
    with scene(tmp_path / "scene", "v1") as stage:
        copies = stage.folder / "backups"
        stage.kill(Kill("submit.recorded"))
        with closing(sqlite3.connect(stage.desk.record)) as record, record:
            record.execute("UPDATE instance SET created_at = '2026-01-01 00:00:00'")
        stage.kill(Kill("backup.written"))
        (unnamed,) = copies.iterdir()
        assert unnamed.suffix == ".part"
        stage.kill(Kill("backup.named"))
        assert not unnamed.exists()
        (named,) = copies.glob("watcher.db.*")
        assert len(list(copies.iterdir())) == 2
        named = named.rename(copies / "watcher.db.20260102T000000Z")  # a day or more goes by
        stage.settle(once_said="record_backed_up")
        stage.check()
        assert {named} < {*copies.iterdir()} == {*copies.glob("watcher.db.*")}
        assert all(rows_of("batch", copy) > 0 for copy in [*copies.iterdir()])
        assert stage.killed == BY_HAND["daily copy"]


@pytest.mark.slow
def test_a_copy_by_hand_that_is_ended(tmp_path: Path) -> None:
    with scene(tmp_path / "scene", "v2") as stage:
        backup, copy = ("db", "backup", "copy.db"), stage.folder / "copy.db"
        stage.kill(Kill("collect.recorded"))
        stage.kill(Kill("backup.written", command=backup))
        assert not copy.exists()
        stage.kill(Kill("backup.named", by="TERM", command=backup))
        assert len(list(stage.folder.glob(".copy.db.*.part"))) == 1, "what the one before left is gone"
        first = copy.rename(stage.folder / "first.db")
        stage.desk.call(*backup)
        assert [(rows_of("batch", copy),)] == [(rows_of("batch", first),)] == stage.answer("SELECT count(*) FROM batch")
        stage.settle()
        stage.check()
        assert stage.killed == BY_HAND["copy by hand"]


def rows_of(table: str, copy: Path) -> int:
    """Return how many rows of a table a copy holds; it must be sound."""
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.parametrize("point", RECORD)
def test_ended_at_a_point_on_postgresql(point: str, tmp_path: Path, postgres_server: None) -> None:
    play_all([*cases_on_postgres(point)], tmp_path)


@pytest.mark.slow
@pytest.mark.postgres
def test_killed_around_a_commit_on_postgresql(tmp_path: Path, postgres_server: None) -> None:
    play_all(COMMIT_ON_POSTGRES, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_what_cannot_be_proven_waits_for_a_person(version: Version, tmp_path: Path) -> None:
    play_all([*cases_without_listing(version)], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("version", VERSIONS)
def test_ended_while_the_service_does_not_answer_a_purchase(
    version: Version, number: signal.Signals, tmp_path: Path
) -> None:
    silent = Fault("molecule_one", "hold_after", match={"method": "POST"})
    with scene(tmp_path / "scene", version) as stage:
        stage.desk.set("daemon", shutdown_timeout="3s")  # the service does not answer within that either
        stage.served.do(lambda sandbox: sandbox.add_fault(silent))
        with stage.launched("--", "run") as daemon:
            eventually(lambda: stage.served.purchases)
            assert daemon.stop(number) == (0 if number is signal.SIGTERM else -number)
        stage.served.do(lambda sandbox: sandbox.clear_faults())
        stage.settle()
        stage.check()
