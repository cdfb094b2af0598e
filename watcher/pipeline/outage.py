"""What the runner keeps an eye on beside the stages: a record that is away."""

from datetime import timedelta
from random import Random

import structlog

from watcher.clock import Clock
from watcher.errors import Failure
from watcher.pipeline.failures import backoff
from watcher.store.engine import Store

_log = structlog.get_logger(__name__)
_LONGEST = timedelta(seconds=30)
_RELAPSE_S = 60.0
"""An outage that comes back sooner goes on with its longer waits: a nearly full disk takes one change and not two."""


class Outage:
    """The record is away: nothing new is started; said once, and once when it takes changes again.

    Whoever meets it away once more, after it took a change and with no success in between, is refused alone: a damaged
    page, or a transaction that takes too long, stops nobody else.
    Waits are counted on the clock that nobody sets.
    """

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._failures = 0
        self._retry_at: float | None = None
        self._ended_at: float | None = None
        self._met_by: set[object] = set()
        """Who has met the record away, and has not succeeded since."""

    @property
    def wait(self) -> timedelta | None:
        """How long until the next try; None when the record is not away."""
        return None if self._retry_at is None else timedelta(seconds=self._retry_at - self._clock.monotonic())

    def lasts(self) -> bool:
        """Say whether the record is away and it is too early for another try."""
        return self.wait is not None and self.wait > timedelta()

    def refuses_alone(self, who: object) -> bool:
        """Say whether the record has taken changes since it refused this before."""
        return self._retry_at is None and who in self._met_by

    def succeeded(self, who: object) -> None:
        """Forget that the record refused this."""
        self._met_by.discard(who)

    def note(self, failure: Failure, who: object = None) -> None:
        """Take down that the record did not answer, and whom, if that can be said."""
        if who is not None:
            self._met_by.add(who)
        now = self._clock.monotonic()
        began = self._retry_at is None
        if began and (self._ended_at is None or now - self._ended_at > _RELAPSE_S):
            self._failures = 0
        self._failures += 1
        self._retry_at = now + backoff(self._failures, self._random, longest=_LONGEST).total_seconds()
        if began:
            _log.error("record_unavailable", reason=failure.message, action=failure.action)

    async def end(self, store: Store) -> None:
        """See that the record takes changes again, if it was away. Raises RecordUnavailable when it does not."""
        if self._retry_at is None:
            return
        await store.probe()
        self._retry_at = None
        self._ended_at = self._clock.monotonic()
        _log.info("record_available_again", failed_tries=self._failures)
