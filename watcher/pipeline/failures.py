"""What a failure leads to: the waits, as pure functions."""

from datetime import timedelta
from random import Random

from watcher.errors import Failure, Invalid, NotFound, Transient

FIRST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(minutes=15)
AFTER_SCAN = timedelta(seconds=5)
"""Wait before an upload that asked for a scan is tried again."""
SLOW_WAIT = timedelta(hours=6)
"""Between two tries for an archive that the server cannot build, or purchases of a service that answers none."""
SERVICE_PAUSE = timedelta(minutes=5)
"""First pause of a service that refuses our credentials; it doubles up to an hour."""
LONGEST_SERVICE_PAUSE = timedelta(hours=1)
MACHINE_PAUSE = timedelta(seconds=15)
"""First pause after a fault of this machine; it doubles up to five minutes."""
LONGEST_MACHINE_PAUSE = timedelta(minutes=5)
LONGEST_DISK_WAIT = timedelta(hours=1)
"""Longest wait of one archive for the disk."""
_DOUBTS_WAIT = timedelta(minutes=2)
BUILDS_BEFORE_UNAVAILABLE = 5
UNDECODABLE_BEFORE_QUARANTINE = 2
NOT_FOUND_BEFORE_QUARANTINE = 10
"""Tries in a row, of about ten minutes together, before a 404 is believed."""
_OBEYED = 10
"""Failures in a row for which what the server asks for is believed as it is, however short."""


def backoff(
    attempts: int, random: Random, *, first: timedelta = FIRST_WAIT, longest: timedelta = LONGEST_WAIT
) -> timedelta:
    """Return the wait after so many failures in a row: doubling from `first` up to `longest`, plus up to a fifth.

    The random part keeps units from retrying at the same moment.
    """
    doubled = min(first * 2.0 ** min(max(attempts, 1) - 1, 20), longest)  # more doublings than any cap needs
    return doubled * (1 + random.random() / 5)


def wait_after_doubts(doubts: int) -> timedelta:
    """Return how long nothing is bought after so many purchases in a row that nobody answered.

    One lost answer holds up nobody else. A service that answers none is only probed, for each try is one more batch
    that a person may have to settle.
    """
    return min(_DOUBTS_WAIT * 4 ** min(doubts - 2, 10), SLOW_WAIT) if doubts > 1 else timedelta()


def believed(failure: Invalid, *, tries: int, before: str | None) -> Failure:
    """Return what an answer about one item counts as, after so many failed `tries` that ended in the error `before`.

    A server that is being changed answers 404 for some minutes. So a 404 counts as trouble that may pass until it was
    tried often, and was the answer to the same question just before too: the first one after an outage proves nothing.
    """
    if not isinstance(failure, NotFound):
        return failure
    repeated = _answer(before or "") == _answer(failure.message)
    if repeated and tries + 1 >= NOT_FOUND_BEFORE_QUARANTINE:
        return failure
    return Transient(failure.message, action=failure.action)


def _answer(message: str) -> str:
    """Return what was asked and answered, without the words of the service: those can differ each time."""
    return message.partition(":")[0]


def wait_after(failure: Failure, attempts: int, random: Random) -> timedelta:
    """Return how long a unit waits after a failure; what the server asks for wins, and is never cut short.

    A server that keeps asking for a moment, or for a time that is past, is met with growing waits in the end.
    """
    if isinstance(failure, Transient) and failure.retry_after is not None:
        least = FIRST_WAIT if attempts <= _OBEYED else backoff(attempts - _OBEYED, random)
        return max(failure.retry_after, least)
    return backoff(attempts, random)
