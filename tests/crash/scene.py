"""A daemon that is killed and started again in a tiny world, and what must hold of it in the end."""

import asyncio
import json
import signal
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from typer.testing import CliRunner

from tests.crash.launched import LAUNCHER, Launched
from tests.support.inbox import Inbox
from tests.support.process import Served, Workplace, eventually
from tests.support.record import SERVER
from watcher.cli import app
from watcher.cli.export import Format, write_table
from watcher.settings_source import load

Version = Literal["v1", "v2"]
Row = tuple[str, str, str]

_ONE_AT_A_TIME = threading.Lock()  # a command that is called in this process has the process's output for itself
REMOTE_ID = "<remote id of the first batch>"
TARGET = ("A71EV2A", "lb32627-66")
FIRST: tuple[Row, ...] = (
    ("A0310a", "CCO", "Z1"),
    ("A0311a", "CCN", "Z2"),
    ("A0312a", "OCC", "Z3"),
    ("A0313a", "c1ccccc1O", "Z4"),
)
"""Four observations of three compounds: two batches of two at most."""


@dataclass(frozen=True)
class Kill:
    """One start that ends at a point: by SIGKILL; or by SIGTERM, in order if it is the daemon, else at once."""

    at: str
    nth: int = 1
    by: Literal["KILL", "TERM"] = "KILL"
    command: tuple[str, ...] = ("run",)

    @property
    def repeats_a_message(self) -> bool:
        """Whether a message is out of which the record does not know: it is sent once more, and never again."""
        return (self.at, self.by) == ("notify.sent", "KILL")

    @property
    def exit_code(self) -> int:
        """How the start ends if it reaches the point."""
        in_order = self.by == "TERM" and self.command == ("run",)
        return 0 if in_order else -signal.Signals[f"SIG{self.by}"]

    def __str__(self) -> str:
        return f"{self.at}:{self.nth} {self.by}"


