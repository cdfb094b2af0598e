"""`watcher batches`: inspect and settle purchases by hand."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watcher.cli.common import AsJson, log_quietly, now, record, settings_of, who
from watcher.cli.output import UsageProblem, counted, say, say_json, shown, table
from watcher.errors import WatcherError
from watcher.points import reach

if TYPE_CHECKING:
    from watcher.settings import Settings
    from watcher.store.batch_views import Item
    from watcher.store.engine import Session
    from watcher.store.schema import Batch, Transition

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at batches, and settle doubtful ones by hand."
)
Id = Annotated[int, typer.Argument(metavar="ID", help="Number of the batch in this record.")]
_TIMES = ("created_at", "sent_at", "submitted_at", "finished_at", "collected_at", "closed_at", "unconfirmed_at")
ADOPTABLE = ("unconfirmed", "lost", "released", "closed")
RELEASABLE = ("unconfirmed", "lost")
FAILING = 5
"""Looks in a row that failed, after which a person may give up a batch that the service took."""


@app.command("list")
def list_(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(metavar="STATE", help="Only those in this state.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the batches, the oldest first."""
    from watcher.store.states import BATCH_STATES

    if state is not None and state not in BATCH_STATES:
        raise UsageProblem(f"--state {state}: must be one of {', '.join(BATCH_STATES)}")
    settings = settings_of(context)
    log_quietly(settings)
    found = asyncio.run(_list(settings, state))
    if as_json:
        say_json([_brief(batch) for batch in found])
        return
    rows = [(b.id, b.state, b.size, b.remote_id, b.sent_at, b.finished, b.error, b.reason) for b in found]
    headers = ("id", "state", "compounds", "remote id", "sent", "finished", "errors", "why")
    table(headers, rows, numbers=(0, 2, 5, 6)) if rows else say("There are no such batches.")


@app.command()
def show(context: typer.Context, batch_id: Id, as_json: AsJson = False) -> None:
    """Show one batch: its answer, compounds and history."""
    settings = settings_of(context)
    log_quietly(settings)
    batch, name, items, history = asyncio.run(_show(settings, batch_id))
    if as_json:
        say_json(_full(batch, name, items, history))
        return
    say(f"Batch {batch.id}: {batch.state} ({batch.reason or 'no reason noted'})", bold=True)
    say(f"  remote id  {batch.remote_id or 'unknown'}")
    say(f"  name       {name or 'none: API v1 knows no names'}")
    say(f"  token      {batch.token}")
    say(f"  answer     {batch.answer or 'none'}")
    say(f"  compounds  {batch.size}")
    for name in _TIMES:
        if moment := getattr(batch, name):
            say(f"  {name.removesuffix('_at').ljust(12)}{shown(moment)}")
    if batch.state == "unconfirmed":
        say(f"  not found   in {counted(batch.looks, 'complete list')} of the service's batches")
    say()
    compounds = [(item.position, item.smiles, item.state, item.score, item.reason) for item in items]
    table(("#", "smiles", "state", "score", "reason"), compounds, title="Compounds", numbers=(0, 3))
    say()
    changes = [(one.at, one.who, one.old, one.new, one.why) for one in history]
    table(("when", "who", "from", "to", "why"), changes, title="History")


@app.command()
def adopt(
    context: typer.Context,
    batch_id: Id,
    remote_id: Annotated[str, typer.Argument(metavar="REMOTE_ID", help="Its id at Molecule.one.")],
) -> None:
    """Say under which id the service has a doubtful batch.

    Its results are then collected. Works beside `watcher run`, for a batch that is unconfirmed, lost, released or
    closed.
    """
    settings = settings_of(context)
    log_quietly(settings)
    remote_id = remote_id.strip()
    asyncio.run(_adopt(settings, batch_id, remote_id))
    say(f"Batch {batch_id} is submitted, as {remote_id}. Its results are collected next.")


