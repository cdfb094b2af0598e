"""The vendor's batches and how their work goes forward: by the clock that is handed in, or by hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from watcher.sandbox.chance import identifier, shuffled


@dataclass
class Pace:
    """How fast the vendor works; `manual` stops the clock, then only `finish` moves anything."""

    seconds_per_molecule: float = 0.0
    queue_seconds: float = 0.0
    parallel: int = 4
    manual: bool = False


@dataclass
class Batch:
    """One accepted batch; `order` is the order in which its molecules get ready."""

    id: str
    version: str
    name: str | None
    targets: tuple[str, ...]
    metadata: dict[str, dict[str, Any]]
    settings: dict[str, Any]
    detailed: bool
    created: float
    created_at: datetime
    order: list[int]
    done: int = 0
    reads: int = 0
    listings: int = 0

    @property
    def ready(self) -> list[int]:
        """The places of the molecules whose search has ended."""
        return self.order[: self.done]


class Batches:
    """All batches of one server that were not deleted."""

    def __init__(self, pace: Pace, clock: Callable[[], float], seed: int) -> None:
        self.pace = pace
        self._clock = clock
        self._seed = seed
        self._batches: dict[str, Batch] = {}
        self._created = 0

    def create(
        self,
        targets: Sequence[str],
        *,
        version: str,
        name: str | None,
        metadata: dict[str, dict[str, Any]],
        settings: dict[str, Any],
        detailed: bool,
    ) -> Batch:
        """Take a batch in."""
        self._created += 1
        now = datetime.now(UTC)
        batch = Batch(
            id=identifier("batch", self._seed, self._created, now),  # never the id of an earlier run
            version=version,
            name=name,
            targets=tuple(targets),
            metadata=metadata,
            settings=settings,
            detailed=detailed,
            created=self._clock(),
            created_at=now,
            order=shuffled(range(len(targets)), self._seed, self._created),
        )
        self._batches[batch.id] = batch
        return batch

    def get(self, batch_id: str) -> Batch | None:
        """Return a batch as far as its work has come."""
        batch = self._batches.get(batch_id)
        if batch is not None:
            self._advance(batch)
        return batch

    def all(self) -> list[Batch]:
        """Return every batch, the oldest first."""
        for batch in self._batches.values():
            self._advance(batch)
        return list(self._batches.values())

    def delete(self, batch_id: str) -> bool:
        """Remove a batch and stop its search; say whether it was there."""
        return self._batches.pop(batch_id, None) is not None

    def finish(self, molecules: int | None = None) -> int:
        """Let so many molecules get ready at once (None: all), the oldest batch first; return how many did."""
        moved = 0
        for batch in self.all():
            left = len(batch.targets) - batch.done
            step = left if molecules is None else min(left, molecules - moved)
            batch.done += step
            moved += step
        return moved

    def running(self, batch: Batch) -> int:
        """Return how many searches of a batch are under way."""
        waiting = not self.pace.manual and self._clock() < batch.created + self.pace.queue_seconds
        return 0 if waiting else min(self.pace.parallel, len(batch.targets) - batch.done)

    def _advance(self, batch: Batch) -> None:
        pace = self.pace
        elapsed = self._clock() - batch.created - pace.queue_seconds
        if pace.manual or elapsed < 0:
            return
        size = len(batch.targets)
        rounds = size if pace.seconds_per_molecule <= 0 else int(elapsed / pace.seconds_per_molecule)
        batch.done = max(batch.done, min(size, rounds * pace.parallel))
