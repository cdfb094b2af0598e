"""What the runner keeps an eye on beside the stages: a clock that was set back."""

from datetime import datetime, timedelta

import structlog

from watcher.answers import MAX_RETRY_AFTER
from watcher.clock import Clock
from watcher.settings import Settings
from watcher.store.due import bring_forward, was_ahead
from watcher.store.engine import Store

_log = structlog.get_logger(__name__)
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
