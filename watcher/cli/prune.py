"""`watcher prune`: lets go of superseded archives and old history at once, or says what would go."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from watcher.cli.common import log_quietly, now, record, settings_of, who
from watcher.cli.output import counted, in_words, say, size, table
from watcher.errors import Failure

if TYPE_CHECKING:
    from watcher.settings import Settings


@dataclass
class _Done:
    """What was removed, or would be."""

    archives: list[tuple[object, ...]] = field(default_factory=list)
    bytes: int = 0
    left: list[str] = field(default_factory=list)
    """Why an archive could not be removed."""
    history: dict[str, int] = field(default_factory=dict)


def prune(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and change nothing.")] = False,
) -> None:
    """Remove superseded archives and old history.

    That is what `watcher run` does every hour: archives beyond `download.keep_uploads`, and changes of state,
    conditions that are over and messages that were sent, older than `database.keep_transitions`. Never the current
    upload of a target; uploads, compounds, claims, batches and scores stay forever. Works beside `watcher run`.
    """
    settings = settings_of(context)
    log_quietly(settings)
    done = asyncio.run(_prune(settings, dry_run=dry_run))
    verb = "would be removed" if dry_run else "removed"
    if done.archives:
        headers = ("target", "TAS", "upload", "size", "folder")
        table(
            headers, done.archives, title=f"Archives that {'would be' if dry_run else 'were'} removed", numbers=(2, 3)
        )
    say(f"{counted(len(done.archives), 'archive')} {verb}, {size(done.bytes)}.")
    say(f"History {verb}: {in_words(done.history)}.")
    for why in done.left:
        say(f"not removed: {why}", error=True)
    raise typer.Exit(1 if done.left else 0)


async def _prune(settings: "Settings", *, dry_run: bool) -> _Done:
    from watcher.archives import removal
    from watcher.pipeline import prune as stage
    from watcher.store import retention

    done, moment = _Done(), now()
    async with record(settings, write=not dry_run) as store:
        async with store.read() as session:
            archives = await stage.superseded(session, settings)
        for archive in archives:
            try:
                path, files = stage.places(settings, archive)
                held = await asyncio.to_thread(removal.size_of, path, files)
                if await asyncio.to_thread(removal.is_pointed_at, path.parent):
                    continue
                if dry_run or await stage.remove(store, settings, archive, now=moment, who=who()):
                    row = (archive.target, archive.target_access_string, archive.upload_index, size(held), path.parent)
                    done.archives.append(row)
                    done.bytes += held
            except Failure as failure:
                done.left.append(failure.message)
        if dry_run:
            keep = settings.database.keep_transitions
            async with store.read() as session:
                done.history = await retention.count_history(session, moment - keep) if keep else {}
        else:
            done.history = await stage.forget_history(store, settings, moment)
    return done