@dataclass(frozen=True)
class Case:
    """Starts that end at points, one after the other, before the one that nobody disturbs."""

    kills: tuple[Kill, ...]
    version: Version = "v2"
    on: Literal["sqlite", "postgres"] = "sqlite"
    listing: bool = True
    """Whether the service lists its batches; a doubtful one that it took is then found without a person."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict, hash=False)
    never_reached: bool = False
    """Whether the last point may lie beyond the end of the work."""

    @property
    def is_told(self) -> bool:
        """Whether somebody is told of what happens."""
        return any(kill.at.startswith("notify.") for kill in self.kills)

    def __str__(self) -> str:
        return f"{self.version} {self.on} " + ", ".join(map(str, self.kills))


class NothingThere(Exception):
    """There is no record yet, no table yet, or a log that is just being made."""


class Scene:
    """One sandbox, one record, and the daemons that work on it one after the other."""

    def __init__(self, folder: Path, served: Served, *, version: Version, database: str | None) -> None:
        self.folder = folder
        self.served = served
        self.database = database
        self.options: tuple[str, ...] = ()
        """What the launcher is told at every start from now on."""
        self.killed = 0
        """How many starts ended at a point."""
        self.rows: list[Row] = []
        self.uploads = 0
        self.desk = Workplace(folder, served)
        self.desk.set("download", enabled=True, directory=str(folder / "downloads"))
        self.desk.set("molecule_one", api_version=version, batch_size=2, delete_after_collect=True)
        server = f"postgresql+asyncpg://postgres@{SERVER}/{database}"
        self.desk.set("database", url=server if database else f"sqlite+aiosqlite:///{self.desk.record}")
        served.do(lambda sandbox: sandbox.fragalysis.add_target(*TARGET))
        self.publish(FIRST)

    def publish(self, rows: Sequence[Row]) -> None:
        """Bring an upload with these observations beside the earlier ones."""
        self.rows += rows
        self.uploads += 1
        self.served.do(lambda sandbox: sandbox.fragalysis.add_upload(*TARGET, rows))

    @contextmanager
    def launched(self, *arguments: str) -> Iterator[Launched]:
        """Start a command by the launcher; it is killed at the end if it still runs, and leaves no child behind."""
        self.desk.configure()
        process = LAUNCHER.start(self.folder, [*self.options, *arguments])
        try:
            yield process
        except AssertionError as error:
            error.add_note("".join(process.stderr[-40:]))
            raise
        finally:
            process.end()
        eventually(lambda: not processes_in(self.folder))

    def kill(self, one: Kill, *, must: bool = True) -> bool:
        """Start a command that ends at a point; say whether it got there."""
        at = ("--at", f"{one.at}:{one.nth}", "--signal", one.by, "--", *self._filled(one.command))
        with self.launched(*at) as process:
            if not must:
                eventually(lambda: process.ended or self.is_settled())
                process.send(signal.SIGTERM)  # it may still get there before it ends
            code = process.wait()
            reached = any(one.at in line for line in process.stderr if line.startswith("launch: reached"))
            assert reached or not must, f"{one.at} was not reached, the end was {code}"
            assert code == (one.exit_code if reached else 0)
        self.killed += reached
        return reached

    def _filled(self, command: Sequence[str]) -> list[str]:
        """Put the id at the service in where a command names it."""
        return [self.bought(1) or "?" if word == REMOTE_ID else word for word in command]

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the record beside whoever uses it; nothing while there is none."""
        try:
            return self.answer(sql)
        except NothingThere:
            return []

    def answer(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the record, which must be there. Raises NothingThere."""
        if self.database is not None:
            return asyncio.run(_ask_server(self.database, sql))
        mode = "ro" if Path(f"{self.desk.record}-wal").exists() else "rw"
        try:
            with closing(sqlite3.connect(f"file:{self.desk.record}?mode={mode}", uri=True)) as connection:
                connection.execute("PRAGMA query_only=ON")
                return connection.execute(sql).fetchall()
        except sqlite3.OperationalError as error:
            raise NothingThere(str(error)) from error

    @property
    def compounds(self) -> set[str]:
        """The molecules to be bought, by today's one spelling of each."""
        return {"CCO" if smiles == "OCC" else "Oc1ccccc1" if smiles == "c1ccccc1O" else smiles
                for _, smiles, _ in self.rows}  # fmt: skip

    def in_doubt(self) -> list[int]:
        """Return the batches of which nobody knows, and that were looked for without a find."""
        rows = self.query("SELECT id FROM batch WHERE state = 'unconfirmed' AND (looks > 0 OR attempts = 0)")
        return [row[0] for row in rows]

    def is_settled(self) -> bool:
        """Say whether everything that was published is stored and scored, and nothing is left to do."""
        upload = self.query(
            "SELECT u.upload_index, u.archive_state, u.scoring_state FROM target t JOIN upload u"
            " ON u.id = t.current_upload_id"
        )
        if [tuple(row) for row in upload] != [(self.uploads, "stored", "scored")]:
            return False
        if any(self.query("SELECT id FROM claim WHERE state IN ('wanted', 'reserved')")):
            return False
        if any(self.query("SELECT id FROM outbox WHERE sent_at IS NULL")):
            return False
        return not self.query(
            "SELECT id FROM batch WHERE state NOT IN ('collected', 'closed', 'released')"
            " OR (state = 'collected' AND due_at IS NOT NULL)"
        )

    def bought(self, batch: int) -> str | None:
        """Return the id at the service of what a batch holds, if it was bought."""
        held = {
            row[0]
            for row in self.query(
                "SELECT c.smiles FROM batch_item i JOIN claim l ON l.id = i.claim_id"
                f" JOIN compound c ON c.id = l.compound_id WHERE i.batch_id = {batch}"
            )
        }
        books = self.served.do(lambda sandbox: list(sandbox.molecule_one.ledger.batches))
        return next((booking.batch_id for booking in books if set(booking.smiles) == held), None)

    def settle(self, *, listing: bool = True, once_said: str = "daemon_ready") -> None:
        """Start the daemon undisturbed, decide by hand what only a person can, and end it in order."""
        with self.launched("--", "run") as daemon:

            def settled_or_doubtful() -> bool:
                if daemon.ended:
                    raise AssertionError("the daemon ended by itself")
                return self.is_settled() or any(self._waits_for_a_person(one, listing) for one in self.in_doubt())

            daemon.said(once_said)  # before that a signal ends it without a word, and there is nothing to drain
            eventually(settled_or_doubtful)
            while not self.is_settled():
                for batch in self.in_doubt():
                    if self._waits_for_a_person(batch, listing):
                        self._decide(batch)
                eventually(settled_or_doubtful)
            assert daemon.stop() == 0

    def _waits_for_a_person(self, batch: int, listing: bool) -> bool:
        """Say so of what was not bought, and of what cannot be found: all else the program must find by itself."""
        return not listing or self.bought(batch) is None

    def _decide(self, batch: int) -> None:
        remote_id = self.bought(batch)
        decision = ("release", str(batch), "--yes") if remote_id is None else ("adopt", str(batch), remote_id)
        self.desk.call("batches", *decision)

    def check(self) -> None:
        """Hold the record against the ledger and the disk. Nothing runs any more."""
        with _ONE_AT_A_TIME:
            sound = CliRunner().invoke(app, ["--config", str(self.folder / "config.toml"), "db", "check"])
        assert sound.exit_code == 0, sound.output
        assert self.served.purchases == dict.fromkeys(self.compounds, 1)
        seen = {row[0] for row in self.query("SELECT upload_index FROM upload")}
        assert seen == set(range(1, self.uploads + 1))
        scored = self.query("SELECT c.smiles, count(*) FROM score s JOIN claim l ON l.id = s.claim_id"
                            " JOIN compound c ON c.id = l.compound_id GROUP BY c.smiles")  # fmt: skip
        assert dict(scored) == dict.fromkeys(self.compounds, 1)
        books = self.served.do(lambda sandbox: {booking.batch_id for booking in sandbox.molecule_one.ledger.batches})
        recorded = {row[0] for row in self.query("SELECT remote_id FROM batch WHERE remote_id IS NOT NULL")}
        assert recorded == books
        downloads = self.folder / "downloads"
        archives = {str(path.relative_to(downloads)) for path in downloads.glob("*/*/[0-9]*/*") if path.name != "files"}
        assert archives <= {row[0] for row in self.query("SELECT archive_path FROM upload")}
        settings = load(self.folder / "config.toml", environ={})
        table = self.folder / "scores.jsonl"
        asyncio.run(write_table(settings, Format.JSONL, None, table))
        exported = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
        assert {row["code"] for row in exported} == {code for code, _, _ in self.rows}
        assert all(row["scored_at"] and row["batch_id"] for row in exported)
        assert sorted(path.name for path in self.folder.rglob("*.part*")) == []
        current = self.folder / "downloads" / TARGET[1] / TARGET[0] / "current"
        assert current.readlink() == Path(str(self.uploads))
        assert any((current / "files").rglob("*.sdf")) or any((current / "files").rglob("*.csv"))
        assert processes_in(self.folder) == []


async def _ask_server(database: str, sql: str) -> list[tuple[Any, ...]]:
    import asyncpg

    connection = await asyncpg.connect(f"postgresql://postgres@{SERVER}/{database}", timeout=10)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    except asyncpg.UndefinedTableError as error:
        raise NothingThere(str(error)) from error
    finally:
        await connection.close()


def processes_in(folder: Path) -> list[int]:
    """Return the processes at work in a folder: the daemon, and its children, which inherit the folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                if (process / "cwd").readlink() == folder:
                    found.append(int(process.name))
            except OSError:  # gone, or not ours
                continue
    return found


@contextmanager
def scene(folder: Path, version: Version, on: str = "sqlite", **options: Any) -> Iterator[Scene]:
    """A scene in a folder of its own."""
    from tests.support.store import database_like  # a plugin, which must not be imported before it is one

    folder.mkdir()
    with ExitStack() as stack:
        database = stack.enter_context(database_like(None)) if on == "postgres" else None
        served = stack.enter_context(Served(catalogue=None, build_polls=0, **options))
        yield Scene(folder, served, version=version, database=database)


def play(case: Case, folder: Path) -> None:
    """Play one case to its end."""
    with ExitStack() as stack:
        stage = stack.enter_context(scene(folder, case.version, case.on))
        inbox = stack.enter_context(Inbox()) if case.is_told else None
        if inbox is not None:
            stage.desk.set("notify", urls=[inbox.url])
        if not case.listing:
            stage.served.do(lambda sandbox: setattr(sandbox.molecule_one.listing, "form", "missing"))
            stage.desk.set("molecule_one", unconfirmed_window="2s")  # so long nothing is sent without the list
        for section, values in case.settings.items():
            stage.desk.set(section, **values)
        doubtful = False
        for kill in case.kills:
            stage.kill(kill, must=not case.never_reached)
            if kill.by == "TERM" and not doubtful:
                assert stage.answer("SELECT id FROM batch WHERE state IN ('submitting', 'unconfirmed')") == []
            doubtful = doubtful or kill.by == "KILL"
        stage.settle(listing=case.listing)
        stage.check()
        if inbox is not None:
            messages = [(post["title"], post["message"]) for post in inbox.posts]
            assert messages == messages[:1] * (1 + sum(kill.repeats_a_message for kill in case.kills))
            assert messages[0][0] == f"{TARGET[0]} {TARGET[1]} upload 1"


def play_all(cases: Sequence[Case], folder: Path, *, at_once: int = 3) -> None:
    """Play several cases at once, each in a world of its own; tell of every one that failed."""
    with ThreadPoolExecutor(at_once) as pool:
        playing = [(case, pool.submit(play, case, folder / str(number))) for number, case in enumerate(cases)]
    failures = [(case, failure) for case, future in playing if (failure := future.exception())]
    for case, failure in failures:
        failure.add_note(f"in the case {case}")
    if failures:
        raise BaseExceptionGroup("cases failed", [failure for _, failure in failures])
