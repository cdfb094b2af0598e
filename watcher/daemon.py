"""The daemon's whole life on one page: start, ready, watch, drain."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack, closing
from datetime import timedelta

import structlog

from watcher import __version__
from watcher.heartbeat import Heart, Pulse, beating, starting
from watcher.log import handle_loop_exception
from watcher.program import opened
from watcher.schedule import working
from watcher.settings import Settings
from watcher.systemd import ServiceManager
from watcher.web.server import Health, serving

_log = structlog.get_logger(__name__)

DRAIN_RESERVE = timedelta(seconds=2)
"""Kept of `daemon.shutdown_timeout` for closing connections and the record."""
MANAGER_RESERVE = timedelta(seconds=20)
"""What the service manager is asked for beyond that, in case the record is slow to close."""


class Ending:
    """Why the daemon ends: a signal, or the first background task that failed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.signal: str | None = None
        self.failure: BaseException | None = None

    def on_signal(self, name: str) -> None:
        """End in order."""
        self.signal = self.signal or name
        self._event.set()

    def on_failure(self, failure: BaseException) -> None:
        """End with a reason: no silent half-life. What fails while the daemon ends is no reason."""
        if not self._event.is_set():
            self.failure = failure
            self._event.set()

    async def wait(self) -> None:
        """Return when there is a reason to end."""
        await self._event.wait()


async def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT (returns 0), or until a background task fails (returns 1).

    Raises AlreadyRunning, NewerRecord or Ours when it cannot start.
    """
    ending = Ending()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(handle_loop_exception)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.on_signal, number.name)

    grace = settings.daemon.shutdown_timeout
    async with AsyncExitStack() as stack:
        # Start
        manager = stack.enter_context(closing(ServiceManager(os.environ)))
        async with starting(manager):
            program = await stack.enter_async_context(opened(settings, "run"))
            pulse = Pulse(program)
            health = Health(program, pulse)
            address = await stack.enter_async_context(serving(settings.server, health))
            schedule = await stack.enter_async_context(working(settings, program, ending.on_failure))

        # Ready
        health.schedule = schedule
        heart = Heart(manager, program, pulse, schedule)
        async with beating(manager, heart, grace + MANAGER_RESERVE, ending.on_failure):
            _log.info("daemon_ready", version=__version__, record=program.context.store.label, listen=address)

            # Watch
            await ending.wait()

        # Drain
        health.schedule = None
        _log.info("daemon_stopping", signal=ending.signal, failure=repr(ending.failure) if ending.failure else None)
        await program.runner.stop(grace - DRAIN_RESERVE)
    if ending.failure is not None:
        _log.error("daemon_failed", reason=str(ending.failure), exc_info=ending.failure)
        return 1
    _log.info("daemon_stopped")
    return 0
