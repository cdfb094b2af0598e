"""What the runner keeps an eye on beside the stages: a record that is away, and a clock that was set back."""

from datetime import datetime, timedelta
from random import Random

import structlog

from watcher.answers import MAX_RETRY_AFTER
from watcher.clock import Clock
from watcher.errors import Failure
from watcher.pipeline.failures import backoff
from watcher.settings import Settings
from watcher.store.due import bring_forward, was_ahead
from watcher.store.engine import Store

_log = structlog.get_logger(__name__)
_LONGEST = timedelta(seconds=30)
_RELAPSE_S = 60.0
"""An outage that comes back sooner goes on with its longer waits: a nearly full disk takes one change and not two."""
_SET_BACK = timedelta(minutes=1)
"""Smaller steps of the clock make no difference to any wait."""


def longest_wait(settings: Settings) -> timedelta:
    """Return the longest time for which anything is put off: a server may ask for a day, people for what they like."""
    return max(
        MAX_RETRY_AFTER,
        settings.fragalysis.settle,
        settings.molecule_one.poll_interval,
        settings.molecule_one.unconfirmed_window,
        settings.notify.patience,
    )


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


class ClockWatch:
    """Notices a clock that was set back, so that what is due can come when it would have come."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen = self._look()

    def _look(self) -> tuple[datetime, float]:
        return self._clock.now(), self._clock.monotonic()

    def set_back(self) -> timedelta:
        """Return how far the clock was set back since the last time; zero for a small step."""
        (now, monotonic), (seen, then) = self._look(), self._seen
        self._seen = now, monotonic
        back = seen + timedelta(seconds=monotonic - then) - now
        return back if back > _SET_BACK else timedelta()

    async def look_at_record(self, store: Store, settings: Settings) -> None:
        """At the start, let all be due now if the clock was ahead before and was put right while nothing ran.

        How far is not known for sure, and to look too early costs one question. Raises RecordUnavailable.
        """
        now = self._clock.now()
        async with store.read() as session:
            back = await was_ahead(session, longest=longest_wait(settings), now=now)
        if back <= _SET_BACK:
            return
        async with store.write() as session:
            moved = await bring_forward(session, by=None, settle=settings.fragalysis.settle, now=now)
        _say_set_back(back, moved)

    async def look(self, store: Store) -> None:
        """Bring forward what the record says to be due, if the clock was set back. Raises RecordUnavailable."""
        before = self._seen
        if not (back := self.set_back()):
            return
        try:
            async with store.write() as session:
                moved = await bring_forward(session, by=back, now=self._clock.now())
        except BaseException:
            self._seen = before  # noticed again the next time
            raise
        _say_set_back(back, moved)


def _say_set_back(back: timedelta, moved: int) -> None:
    _log.warning("clock_set_back", seconds=round(back.total_seconds()), brought_forward=moved)
