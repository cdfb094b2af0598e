"""`watcher once`: one full pass."""

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from watcher.cli.common import log_as_set, now, settings_of
from watcher.cli.output import counted, in_words, say, shown

if TYPE_CHECKING:
    from watcher.cli.progress import Ended
    from watcher.program import Program
    from watcher.settings import Settings


def once(
    context: typer.Context,
    timeout: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Stop after this time, such as 90s, 15m or 2h, and exit with 1."),
    ] = None,
) -> None:
    """Make one full pass, until everything is settled.

    It scans, downloads, buys, and waits for the scores. Settled means that nothing can move without a person, or
    without a wait of more than a minute. What a stop leaves undone is taken up by the next call; nothing is bought
    twice.

    Exit codes: 0 done; 1 failed or --timeout passed; 3 done, but something needs attention (see `watcher status`).
    """
    settings = settings_of(context)
    raise typer.Exit(asyncio.run(_once(settings, _duration(timeout))))


def _duration(text: str | None) -> timedelta | None:
    if text is None:
        return None
    from watcher.settings import parse_duration

    try:
        duration = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--timeout") from None
    if duration <= timedelta():
        raise typer.BadParameter("must be greater than zero", param_hint="--timeout")
    return duration


async def _once(settings: "Settings", timeout: timedelta | None) -> int:
    from watcher import log
    from watcher.cli import progress
    from watcher.program import opened

    asyncio.get_running_loop().set_exception_handler(log.handle_loop_exception)
    with_bars = progress.wants_bars() and settings.log.format != "json"
    with progress.bars() if with_bars else progress.nothing() as show:
        if with_bars and settings.log.level == "info":
            settings = settings.replace("log", level="warning")  # the bars tell what the lines would
        log_as_set(settings)
        began = now()
        async with opened(settings, "once") as program:
            ended = await progress.run_pass(program, show, timeout=timeout)
            lines, needs_attention = await _summary(program, began, ended)
    for line in lines:
        say(line)
    return 3 if needs_attention else 0 if ended == "settled" else 1


async def _summary(program: "Program", began: datetime, ended: "Ended") -> tuple[list[str], int]:
    from watcher.store import overview
    from watcher.store.progress import happened_since

    async with program.context.store.read() as session:
        done = await happened_since(session, began)
        counts = await overview.counts(session)
        attention = await overview.needs_attention(session)
    took = round((now() - began).total_seconds())
    how = {"settled": "Settled", "timeout": "Stopped by --timeout", "interrupted": "Stopped"}[ended]
    lines = [
        f"{how} after {took} s: {counted(counts.targets['followed'], 'target')} followed.",
        f"  new uploads    {done.uploads}",
        f"  archives       {done.archives} stored",
        f"  sent           {counted(done.compounds_sent, 'compound')} in {counted(done.batches, 'batch', 'batches')}",
        f"  results        {in_words({state.replace('_', ' '): number for state, number in done.results.items()})}",
    ]
    if counts.withheld:
        lines.append(f"  held back      {in_words(counts.withheld)}")
    if ended != "settled":
        lines.append("What is left is taken up by the next `watcher once` or `watcher run`.")
    if attention:
        lines.append(f"Needs attention ({len(attention)}; see `watcher status`):")
        lines += [f"  {one.subject}: {one.reason} (since {shown(one.since)}); {one.action}" for one in attention]
    return lines, len(attention)
