"""The vendor's books: every molecule of every accepted batch, in order. What proves that nothing was paid for twice."""

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Booking:
    """One accepted batch as it was bought; deleting the batch does not unbuy it."""

    batch_id: str
    name: str | None
    version: str
    accepted_at: datetime
    smiles: tuple[str, ...]


class Ledger:
    """All bookings of one server; nothing is ever taken out."""

    def __init__(self) -> None:
        self.batches: list[Booking] = []

    def book(self, booking: Booking) -> None:
        """Write down an accepted batch."""
        self.batches.append(booking)

    @property
    def total(self) -> int:
        """The number of molecules bought, repetitions included."""
        return sum(len(booking.smiles) for booking in self.batches)

    @property
    def purchases(self) -> Counter[str]:
        """How often each string was bought."""
        return Counter(smiles for booking in self.batches for smiles in booking.smiles)

    def as_json(self) -> dict[str, Any]:
        """Return the books as plain JSON."""
        batches = [{**asdict(booking), "accepted_at": booking.accepted_at.isoformat()} for booking in self.batches]
        return {"total": self.total, "purchases": dict(self.purchases), "batches": batches}
