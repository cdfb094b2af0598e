"""Finish: an upload whose compounds all have their result is scored."""

from collections.abc import Sequence
from datetime import datetime

from structlog.contextvars import bind_contextvars

from watcher import notices
from watcher.errors import Failure, Service
from watcher.molecule_one import profile_of
from watcher.pipeline.stage import Context
from watcher.points import reach
from watcher.store import claims, legs, outbox, targets
from watcher.store.engine import Session
from watcher.store.schema import Target, Upload
from watcher.store.settlement import settlement


class Finish:
    """The stage. A unit is an upload."""

    name = "finish"
    service: Service | None = None
    width = 1
    finishes_on_stop = False

    def __init__(self, context: Context) -> None:
        self._context = context

    async def due(self, session: Session) -> Sequence[int]:
        """Return the extracted uploads without a compound that still waits."""
        return await claims.settled_uploads(session)

    async def step(self, unit: int) -> None:
        """Record that the upload is scored."""
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            if unit not in await claims.settled_uploads(session):
                return
            upload, target = await targets.upload_with_target(session, unit)
            bind_contextvars(
                target=target.name, target_access_string=target.target_access_string, upload_index=upload.upload_index
            )
            await self._tell(session, target, upload, now)
            legs.set_scoring_state(session, upload, "scored", now=now, why="no compound waits any more")
            upload.scored_at = now
            if target.current_upload_id == upload.id:
                target.last_success_at = now
            reach("finish.recording")

    async def _tell(self, session: Session, target: Target, upload: Upload, now: datetime) -> None:
        """Write the message that says what the upload brought."""
        if (who := outbox.subscription_for(session, "settled")) is None:
            return
        key = profile_of(self._context.settings.molecule_one).key
        facts = await settlement(session, target, upload, key)
        notice = notices.settled(facts, include_structures=who.include_structures)
        outbox.add(session, "settled", notice, outbox.everybody(who), now=now, wait=notices.GATHERING)

    async def put_off(self, unit: int, failure: Failure) -> None:
        """Nothing to write: what is due stays due."""
