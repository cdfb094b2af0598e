"""What holds sending up: `submit` obeys it, and `watcher plan` tells it, so that the two cannot differ."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from watcher.pipeline.failures import wait_after_doubts
from watcher.store import batches, forgotten
from watcher.store.conditions import all_open, find
from watcher.store.engine import Session
from watcher.store.profiles import REFUSED, SERVICE
from watcher.store.schema import Condition


async def holds(session: Session, now: datetime) -> Sequence[str]:
    """Return why nothing may be sent now, in words for people; empty when nothing stands in the way.

    A person is asked first, what may be bought already is not known yet, or the service answers no purchase.
    """
    found: list[str] = []
    if (refused := await find(session, SERVICE, REFUSED)) is not None:
        found.append(told(refused))
    reading, refusals = await forgotten.reading_back(session), await batches.refused(session)
    if reading or refusals:
        looked_for = [f"batch {one.id}" for one in refusals]
        said = {one.subject: told(one) for one in await all_open(session) if one.kind == "read_back"}
        if reading:
            found += [words for subject, words in said.items() if subject not in (SERVICE, *looked_for)] or [_NOT_READ]
        found += [said.get(subject, f"{subject}: {_LOOKED_FOR}") for subject in looked_for]
    if (until := await _doubtful_until(session, now)) is not None:
        when = f"{until:%Y-%m-%d %H:%M:%S} UTC"
        found.append(f"{SERVICE}: the last purchases were not answered; the next waits until {when}")
    return found


def told(condition: Condition) -> str:
    """Say what is not well, and what can be done."""
    return f"{condition.subject}: {condition.reason}; {condition.action}"


async def _doubtful_until(session: Session, now: datetime) -> datetime | None:
    """Return until when nothing is bought after purchases that nobody answered; None when that is past."""
    doubts = await batches.doubts_in_a_row(session)
    newest = doubts[0].unconfirmed_at if doubts else None
    wait = wait_after_doubts(len(doubts))
    # What lies ahead of a clock that was put right does not count.
    return newest + wait if newest is not None and timedelta() <= now - newest < wait else None


_NOT_READ = (
    "the service has, or had, a batch of ours that the record had forgotten, and not all its compounds are known; "
    "`watcher batches list` tells where it stands"
)
_LOOKED_FOR = (
    "refused, but a proxy may have said so in the place of a service that accepts; looked for in the list of "
    "Molecule.one before anything more is sent"
)
