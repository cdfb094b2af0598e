"""What the stages that buy and the one that looks for purchases share: who is sending, batch names, and doubt."""

from datetime import datetime, timedelta

from watcher.pipeline.profile import profile_in_force
from watcher.pipeline.stage import Context
from watcher.store import batches, forgotten
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
        self.doubted: dict[str, tuple[float, timedelta]] = {}
        """When this process met each doubt, on the monotonic clock, and how old the doubt was by then."""
        self.last: str | None = None
        """Token of the newest intent that this process has committed: a record that lacks it went back in time."""
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


async def read_back(
    session: Session, context: Context, *, token: str, remote_id: str, size: int, now: datetime
) -> None:
    """Record a batch of ours that the record has forgotten; nothing is sent until its compounds are known."""
    profile = await profile_in_force(session, context)
    batch = await forgotten.read_back(session, profile, token=token, remote_id=remote_id, size=size, now=now)
    await open_condition(
        session,
        f"batch {batch.id}",
        "read_back",
        reason="the service has a batch of ours that the record does not know; nothing is sent until it is read",
        action="nothing: it is being read; if this is open after an hour, ask Molecule.one about it; "
        f"`watcher batches release {batch.id}` goes on without what it has not told, which may then be bought again",
        now=now,
    )
