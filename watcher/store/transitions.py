"""Who changed the state of a target, upload or batch; each change becomes one log line once it is committed.

Of a claim only a failure is noted: what it waits for stands in the claim, what it brought in the score.
"""

from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from structlog.contextvars import get_contextvars

from watcher.store.schema import Transition

PROGRAM = "watcher"
"""`who` of the changes that the program makes by itself."""


def note(
    session: AsyncSession,
    entity: str,
    entity_id: int,
    field: str,
    old: object,
    new: object,
    *,
    at: datetime,
    why: str,
    who: str = PROGRAM,
    level: str = "info",
) -> None:
    """Write a transition with the change it belongs to; `level` is that of its line in the log."""
    session.add(
        Transition(
            entity=entity,
            entity_id=entity_id,
            field=field,
            old=None if old is None else str(old),
            new=None if new is None else str(new),
            at=at,
            who=who,
            why=why,
        )
    )
    changed: dict[str, Any] = {f"{entity}_id": entity_id, "old": old, "new": new, "why": why, "who": who}
    say_after_commit(session, f"{entity}_{field}_changed", level=level, **changed)


def say_after_commit(session: AsyncSession, event: str, *, level: str = "info", **values: Any) -> None:
    """Log an event when, and only when, the transaction is committed, with the context that is bound now."""
    session.info.setdefault("events", []).append((level, event, {**get_contextvars(), **values}))
