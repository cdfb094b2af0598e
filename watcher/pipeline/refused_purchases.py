"""Purchases that were refused, but for their content: a proxy may have said so, in the place of one who accepts.

Nothing more is sent before looks at the service's list have ruled out that the batch exists after all, or waiting on
would not tell.
"""

from datetime import datetime, timedelta

import structlog

from watcher.pipeline.gate import LOOKS_BEFORE_GOING_ON, next_look
from watcher.store.conditions import close_condition, open_condition
from watcher.store.engine import Session
from watcher.store.schema import Batch

_log = structlog.get_logger(__name__)
_LOOKS = 2
"""Looks that prove a batch not to be there, before it counts as not bought: the list may lag."""


async def not_found(session: Session, batch: Batch, *, proven: bool, left: timedelta, now: datetime) -> None:
    """Note that a look did not find a batch; `proven` if it read everything. `left` is what is left of the window."""
    if batch.due_at is not None and batch.due_at > now:  # the list may lag
        return
    batch.attempts += 1
    batch.looks += proven
    if batch.looks >= _LOOKS:
        await give_up(session, batch, now)
    elif batch.attempts < LOOKS_BEFORE_GOING_ON:
        batch.due_at = now + next_look(batch.attempts)
    elif left > timedelta():
        batch.due_at = now + min(next_look(batch.attempts), left)
        await _say(session, batch, now + left, now)
    else:
        _log.warning("refused_batch_not_looked_for", batch_id=batch.id, reason="the list cannot be read whole")
        await give_up(session, batch, now)


async def give_up(session: Session, batch: Batch, now: datetime) -> None:
    """Look for a batch no more, and go on without it."""
    batch.due_at = None
    await close_condition(session, f"batch {batch.id}", "read_back", now=now)


async def _say(session: Session, batch: Batch, until: datetime, now: datetime) -> None:
    await open_condition(
        session,
        f"batch {batch.id}",
        "read_back",
        reason="its purchase was refused, perhaps by a proxy in the place of Molecule.one, and the list of batches "
        f"cannot be read whole to rule it out; nothing is bought before, or {until:%Y-%m-%d %H:%M} UTC",
        action="nothing: it is looked for again; find out who refuses, a proxy for example",
        now=now,
    )
