"""Health: the conditions that failing units open, the pauses that come with them, and the successes that end both.

A condition stays open until every unit that it was opened for has succeeded: one that works does not heal another that
does not, so nothing flickers. A unit that does not come back, because it was superseded, is forgotten after a while;
and where nothing is left to succeed, the condition ends once nothing has failed for long.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from watcher.archives import NotAnArchive
from watcher.errors import AuthFailure, Failure, Invalid, Ours, Transient
from watcher.fragalysis import CannotBuild, NotAMember
from watcher.pipeline.failures import (
    LONGEST_DISK_WAIT,
    LONGEST_MACHINE_PAUSE,
    LONGEST_SERVICE_PAUSE,
    LONGEST_WAIT,
    MACHINE_PAUSE,
    SERVICE_PAUSE,
    SLOW_WAIT,
    backoff,
)
from watcher.pipeline.stage import Context, Stage
from watcher.redaction import redactor
from watcher.settings_source import secrets_of
from watcher.store.conditions import all_open, close_condition, find, open_condition
from watcher.store.engine import Session

Key = tuple[str, int]
"""Stage and unit."""
ALL_UNITS = -1
"""In place of a unit: the question what is due."""
KINDS = ("unreachable", "credentials", "machine", "unreadable", "unexpected")
"""The kinds that are opened and closed here; a stage sees to its own."""
_OVER_AFTER = 2 * SLOW_WAIT
"""Also what is tried seldom has: looks for lost batches, purchases of a service that answers none."""
WHOLE_SERVICE = ("scan", "reconcile", "submit")
"""Stages that speak to a service about everything at once: what they cannot read is no single item's fault."""
_RENEW = "renew the token in the settings and start again"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is not well, and the pauses that it asks for, growing from the first to the longest."""

    subject: str
    kind: str
    action: str
    first: timedelta = timedelta()
    longest: timedelta = timedelta()
    units_wait: timedelta = LONGEST_WAIT
    """Longest wait of a unit: one that is still in trouble has failed again when twice as much has passed."""


def fault_of(stage: Stage, failure: Failure) -> Fault | None:
    """Say what a failure is a sign of: a pure function. None when it is about one item, which its stage sees to."""
    action = failure.action
    if isinstance(failure, CannotBuild | NotAMember | NotAnArchive):
        return None
    if isinstance(failure, AuthFailure) and stage.service == "fragalysis" and stage.name not in WHOLE_SERVICE:
        # A proposal can be closed to us while all others are open: whether the service is, the next scan tells.
        return Fault(
            stage.name,
            "credentials",
            f"if the scan is refused too: {action or _RENEW}; else see in `watcher uploads` which target it is, and "
            "ask the Fragalysis team whether it is open to you, or leave it out with fragalysis.exclude",
        )
    if isinstance(failure, AuthFailure):
        action = action or f"{_RENEW}; until then the service is asked every 5 to 60 minutes"
        return Fault(str(stage.service), "credentials", action, SERVICE_PAUSE, LONGEST_SERVICE_PAUSE)
    if isinstance(failure, Ours):
        action = action or "look at the disk and the database; the program goes on by itself"
        units_wait = LONGEST_DISK_WAIT if stage.name == "download" else LONGEST_WAIT
        return Fault(stage.name, "machine", action, MACHINE_PAUSE, LONGEST_MACHINE_PAUSE, units_wait)
    if isinstance(failure, Transient) and stage.service is not None:
        # A builder at its limit, or a file that breaks off, says nothing of the lists that the other stages read.
        subject = stage.name if stage.name == "download" else stage.service
        return Fault(
            subject,
            "unreachable",
            action
            or "nothing: it is tried again by itself; if this is open after an hour, look at the network and the "
            "service",
        )
    if isinstance(failure, Invalid) and stage.name in WHOLE_SERVICE:
        return Fault(
            str(stage.service),
            "unreadable",
            action
            or "look at the addresses and versions in the settings; if they are right, a newer version of this program "
            "may know the answer",
        )
    return None


def _unexpected_of(stage: Stage, unit: int) -> str:
    return stage.name if unit == ALL_UNITS else f"{stage.name} {unit}"


class Health:
    """Opens and closes conditions. Which units are in trouble is kept in memory; the conditions are in the record."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._without_secrets = redactor(secrets_of(context.settings))
        self._open: set[tuple[str, str]] = set()
        """Subject and kind of the open conditions that a success may close; saves a look at each success."""
        self._over_at: dict[tuple[str, str], float] = {}
        """When an open condition ends if nothing fails until then, on the monotonic clock."""
        self._troubled: dict[tuple[str, str], dict[Key, float]] = {}
        """The units that a condition is open for, and when each is forgotten, on the monotonic clock."""

    def hide(self, message: str) -> str:
        """Keep what a service, or an error, repeats of our secrets out of the record, and so out of all it shows."""
        return str(self._without_secrets(message))

    async def load(self) -> None:
        """Take up the open conditions. The settings or the program may be others now: what paused is tried at once.

        Only a wait that a server asked for is kept.
        """
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            for condition in await all_open(session):
                if condition.kind in ("credentials", "machine"):
                    condition.retry_at = None
                elif condition.kind == "unexpected":
                    await close_condition(session, condition.subject, "unexpected", now=now)
                    continue
                if condition.kind in KINDS:
                    self._stays_open((condition.subject, condition.kind), condition.retry_at, now)

    async def paused(self, session: Session) -> set[str]:
        """Return the services and stages that are to be left alone now."""
        now = self._context.clock.now()
        return {c.subject for c in await all_open(session) if c.retry_at is not None and c.retry_at > now}

    async def failed(self, stage: Stage, unit: int, failure: Failure) -> None:
        """Open or renew the condition that a failure is a sign of, and close what it shows to be over."""
        fault = fault_of(stage, failure)
        if isinstance(failure, Invalid | AuthFailure | CannotBuild):
            over = ("unreachable",) if isinstance(failure, AuthFailure) else ("unreachable", "credentials")
            await self._relieve(stage, unit, over)  # the service has answered
        if fault is None:
            return
        asked = failure.retry_after if isinstance(failure, Transient) else None
        await self._note(fault, (stage.name, unit), failure, asked)

    async def unexpected(self, stage: Stage, unit: int, failure: Failure) -> None:
        """Say that a unit shows a fault of the program."""
        action = "this is a fault of the program: please report it with the log; the unit is tried again"
        fault = Fault(_unexpected_of(stage, unit), "unexpected", action)
        await self._note(fault, (stage.name, unit), failure, None)

    async def refused(self, stage: Stage, unit: int, failure: Failure) -> None:
        """Say that the record refuses one unit, or question, while it takes other changes. The stage does not pause."""
        reason = f"the record refuses this again and takes other changes: {failure.message}"
        action = "look at the database, `watcher db check`; it is tried again every few minutes"
        fault = Fault(stage.name, "machine", action)
        await self._note(fault, (stage.name, unit), Ours(self.hide(reason)), None)

    def is_told(self, stage: Stage, unit: int) -> bool:
        """Say whether it is said already that a unit shows a fault of the program."""
        return (_unexpected_of(stage, unit), "unexpected") in self._open

    async def asks_again(self, stage: Stage) -> None:
        """Close the conditions that were open because `due` of this stage failed."""
        key = (stage.name, ALL_UNITS)
        over = [one for one, troubled in self._troubled.items() if troubled.pop(key, None) is not None]
        await self._close([one for one in over if not self._in_trouble(one)])

    async def succeeded(self, stage: Stage, unit: int) -> None:
        """Close what this success was the last to wait for."""
        await self._relieve(stage, unit, KINDS)

    async def _relieve(self, stage: Stage, unit: int, kinds: tuple[str, ...]) -> None:
        for (_, kind), troubled in self._troubled.items():
            if kind in kinds:
                troubled.pop((stage.name, unit), None)
        closing = [
            one for one in self._open if one[1] in kinds and self._concerns(one, stage) and not self._in_trouble(one)
        ]
        await self._close(closing)

    async def forget(self) -> None:
        """Close what nothing has failed at for so long that nothing can be in trouble any more."""
        now = self._context.clock.monotonic()
        await self._close([one for one in self._open if self._over_at[one] <= now])

    async def _close(self, closing: Sequence[tuple[str, str]]) -> None:
        if not closing:
            return
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            for subject, kind in closing:
                await close_condition(session, subject, kind, now=now)
        for one in closing:
            self._open.discard(one)
            self._troubled.pop(one, None)

    def _stays_open(self, condition: tuple[str, str], retry_at: datetime | None, now: datetime) -> timedelta:
        """Note that a condition is open; returns how long it is not tried again."""
        wait = max(retry_at - now, timedelta()) if retry_at else timedelta()
        self._open.add(condition)
        self._over_at[condition] = self._context.clock.monotonic() + (wait + _OVER_AFTER).total_seconds()
        return wait

    def _concerns(self, condition: tuple[str, str], stage: Stage) -> bool:
        subject, kind = condition
        return subject in (stage.service, stage.name) or kind == "unexpected"

    def _in_trouble(self, condition: tuple[str, str]) -> bool:
        now = self._context.clock.monotonic()
        return any(until > now for until in self._troubled.get(condition, {}).values())

    async def _note(self, fault: Fault, key: Key, failure: Failure, asked: timedelta | None) -> None:
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            earlier = await find(session, fault.subject, fault.kind)
            retry_at = now + asked if asked else None
            if earlier is not None and earlier.retry_at is not None and earlier.retry_at > now:
                # Another unit of the same round: only what a server asks for makes the pause longer.
                earlier.retry_at = retry_at = max(earlier.retry_at, retry_at or now)
            else:
                if fault.first and retry_at is None:
                    attempts = (earlier.attempts if earlier else 0) + 1
                    retry_at = now + backoff(attempts, self._context.random, first=fault.first, longest=fault.longest)
                await open_condition(
                    session,
                    fault.subject,
                    fault.kind,
                    reason=failure.message,
                    action=fault.action,
                    now=now,
                    retry_at=retry_at,
                )
        forgotten_in = self._stays_open((fault.subject, fault.kind), retry_at, now) + 2 * fault.units_wait
        troubled = self._troubled.setdefault((fault.subject, fault.kind), {})
        troubled[key] = self._context.clock.monotonic() + forgotten_in.total_seconds()
