"""What every stage is made of and works with."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from watcher.chemistry_process import Chemistry
from watcher.clock import Clock
from watcher.errors import Failure, Service
from watcher.fragalysis import Fragalysis
from watcher.molecule_one import MoleculeOne
from watcher.notify_process import Notifier
from watcher.settings import Settings
from watcher.store.engine import Session, Store
from watcher.store.standing import Policy


@dataclass(frozen=True)
class Context:
    """The edges, injected: settings, record, clock, chance, both services, the chemistry and the way to people."""

    settings: Settings
    store: Store
    clock: Clock
    fragalysis: Fragalysis
    molecule_one: MoleculeOne
    chemistry: Chemistry
    notifier: Notifier
    random: Random = field(default_factory=Random)

    @property
    def policy(self) -> Policy:
        """What the settings allow to be sent."""
        return Policy.of(self.settings.limits)


class Deferred(Exception):
    """A step has put its unit off itself: neither a success nor a failure, so no condition begins or ends with it."""


class Stage(Protocol):
    """One stage. A unit is a number that `due` gives out: the id of a row, or what the docstring of the stage says."""

    name: str
    service: Service | None
    """The service it talks to; while that pauses, so does the stage."""
    width: int
    """Units at a time."""
    finishes_on_stop: bool
    """Whether a unit under way is waited for at the end rather than cancelled."""

    async def due(self, session: Session) -> Sequence[int]:
        """Return the units whose time has come, the most urgent first, as a snapshot of the record has them.

        What has changed since is `step`'s to find out.
        """
        ...

    async def step(self, unit: int) -> None:
        """Do one piece of work and commit it; may be repeated at any time.

        Raises a Failure when it cannot, Deferred when it has put the unit off itself.
        """
        ...

    async def put_off(self, unit: int, failure: Failure) -> None:
        """Write into the record what the failure leads to for this unit."""
        ...