@app.command()
def release(
    context: typer.Context,
    batch_id: Id,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Give up a doubtful batch; its compounds are bought again.

    If the service took it after all, they are paid twice: look at the vendor's own list of batches first. Works beside
    `watcher run`, for a batch that is unconfirmed or lost, or that the service took and does not tell of: it was read
    back and does not show all its compounds, or every look at it fails. On a terminal it asks before it does anything.
    """
    settings = settings_of(context)
    log_quietly(settings)
    say(
        f"warning: if Molecule.one took batch {batch_id} after all, its compounds will be paid for twice. "
        f"If its list shows the batch, use `watcher batches adopt {batch_id} REMOTE_ID` instead.",
        error=True,
    )
    if not yes and sys.stdin.isatty() and not typer.confirm(f"Release batch {batch_id}?", err=True):
        raise WatcherError(f"batch {batch_id} is left as it is")
    free = asyncio.run(_release(settings, batch_id))
    say(f"Batch {batch_id} is released; {counted(free, 'compound')} may be bought again.")


async def _list(settings: "Settings", state: str | None) -> "list[Batch]":
    from watcher.store.batch_views import all_batches

    async with record(settings) as store, store.read() as session:
        return list(await all_batches(session, state))


async def _show(settings: "Settings", batch_id: int) -> "tuple[Batch, str | None, list[Item], list[Transition]]":
    from watcher.molecule_one.dialects import DIALECTS
    from watcher.pipeline.sending import batch_name
    from watcher.store.batch_views import items_of, transitions_of
    from watcher.store.instance import instance
    from watcher.store.schema import Profile

    async with record(settings) as store, store.read() as session:
        batch = await _found(session, batch_id)
        named = DIALECTS[(await session.get_one(Profile, batch.profile_id)).api_version].names_batches
        name = batch_name((await instance(session)).name, batch.token) if named else None
        return batch, name, await items_of(session, batch_id), list(await transitions_of(session, "batch", batch_id))


async def _adopt(settings: "Settings", batch_id: int, remote_id: str) -> None:
    from watcher.store import batches
    from watcher.store.conditions import close_condition
    from watcher.store.engine import Conflict

    if not remote_id or not remote_id.isprintable():
        raise UsageProblem("REMOTE_ID must be the id that Molecule.one shows for the batch")
    try:
        async with record(settings, write=True) as store, store.write() as session:
            batch = await _found(session, batch_id)
            _must_be(batch, "adopted", ADOPTABLE)
            other = await batches.by_remote_id(session, remote_id)
            if other is not None and other.id != batch.id:
                raise WatcherError(f"{remote_id} is batch {other.id} already, which is {other.state}")
            instead = f", and not as {batch.remote_id}" if batch.remote_id not in (None, remote_id) else ""
            why = f"{who()} says that the service has it as {remote_id}{instead}"
            await batches.accepted(session, batch, remote_id, due_at=now(), now=now(), why=why, who=who())
            await close_condition(session, f"batch {batch.id}", now=now())
            reach("adopt.recording")
    except Conflict as conflict:
        raise WatcherError(f"batch {batch_id} changed meanwhile and is left as it is; look at it again") from conflict


async def _release(settings: "Settings", batch_id: int) -> int:
    from watcher.store import batches
    from watcher.store.conditions import close_condition
    from watcher.store.forgotten import READ_BACK
    from watcher.store.states import AT_WORK

    async with record(settings, write=True) as store, store.write() as session:
        batch = await _found(session, batch_id)
        never_tells = batch.outcome == READ_BACK or batch.attempts >= FAILING
        _must_be(batch, "released", (*RELEASABLE, *(AT_WORK if never_tells else ())))
        free = await batches.release(session, batch, who=who(), why=f"{who()} gave it up", now=now())
        await close_condition(session, f"batch {batch.id}", now=now())
        reach("release.recording")
        return free


async def _found(session: "Session", batch_id: int) -> "Batch":
    from watcher.store.batch_views import find_batch

    batch = await find_batch(session, batch_id)
    if batch is None:
        raise UsageProblem(f"there is no batch {batch_id}; `watcher batches list` shows them")
    return batch


def _must_be(batch: "Batch", what: str, states: tuple[str, ...]) -> None:
    if batch.state not in states:
        allowed = f"{', '.join(states[:-1])} or {states[-1]}"
        raise WatcherError(f"batch {batch.id} is {batch.state}; only a batch that is {allowed} can be {what}")


def _brief(batch: "Batch") -> dict[str, Any]:
    fields = ("id", "state", "reason", "size", "remote_id", "outcome", "queued", "running", "finished", "error")
    return {name: getattr(batch, name) for name in (*fields, *_TIMES)}


def _full(batch: "Batch", name: str | None, items: "list[Item]", history: "list[Transition]") -> dict[str, Any]:
    return {
        **_brief(batch),
        "name": name,
        "token": batch.token,
        "lists_without_it": batch.looks if batch.state == "unconfirmed" else None,
        "answer": batch.answer,
        "items": [
            {"position": i.position, "smiles": i.smiles, "live": i.live, "state": i.state, "reason": i.reason,
             "score": i.score}
            for i in items
        ],
        "history": [{"at": t.at, "who": t.who, "from": t.old, "to": t.new, "why": t.why} for t in history],
    }  # fmt: skip
