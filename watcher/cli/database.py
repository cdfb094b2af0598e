"""`watcher db`: schema, soundness and a safety copy of the record."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watcher.cli.common import AsJson, log_quietly, now, record, settings_of
from watcher.cli.output import UsageProblem, counted, say, say_json, size
from watcher.errors import WatcherError

if TYPE_CHECKING:
    from watcher.settings import Settings
    from watcher.store.invariants import Finding
    from watcher.store.migrate import Planned, Upgrade
    from watcher.store.restore import Restored

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Upgrade, check, copy or restore the record.")


@app.command()
def upgrade(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
) -> None:
    """Bring the record up to the schema of this program.

    A new one is made if there is none. `watcher run` and `watcher once` do so by themselves at their start. SQLite is
    copied beside itself first.
    """
    settings = settings_of(context)
    log_quietly(settings)
    if dry_run:
        _say_planned(asyncio.run(_planned(settings)))
        return
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


async def _planned(settings: "Settings") -> "Planned":
    from watcher.store import migrate
    from watcher.store.engine import Store

    store = Store(settings.database, read_only=True)
    if store.sqlite_file is not None and not await asyncio.to_thread(store.sqlite_file.exists):
        return migrate.Planned(None, migrate.HEAD, [], None)
    async with store:
        return await migrate.planned(store)


def _say_planned(plan: "Planned") -> None:
    if plan.before is None:
        say(f"There is no record yet; one would be made with schema {plan.after}.")
    elif plan.before == plan.after:
        say(f"The record has schema {plan.after} already; nothing would be done.")
    else:
        say(f"The record would go from schema {plan.before} to {plan.after}:")
        for step in plan.steps:
            say(f"  {step}")
        if plan.copy_bytes is None:
            say("No copy would be made: use pg_dump first.")
        else:
            say(f"It would be copied beside itself first, which takes {size(plan.copy_bytes)}.")


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
            say(f"wrong: {one.where}: {one.what}; what to do: {one.action}")
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
    from watcher.store.copying import copy_record

    async with record(settings) as store:
        await copy_record(store, file)


@app.command()
def restore(
    context: typer.Context, file: Annotated[Path, typer.Argument(metavar="FILE", help="The copy to go back to.")]
) -> None:
    """Go back to a copy of the record.

    The copy is checked first; a file that is no record, is damaged, or is newer than this program is refused. The
    present record is moved aside and kept. Not while `watcher run` or `watcher once` uses the record. For SQLite; use
    pg_restore for PostgreSQL.
    """
    settings = settings_of(context)
    log_quietly(settings)
    done = asyncio.run(_restore(settings, file))
    copy = done.copy
    say(f"{file} is sound: schema {copy.revision}, {counted(copy.batches, 'batch', 'batches')}, last scan "
        f"{copy.last_scan_at[:19] + 'Z' if copy.last_scan_at else 'never'}. It is the record now.")  # fmt: skip
    if done.earlier:
        say(f"The record that was there is kept as {done.earlier}.")
    if done.earlier_copy and done.earlier_copy.name != copy.name and done.earlier_copy.batches:
        say(
            f"warning: the record that was there has another name at Molecule.one ({done.earlier_copy.name}, the copy "
            f"{copy.name}): what it bought is not recognised, and may be bought again.",
            error=True,
        )
    own = settings.molecule_one
    if own.api_version == "v1" or own.delete_after_collect:
        why = "Molecule.one v1 keeps no names of batches" if own.api_version == "v1" else "batches are deleted there"
        say(
            f"warning: {why}: what was bought since the copy was made may not be recognised, and be bought again. "
            "Compare with the vendor's list before you start.",
            error=True,
        )
    else:
        say("The next `watcher run` or `watcher once` reads back the batches that were bought since the copy was made, "
            "before it buys anything.")  # fmt: skip


async def _restore(settings: "Settings", file: Path) -> "Restored":
    from watcher.store.engine import Store
    from watcher.store.lock import InstanceLock
    from watcher.store.restore import restore

    store = Store(settings.database)  # never opened
    record = store.sqlite_file
    if record is None:
        raise WatcherError("restoring by this command is for SQLite; use pg_restore for PostgreSQL")
    if not await asyncio.to_thread(file.is_file):
        raise UsageProblem(f"{file} is no file")
    if await asyncio.to_thread(record.exists) and await asyncio.to_thread(file.samefile, record):
        raise UsageProblem(f"{file} is the record itself")
    await asyncio.to_thread(record.parent.mkdir, parents=True, exist_ok=True)
    async with InstanceLock(store, "db restore"):
        return await asyncio.to_thread(restore, file, record, now())
