"""Keeping house by hand: `prune`, `db restore`, `db upgrade --dry-run`."""

import fcntl
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.process import Served, Workplace
from watcher import __version__
from watcher.store import migrate

TARGET = ("A71EV2A", "lb32627-66")
NEXT = '''
"""Give every target a colour."""
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0002", "0001", None, None


def upgrade() -> None:
    op.add_column("target", sa.Column("colour", sa.Text()))
'''


def query(file: Path, sql: str) -> Sequence[tuple[object, ...]]:
    with closing(sqlite3.connect(file)) as connection, connection:
        return connection.execute(sql).fetchall()


def add_older_upload(record: Path, current: Path) -> Path:
    """Let there be one more stored upload before the current one; return its folder."""
    (found,) = query(record, "SELECT count(*) FROM upload")
    old = current.with_name(str(100 + int(str(found[0]))))
    shutil.copytree(current, old)
    with closing(sqlite3.connect(record)) as connection, connection:
        connection.execute("CREATE TEMP TABLE one AS SELECT * FROM upload WHERE archive_state = 'stored'")
        connection.execute("UPDATE one SET id = id + ?1, upload_index = ?1, committed_at = '2020-01-01 00:00:00',"
                           " archive_path = replace(archive_path, ?2, ?3)",
                           [int(old.name), f"/{current.name}/", f"/{old.name}/"])  # fmt: skip
        connection.execute("INSERT INTO upload SELECT * FROM one")
    return old


def test_prune_says_first_and_then_does(desk: Workplace) -> None:
    assert "no record" in desk.call("prune", exit_code=1).stderr
    desk.set("download", enabled=True, keep_uploads=1)
    desk.set("fragalysis", targets=["A71EV2A"])
    desk.call("once")
    folder = desk.folder / "downloads" / TARGET[1] / TARGET[0]
    current = folder / (folder / "current").readlink()
    old = add_older_upload(desk.record, current)
    query(desk.record, "UPDATE transition SET at = '2020-01-01 00:00:00' WHERE id <= 3")
    before = sorted(desk.folder.rglob("*"))

    said = desk.call("prune", "--dry-run").stdout
    assert str(old) in said
    assert "1 archive would be removed, " in said
    assert "History would be removed: 3 transitions." in said
    assert sorted(path for path in desk.folder.rglob("*")) == before
    said = desk.call("prune").stdout
    assert "1 archive removed, " in said
    assert (old.exists(), current.exists()) == (False, True)
    (row,) = query(desk.record, "SELECT who FROM transition WHERE new = 'pruned'")
    assert row != ("watcher",), "the person who typed it"
    assert "0 archives removed, 0 bytes.\nHistory removed: none." in desk.call("prune").stdout
    desk.call("db", "check")

    add_older_upload(desk.record, current)
    elsewhere = desk.folder / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    assert "is a link" in desk.call("prune", exit_code=1).stderr


@pytest.mark.slow
def test_a_restored_record_reads_back_what_it_has_forgotten(desk: Workplace, served: Served) -> None:
    desk.set("molecule_one", api_version="v2")
    desk.set("fragalysis", targets=["ZIKV*"])
    desk.call("db", "upgrade")
    desk.call("db", "backup", "copy.db")
    desk.call("once")
    bought = served.purchases
    with (desk.folder / "watcher.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "is in use by" in desk.call("db", "restore", "copy.db", exit_code=1).stderr
    for file, code, words in (("nothing.db", 2, "no file"), ("config.toml", 1, "no sound SQLite file"),
                              ("watcher.db", 2, "the record itself")):  # fmt: skip
        assert words in desk.call("db", "restore", file, exit_code=code).stderr
    assert query(desk.record, "SELECT count(*) FROM batch") != [(0,)]

    done = desk.call("db", "restore", "copy.db")
    assert "last scan never. It is the record now." in done.stdout
    assert "reads back" in done.stdout
    assert not done.stderr
    assert query(desk.record, "SELECT count(*) FROM batch") == [(0,)]
    (kept,) = desk.folder.glob("watcher.db.replaced-*Z")
    assert query(kept, "SELECT count(*) FROM batch") != [(0,)]
    desk.call("once")
    assert served.purchases == bought
    desk.call("db", "check")


def test_what_a_restore_cannot_promise_is_said(desk: Workplace) -> None:
    desk.call("db", "upgrade")
    desk.call("db", "backup", "copy.db")
    query(desk.record, "INSERT INTO profile (id, key, api_version, normalised, created_at)"
                       " VALUES (1, 'k', 'v1', '{}', '2020-01-01')")  # fmt: skip
    query(desk.record, "INSERT INTO batch (id, token, profile_id, state, size, payload, payload_digest, created_at,"
                       " sent_at, attempts, looks) VALUES (1, 't', 1, 'closed', 1, '', '', '2020-01-01', '2020-01-01',"
                       " 0, 0)")  # fmt: skip
    query(desk.record, "UPDATE instance SET name = 'another'")
    said = desk.call("db", "restore", "copy.db").stderr
    assert "v1 keeps no names" in said
    assert "has another name at Molecule.one (another, " in said
    desk.set("database", url="postgresql+asyncpg://postgres@127.0.0.1/none")
    assert "pg_restore" in desk.call("db", "restore", "copy.db", exit_code=1).stderr


def test_an_upgrade_is_told_before_it_is_made(desk: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "one would be made" in desk.call("db", "upgrade", "--dry-run").stdout
    assert not desk.record.exists()
    desk.call("db", "upgrade")
    assert "nothing would be done" in desk.call("db", "upgrade", "--dry-run").stdout
    assert desk.json("status")["program_version"] == __version__
    assert f"written by version {__version__}" in desk.call("check").stdout

    folder = tmp_path / "migrations"
    shutil.copytree(migrate.migrations_directory(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "0002_colour.py").write_text(NEXT)
    with monkeypatch.context() as newer:
        newer.setattr(migrate, "migrations_directory", lambda: folder)
        newer.setattr(migrate, "HEAD", "0002")
        newer.setattr(migrate, "__version__", "7.8.9")
        before = desk.record.read_bytes()
        said = desk.call("db", "upgrade", "--dry-run").stdout
        assert "from schema 0001 to 0002:\n  0002: Give every target a colour." in said
        assert "copied beside itself first, which takes " in said
        assert desk.record.read_bytes() == before
        desk.call("db", "upgrade")
    for arguments in (["db", "upgrade", "--dry-run"], ["db", "upgrade"], ["once"]):
        refused = desk.call(*arguments, exit_code=1).stderr
        assert "schema 0002" in refused
        assert "written by version 7.8.9" in refused
    assert "of version 7.8.9" in desk.call("status", exit_code=1).stderr
    assert "of version 7.8.9" in desk.call("check", exit_code=1).stdout
