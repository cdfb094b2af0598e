"""Time, injected: the program asks this object and never the system, so that tests need not wait."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What the program needs to know of time."""

    def now(self) -> datetime:
        """Return the time of day in UTC, aware."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that nobody sets."""
        ...

    async def sleep(self, duration: timedelta) -> None:
        """Return after `duration`."""
        ...


class SystemClock:
    """The real clock."""

    def now(self) -> datetime:
        """Return the time of day in UTC, aware."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds on a clock that nobody sets."""
        return asyncio.get_running_loop().time()

    async def sleep(self, duration: timedelta) -> None:
        """Return after `duration`."""
        await asyncio.sleep(duration.total_seconds())
