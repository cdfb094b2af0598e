"""Settling, for `watcher once` and the demo: turns until nothing can move without a person or a long wait."""

import asyncio
from datetime import datetime, timedelta

from watcher.pipeline.runner import Runner
from watcher.store.engine import RecordUnavailable
from watcher.store.waits import Waits, waits

PATIENCE = timedelta(minutes=1)
"""Longest wait that `watcher once` sits out."""
_SHORTEST_SLEEP = timedelta(milliseconds=50)
_STALLED = 5  # looks at something overdue that no stage starts, before it counts as nothing to wait for


async def settle(runner: Runner) -> None:
    """Give turns until nothing can move without a person or a wait of more than a minute."""
    stalled = 0
    while not runner.is_stopped:
        runner.changed.clear()
        if await runner.turn() or runner.changed.is_set():  # what ended meanwhile may be what another stage waits for
            stalled = 0
            continue
        # What is due already is under way, or waits for a free place; only what comes due later can be slept for.
        busy = runner.is_busy
        wait = await _next_wait(runner, later=busy or stalled >= _STALLED)
        if busy:
            stalled = 0
            await _wait_for_change(runner, wait)
        elif wait is None:
            return
        else:
            stalled += wait <= timedelta()
            await runner.context.clock.sleep(max(wait, _SHORTEST_SLEEP))


async def _wait_for_change(runner: Runner, wait: timedelta | None) -> None:
    """Return when a unit ends, or when the next one is due."""
    if wait is None:
        await runner.changed.wait()
        return
    sleeping = asyncio.create_task(runner.context.clock.sleep(max(wait, _SHORTEST_SLEEP)))
    changing = asyncio.create_task(runner.changed.wait())
    try:
        await asyncio.wait((sleeping, changing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleeping.cancel()
        changing.cancel()
        await asyncio.gather(sleeping, changing, return_exceptions=True)


async def _next_wait(runner: Runner, *, later: bool) -> timedelta | None:
    """Return how long nothing can move; None when only a person, or a longer wait, can move anything.

    With `later`, what is due already is left out.
    """
    now = runner.context.clock.now()
    if runner.record_away is not None:
        return runner.record_away
    try:
        async with runner.context.store.read() as session:
            found = await waits(
                session,
                archives=runner.context.settings.download.enabled,
                first_look_at=runner.first_look_at,
                after=now if later else None,
            )
    except RecordUnavailable as failure:
        runner.note_record_away(failure)
        return timedelta(seconds=1)
    return patient_wait(found, now)


def patient_wait(waits: Waits, now: datetime) -> timedelta | None:
    """Return how long to wait for what is due next; None when it is not worth it.

    A batch that the service works on is waited for however long it takes.
    """
    wait = waits.next_at - now if waits.next_at else None
    if waits.at_work:
        return PATIENCE if wait is None else min(wait, PATIENCE)
    return wait if wait is not None and wait <= PATIENCE else None
