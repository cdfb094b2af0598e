"""A clock that stands still until it is told to move: nothing waits, everything is told the time it would be."""

import asyncio
from datetime import UTC, datetime, timedelta

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class FakeClock:
    """Implements `watcher.clock.Clock`; `slept` keeps what was waited for."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._elapsed = timedelta()
        self.slept: list[timedelta] = []

    def now(self) -> datetime:
        return self._start + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed.total_seconds()

    async def sleep(self, duration: timedelta) -> None:
        """Advance by the duration at once, and let others run."""
        self.slept.append(duration)
        self.advance(duration)
        await asyncio.sleep(0)

    def advance(self, duration: timedelta | float) -> None:
        """Let time pass; a number is seconds. It never runs backwards."""
        step = duration if isinstance(duration, timedelta) else timedelta(seconds=duration)
        self._elapsed += max(step, timedelta())
