"""Batches that may still turn up: those that were lost, or given up, and the service may know after all."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from watcher.errors import AuthFailure, Invalid, Transient
from watcher.pipeline.stage import Context
from watcher.store import batches
from watcher.store.conditions import close_condition, open_condition
from watcher.store.engine import Session
from watcher.store.forgotten import READ_BACK
from watcher.store.schema import Batch

SLOW_LOOK = timedelta(hours=1)
"""Between looks that nobody waits for: a person decides, but a batch that turns up late is still noticed."""
_LATE_LOOKS = timedelta(days=1)
"""How long a batch that was given up is still looked for. A lost one is looked for until it is settled."""
_TURNED_UP = {
    "released": ("given up", "nothing can be undone; what was bought again meanwhile was paid twice"),
    "closed": ("taken for not bought", "find out who answers in the place of Molecule.one, a proxy for example"),
}
"""What had become, by its state, of a batch that exists after all, and what a person can do."""


def is_late(batch: Batch, now: datetime) -> bool:
    """Say whether a batch that was lost, or given up, is to be looked for now: a pure function."""
    if batch.state == "lost":
        return batch.due_at is None or batch.due_at <= now
    if batch.state != "released" or batch.outcome == READ_BACK:
        return False
    given_up = batch.closed_at or now
    return now - given_up < _LATE_LOOKS and (batch.due_at or given_up + SLOW_LOOK) <= now


async def due(session: Session, now: datetime) -> list[Batch]:
    """Return those to be looked for now."""
    return [one for one in await batches.in_state(session, "released", "lost") if is_late(one, now)]


async def put_off(session: Session, late: Sequence[Batch], now: datetime) -> None:
    """Look again later for what did not turn up."""
    for one in late:
        batch = await batches.get(session, one.id)
        if batch.state in ("released", "lost"):
            batch.due_at = now + SLOW_LOOK


async def ask(context: Context) -> None:
    """Ask for what is late under the id that it had, and take up what the service knows again."""
    async with context.store.read() as session:
        late = await due(session, context.clock.now())
    for one in late:
        if one.remote_id is None:
            continue
        try:
            await context.molecule_one.status(one.remote_id)
            await context.molecule_one.results(one.remote_id)  # what cannot be read would only wait again
        except (Transient, Invalid, AuthFailure):
            continue
        now = context.clock.now()
        async with context.store.write() as session:
            batch = await batches.get(session, one.id)
            if (batch.state, batch.remote_id) == (one.state, one.remote_id):
                await adopt(session, batch, one.remote_id, now)


async def adopt(session: Session, batch: Batch, remote_id: str, now: datetime) -> None:
    """Record that the service has a batch; of one that counted as not bought, a person is told."""
    fate, action = _TURNED_UP.get(batch.state, ("", ""))
    why = f"it turned up at the service after it was {fate}" if fate else "found at the service"
    await batches.accepted(session, batch, remote_id, due_at=now, now=now, why=why)
    await close_condition(session, f"batch {batch.id}", now=now)
    if fate:
        reason = f"a batch that was {fate} exists at the service; its results are stored and it counts as spent"
        await open_condition(session, f"batch {batch.id}", "turned_up", reason=reason, action=action, now=now)
