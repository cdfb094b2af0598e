"""The gate: after a start nothing is sent before it is known what the service has of ours already.

A restored record does not know what was bought after its copy was made. What the service lists under our name is read
back; a list that is not there, or not whole, proves nothing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from watcher.errors import AuthFailure, Failure, Invalid, Ours
from watcher.pipeline.sending import Sending
from watcher.pipeline.stage import Context
from watcher.store.conditions import close_condition, open_condition
from watcher.store.engine import Session
from watcher.store.profiles import SERVICE

_log = structlog.get_logger(__name__)
_LOOKS_AFTER = tuple(timedelta(seconds=seconds) for seconds in (2, 5, 15, 60, 180, 300, 600))
LOOKS_BEFORE_GOING_ON = 3


def next_look(looks: int) -> timedelta:
    """Return the wait after so many looks without a find."""
    return _LOOKS_AFTER[min(max(looks, 1), len(_LOOKS_AFTER)) - 1]


@dataclass(slots=True)
class Unproven:
    """Looks that left a question open, and when the first of them was, on the monotonic clock."""

    looks: int = 0
    since: float = 0.0

    def add(self, now: float) -> None:
        """Count one more."""
        self.since = self.since if self.looks else now
        self.looks += 1

    def left(self, now: float, window: timedelta) -> timedelta:
        """Return how long until the window since the first look has passed."""
        return max(timedelta(), window - timedelta(seconds=now - self.since))

    def lasts(self, now: float, window: timedelta) -> bool:
        """Say whether waiting on would not help: there were several looks, spread over the whole window."""
        return self.looks >= LOOKS_BEFORE_GOING_ON and not self.left(now, window)


class Gate:
    """Says when `submit` may begin."""

    def __init__(self, context: Context, sending: Sending, *, new_record: bool) -> None:
        """Keep what decides. A `new_record`, made by this start, can have forgotten nothing."""
        self._clock = context.clock
        self._window = context.settings.molecule_one.unconfirmed_window
        self._sending = sending
        self._names = context.molecule_one.names_batches
        self._recognises = self._names and not new_record
        """Whether there may be forgotten batches of ours that a look can recognise; else waiting tells nothing."""
        self._unproven = Unproven()
        self.look_at: float | None = None
        """When the next look is due that sending waits for, on the monotonic clock; None: at once."""

    async def may_open(self, session: Session, missing: str, now: datetime) -> bool:
        """Say, after a look, whether sending may begin: all of ours is known, or waiting on would not tell.

        `missing` says what the look could not read; empty when it read everything.
        """
        if self._sending.allowed:
            return True
        if missing and self._recognises:
            monotonic = self._clock.monotonic()
            self._unproven.add(monotonic)
            if not self._unproven.lasts(monotonic, self._window):
                left = self._unproven.left(monotonic, self._window)
                wait = next_look(self._unproven.looks)
                self.look_at = monotonic + (min(wait, left) or wait).total_seconds()
                await self._say(session, missing, now + left, now)
                return False
        if missing:
            tell = _log.warning if self._recognises else _log.info
            tell("sending_without_the_whole_list", service=SERVICE, reason=missing)
        await close_condition(session, SERVICE, "read_back", now=now)
        # Should the record go back in time under this process, the gate is shut again.
        self._recognises, self._unproven, self.look_at = self._names, Unproven(), None
        return True

    async def may_open_without(self, session: Session, failure: Failure, now: datetime) -> bool:
        """Say, after a look that failed, whether sending may begin.

        Where a list could tell of ours, only a definite answer counts as a look: an outage proves nothing, however long
        it lasts. Where it could tell nothing, a definite answer is as good as a list, and trouble is sat out for the
        window, so that what is sent does not run into an outage.
        """
        if self._sending.allowed:
            return True
        definite = isinstance(failure, Invalid) or (isinstance(failure, AuthFailure) and not self._recognises)
        if definite:
            return await self.may_open(session, f"it cannot be had: {failure.message}", now)
        if self._recognises or isinstance(failure, Ours):
            return False
        monotonic = self._clock.monotonic()
        self._unproven.add(monotonic)
        return self._unproven.lasts(monotonic, self._window) and await self.may_open(session, failure.message, now)

    async def _say(self, session: Session, missing: str, until: datetime, now: datetime) -> None:
        reason = (
            f"nothing is bought before the service's list of batches is read whole, or {until:%Y-%m-%d %H:%M} UTC if "
            f"it is still so then: it may hold batches that the record does not know, as after a restore, and {missing}"
        )
        condition = await open_condition(
            session,
            SERVICE,
            "read_back",
            reason=reason,
            action="leave `watcher run` running: it reads the list again by itself. If this is open after that time, "
            "compare the vendor's list with `watcher batches list`. To wait less, set molecule_one.unconfirmed_window",
            now=now,
        )
        condition.reason = reason  # an earlier start may have opened it
