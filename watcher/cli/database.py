"""`watcher db`: schema, soundness and a safety copy of the record."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watcher.cli.common import AsJson, log_quietly, now, record, settings_of
from watcher.cli.output import UsageProblem, clean, counted, say, say_json

if TYPE_CHECKING:
    from watcher.settings import Settings
    from watcher.store.invariants import Finding
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


_PATIENCE = timedelta(hours=1)
"""Reading every page of a large record takes longer than a transaction may."""


@app.command()
def check(context: typer.Context, as_json: AsJson = False) -> None:
    """Check that the record is sound, in itself and against the disk.

    That is its schema, the database's own integrity, what must hold between the rows, the stored archives, and what
    else lies in their folders. It reads every stored archive, which takes a while, and changes nothing; also while
    `watcher run` uses the record. A line for each finding says where, what, and what to do. Exit code 1 when there is
    one.
    """
    settings = settings_of(context)
    log_quietly(settings)
    findings = asyncio.run(_check(settings))
    if as_json:
        say_json([{"where": one.where, "what": one.what, "action": one.action} for one in findings])
    else:
        for one in findings:
            say(f"wrong: {clean(one.where)}: {clean(one.what)}; what to do: {clean(one.action)}")
        if findings:
            say(f"{counted(len(findings), 'finding')}. Make a copy with `watcher db backup FILE` before any change.")
        else:
            say("ok: schema, integrity, foreign keys, invariants, stored archives and their folders")
    raise typer.Exit(1 if findings else 0)


async def _check(settings: "Settings") -> "list[Finding]":
    from watcher.pipeline.inventory import inventory
    from watcher.store import invariants

    patient = settings.replace("database", timeout=max(settings.database.timeout, _PATIENCE))
    async with record(patient) as store:
        async with store.read() as session:
            found = await invariants.integrity(session, sqlite=store.is_sqlite)
        if found:  # what rows say is worth nothing then
            return found
        async with store.read() as session:
            found = await invariants.broken(session)
        return found + await inventory(store, settings.download)


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
