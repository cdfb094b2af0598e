"""Opens, in order, everything that a run works with, and closes it again in the reverse order."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from watcher.archives import sweep
from watcher.chemistry_process import Chemistry
from watcher.clock import Clock, SystemClock
from watcher.errors import Failure
from watcher.fragalysis import Fragalysis
from watcher.in_force import in_force
from watcher.molecule_one import MoleculeOne
from watcher.notices import subscription_of
from watcher.notify_process import Notifier
from watcher.notify_process import check as check_notify
from watcher.pipeline.runner import Runner
from watcher.pipeline.stage import Context
from watcher.settings import Settings
from watcher.store import migrate
from watcher.store.engine import Store
from watcher.store.lock import InstanceLock

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Program:
    """What a run works with."""

    context: Context
    runner: Runner
    lock: InstanceLock


@asynccontextmanager
async def opened(
    settings: Settings, command: str, *, clock: Clock | None = None, chemistry: Chemistry | None = None
) -> AsyncIterator[Program]:
    """Open the record (alone, and brought up to date), the services and the chemistry, and give the runner.

    `command` is what another process is told that finds the record in use. However the block ends, nothing is under way
    any more when what it works with is closed. Raises SettingsError, AlreadyRunning, NewerRecord, Ours.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        notifier = Notifier(settings.http)
        await _check_notify(settings, notifier)
        store = await stack.enter_async_context(Store(settings.database, subscription=subscription_of(settings.notify)))
        lock = await stack.enter_async_context(InstanceLock(store, command))
        upgrade = await migrate.upgrade(store, name=uuid.uuid4().hex[:12], now=clock.now())
        if upgrade.before != upgrade.after:
            _log.info("record_upgraded", record=store.label, before=upgrade.before, after=upgrade.after,
                      backup=str(upgrade.backup) if upgrade.backup else None)  # fmt: skip
        _log.info("settings_in_force", **in_force(settings, record=store.label, schema=upgrade.after))
        if settings.download.enabled:
            removed = await asyncio.to_thread(sweep, settings.download.directory)
            if removed:
                _log.info("leftovers_removed", paths=[str(path) for path in removed])
        chemistry = chemistry or Chemistry(max_heavy_atoms=settings.limits.max_heavy_atoms)
        context = Context(
            settings=settings,
            store=store,
            clock=clock,
            fragalysis=await stack.enter_async_context(Fragalysis(settings, clock=clock)),
            molecule_one=await stack.enter_async_context(MoleculeOne(settings, clock=clock)),
            chemistry=await stack.enter_async_context(chemistry),
            notifier=notifier,
        )
        runner = Runner(context, new_record=upgrade.before is None)
        stack.push_async_callback(runner.stop, settings.daemon.shutdown_timeout)
        await runner.start()
        yield Program(context, runner, lock)


async def _check_notify(settings: Settings, notifier: Notifier) -> None:
    """Refuse URLs that Apprise cannot use; when that cannot be found out, the job goes on without."""
    try:
        await check_notify(settings.notify, notifier)
    except Failure as failure:
        _log.warning("notify_urls_unchecked", reason=failure.message)
