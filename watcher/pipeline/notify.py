"""Notify: what waits in the outbox is sent, each address for itself, and tried again for as long as it takes.

That a sending begins is committed before it does; a crash before its end is committed costs one repeat.
"""

from collections.abc import Sequence
from datetime import timedelta

from structlog.contextvars import bind_contextvars

from watcher import metrics
from watcher.errors import Failure, Service
from watcher.notices import NOT_TOLD, Waiting, combine, subscription_of
from watcher.notify import Letter
from watcher.notify_process import label_of
from watcher.pipeline.failures import backoff
from watcher.pipeline.stage import Context
from watcher.points import reach
from watcher.store import outbox
from watcher.store.conditions import all_open, close_condition, open_condition
from watcher.store.engine import Session
from watcher.store.schema import Outbox
from watcher.store.transitions import say_after_commit

FAILING = 10
"""Failures in a row after which it is shown: by then some ten minutes have passed."""
SOON = timedelta(seconds=30)
"""For so long after a start, trouble from before may prove to be over."""


class Notify:
    """The stage. A unit is an address: an entry of `notify.urls`, counted from 1."""

    name = "notify"
    service: Service | None = None
    width = 2
    finishes_on_stop = True

    def __init__(self, context: Context) -> None:
        self._context = context
        self._urls = [url.get_secret_value() for url in context.settings.notify.urls]

    async def take_up(self) -> None:
        """At the start: try what has failed, drop what was for addresses that are gone, and show what still fails."""
        now = self._context.clock.now()
        subscription = subscription_of(self._context.settings.notify)
        async with self._context.store.write() as session:
            if dropped := await outbox.take_up(session, subscription, now=now, soon=SOON):
                say_after_commit(session, "notifications_dropped", messages=dropped, reason="their address is gone")
            waiting = {_subject(address) for address in await outbox.pending(session)}
            for condition in await all_open(session):
                if condition.kind == NOT_TOLD and condition.subject not in waiting:
                    await close_condition(session, condition.subject, NOT_TOLD, now=now)

    async def due(self, session: Session) -> Sequence[int]:
        """Return the addresses that a message is due for."""
        return await outbox.due_addresses(session, self._context.clock.now()) if self._urls else []

    async def step(self, unit: int) -> None:
        """Send what is due for an address as one message."""
        url = self._urls[unit - 1]
        label = label_of(unit, url)
        bind_contextvars(address=label)
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            due = self._chosen(await outbox.due_for(session, unit, now))
            if not due:
                return
            message = combine([Waiting(one.id, one.event, one.subject, one.body) for one in due])
            for one in due:
                one.begun_at = now if one.id in message.covers else None
        reach("notify.begun")
        await self._context.notifier.send(url, Letter(message.subject, message.body, message.tone))
        reach("notify.sent")
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            await outbox.record_sent(session, unit, message.covers, now)
            await close_condition(session, _subject(unit), NOT_TOLD, now=now)
            say_after_commit(session, "notification_sent", messages=len(message.covers))
        metrics.NOTIFICATIONS.labels("sent").inc(len(message.covers))

    def _chosen(self, due: Sequence[Outbox]) -> Sequence[Outbox]:
        """Return what goes into the next message: all that is new, else one of those that were refused together.

        Any, because one of them may be what the service does not like. When one arrives, the others count as new.
        """
        new = [one for one in due if not one.attempts]
        return new or ([self._context.random.choice(due)] if due else [])

    async def put_off(self, unit: int, failure: Failure) -> None:
        """Try this address again after a while; say so once it has taken nothing for long."""
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            failures = await outbox.failures(session, unit) + 1
            due_at = now + backoff(failures, self._context.random)
            tried = await outbox.record_failure(session, unit, failure.message, failures=failures, due_at=due_at)
            if failures >= FAILING:
                waiting = (await outbox.pending(session)).get(unit, 0)
                await open_condition(
                    session,
                    _subject(unit),
                    NOT_TOLD,
                    reason=f"{label_of(unit, self._urls[unit - 1])} takes no messages, {failure.message}; "
                    f"{waiting} wait",
                    action="`watcher notify test` tries it; correct the URL in the settings and start again, "
                    "or wait for its service: nothing that waits is lost",
                    now=now,
                )
        metrics.NOTIFICATIONS.labels("failed").inc(tried)


def _subject(address: int) -> str:
    return f"notify.urls entry {address}"
