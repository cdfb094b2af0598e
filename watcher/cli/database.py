"""`watcher db`: schema, soundness and a safety copy of the record."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watcher.cli.common import log_quietly, now, record, settings_of
from watcher.cli.output import UsageProblem, counted, say

if TYPE_CHECKING:
    from watcher.settings import Settings
    from watcher.store.migrate import Upgrade

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Upgrade, check or copy the record.")


@app.command()
def upgrade(context: typer.Context) -> None:
    """Bring the record up to the schema of this program.

    A new one is made if there is none. `watcher run` and `watcher once` do so by themselves at their start. SQLite is
    copied beside itself first.
    """
    settings = settings_of(context)
    log_quietly(settings)
    done = asyncio.run(_upgrade(settings))
    if done.before == done.after:
        say(f"The record has schema {done.after} already.")
        return
    say(f"The record went from schema {done.before or 'none'} to {done.after}.")
    if done.backup:
        say(f"It was copied to {done.backup} first.")


async def _upgrade(settings: "Settings") -> "Upgrade":
    import uuid

    from watcher.store import migrate
    from watcher.store.engine import Store
    from watcher.store.lock import InstanceLock

    async with Store(settings.database) as store:
        if await migrate.revision(store) == migrate.HEAD:
            return migrate.Upgrade(migrate.HEAD, migrate.HEAD, None)
        async with InstanceLock(store, "db upgrade"):
            return await migrate.upgrade(store, name=uuid.uuid4().hex[:12], now=now())


@app.command()
def check(context: typer.Context) -> None:
    """Check that the record is sound.

    That is its schema, the database's own integrity, the stored archives, and what must hold between the rows. It reads
    every stored archive, which takes a while, and changes nothing. Exit code 1 when something is wrong.
    """
    settings = settings_of(context)
    log_quietly(settings)
    findings = asyncio.run(_check(settings))
    for finding, advice in findings:
        say(f"wrong: {finding}")
        say(f"  what to do: {advice}")
    if findings:
        say(f"{counted(len(findings), 'finding')}. Make a copy with `watcher db backup FILE` before any change.")
        raise typer.Exit(1)
    say("ok: schema, integrity, foreign keys, stored archives and invariants")


_RESTORE = (
    "stop the program and restore a backup; batches bought since are read back from the service where it lists them"
)
_REPORT = "this is a fault of the program: please report it with a copy of the record"
_FETCH = "nothing by hand: `watcher run` or `watcher once` fetches it again"


async def _check(settings: "Settings") -> list[tuple[str, str]]:
    from watcher.archives import digest
    from watcher.store import lookups

    async with record(settings) as store:
        async with store.read() as session:
            broken = await lookups.integrity(session, sqlite=store.is_sqlite)
        if broken:
            return [(f"the database says: {words}", _RESTORE) for words in broken]
        async with store.read() as session:
            findings = [(words, _REPORT) for words in await lookups.broken_invariants(session)]
            archives = await lookups.stored_archives(session)
    root = settings.download.directory.absolute()
    for name, path, sha256 in archives:
        place = root / path
        if not await asyncio.to_thread(place.is_file):
            findings.append((f"{name}: the stored archive {place} is gone", _FETCH))
        elif await asyncio.to_thread(digest, place) != sha256:
            findings.append((f"{name}: the stored archive {place} does not agree with its digest", _FETCH))
    return findings


@app.command()
def backup(
    context: typer.Context, file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file for the copy.")]
) -> None:
    """Copy the record to a new file.

    Also while `watcher run` uses it. For SQLite; use pg_dump for PostgreSQL.
    """
    settings = settings_of(context)
    log_quietly(settings)
    if file.exists():
        raise UsageProblem(f"{file} is there already and is left as it is; name a new file")
    asyncio.run(_backup(settings, file))
    say(f"The record is copied to {file}.")


async def _backup(settings: "Settings", file: Path) -> None:
    from watcher.store import migrate

    async with record(settings) as store:
        await migrate.backup(store, file)
