"""`watcher retry`: takes up what was set aside."""

import asyncio
from typing import TYPE_CHECKING

import typer

from watcher.cli.common import OneTarget, log_quietly, named_targets, now, record, settings_of, who
from watcher.cli.output import say

if TYPE_CHECKING:
    from watcher.settings import Settings


def retry(
    context: typer.Context,
    target: OneTarget = None,
) -> None:
    """Take up what was set aside; never buys.

    Archives that could not be had, and uploads that could not be read, are due again. `watcher run` begins within
    seconds; without it, the next `watcher once` does.
    """
    settings = settings_of(context)
    log_quietly(settings)
    taken = asyncio.run(_retry(settings, target))
    for line in taken:
        say(line)
    say("`watcher run` begins within seconds, else the next `watcher once` does." if taken else "Nothing is set aside.")


async def _retry(settings: "Settings", named: str | None) -> list[str]:
    from watcher.pipeline.uploads import subject_of
    from watcher.store import legs, targets, upload_queues
    from watcher.store.conditions import close_condition

    taken: list[str] = []
    moment, person = now(), who()
    async with record(settings, write=True) as store, store.write() as session:
        ids = None if named is None else [target.id for target in await named_targets(session, named)]
        for stuck in await upload_queues.stuck_legs(session, ids):
            upload, target = await targets.upload_with_target(session, stuck.id)
            subject = subject_of(target, upload)
            if upload.archive_state in ("quarantined", "unavailable") and settings.download.enabled:
                legs.set_archive_state(session, upload, "wanted", now=moment, why="asked to retry", who=person)
                await close_condition(session, subject, "archive_quarantined", "archive_unavailable", now=moment)
                taken.append(f"{subject}: the archive is due again")
            if upload.scoring_state == "quarantined":
                legs.set_scoring_state(session, upload, "detected", now=moment, why="asked to retry", who=person)
                await close_condition(session, subject, "scoring_quarantined", now=moment)
                taken.append(f"{subject}: scoring is due again")
    return taken
