"""What the stages that buy and the one that looks for purchases share: who is sending, batch names, and doubt."""

from datetime import datetime

from watcher.store import batches
from watcher.store.conditions import open_condition
from watcher.store.engine import Session
from watcher.store.schema import Batch


class Sending:
    """What this process knows of its own sending: the batches it sends right now, and those it certainly never sent.

    A batch in `submitting` that is in neither was sent, or not, by a process that is gone.
    """

    def __init__(self) -> None:
        self.now: set[str] = set()
        self.never: set[str] = set()
        self.allowed = False
        """Set by `reconcile` once the service's own list of batches has been read back."""
        self.stopping = False
        """Set when the program ends: what has not left by then is not sent any more."""


def name_prefix(instance: str) -> str:
    """Return what the names of all batches of a record begin with at the service."""
    return f"watcher/{instance}/"


def batch_name(instance: str, token: str) -> str:
    """Name a batch at the service; target names stay out of it, they may be confidential."""
    return name_prefix(instance) + token


async def in_doubt(session: Session, batch: Batch, reason: str, *, due_at: datetime, now: datetime) -> None:
    """Set a batch `unconfirmed` and call a person from the first second; it is looked for meanwhile."""
    if batch.state != "unconfirmed":
        await batches.doubt(session, batch, why=reason, due_at=due_at, now=now)
    await open_condition(
        session,
        f"batch {batch.id}",
        "unconfirmed",
        reason=f"nobody knows whether the service took this batch of {batch.size} compounds: {reason}",
        action=f"wait while it is looked for; else compare with the vendor's list and type "
        f"`watcher batches adopt {batch.id} REMOTE_ID` if it is there, `watcher batches release {batch.id}` if not",
        now=now,
    )
