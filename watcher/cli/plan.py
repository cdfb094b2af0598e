"""`watcher plan`: what a pass would do, and what that would cost."""

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from watcher.cli.common import AsJson, NoRecord, log_quietly, record, settings_of
from watcher.cli.output import counted, in_words, money, say, say_json, table

if TYPE_CHECKING:
    from watcher.pipeline.plan import Plan, TargetPlan
    from watcher.settings import Settings


def plan(context: typer.Context, as_json: AsJson = False) -> None:
    """Show what a pass would do and cost; changes nothing.

    It reads the uploads and the observations that are new, and rehearses the pass on a copy of the record, so limits,
    privacy and a changed scoring profile are taken into account. Notes say what would keep the pass from sending. Works
    without a record, and beside `watcher run`.
    """
    settings = settings_of(context)
    log_quietly(settings)
    found = asyncio.run(_plan(settings))
    if as_json:
        say_json(asdict(found))
    else:
        _print(found)


async def _plan(settings: "Settings") -> "Plan":
    from watcher.clock import SystemClock
    from watcher.pipeline.plan import make_plan

    try:
        async with record(settings) as store:
            return await make_plan(settings, store, clock=SystemClock())
    except NoRecord:
        return await make_plan(settings, None, clock=SystemClock())


def _print(found: "Plan") -> None:
    rows = [
        (
            f"{one.target}@{one.target_access_string}",
            ", ".join(map(str, one.uploads_new)) or "-",
            "yes" if one.download else "-",
            one.observations,
            one.send,
            one.bought,
            one.shared,
            sum(one.withheld.values()),
            sum(one.rejected.values()),
        )
        for one in found.targets
    ]
    headers = ("target", "uploads", "fetch", "obs.", "send", "bought", "shared", "held", "rejected")
    table(headers, rows, title="What a pass would do", numbers=(3, 4, 5, 6, 7, 8))
    for one in found.targets:
        _details(one)
    say()
    cost = "" if found.cost is None else f", at a cost of {money(found.cost)}"
    number = counted(found.compounds, "compound")
    batches = counted(found.batches, "batch", "batches")
    say(f"It would send {number} in {batches}{cost}.", bold=True)
    downloads = sum(one.download for one in found.targets)
    say(f"It would download {counted(downloads, 'archive')}.")
    if found.allowance is not None:
        say(f"The daily limit allows {counted(found.allowance, 'compound')} now.")
    if not found.profile_approved:
        say("The scoring profile is new: nothing is sent before `watcher approve --profile`.")
    for note in found.notes:
        say(f"note: {note}")


def _details(one: "TargetPlan") -> None:
    name = f"{one.target}@{one.target_access_string}"
    if one.withheld:
        say(f"  {name} withheld: {in_words(one.withheld)}")
    if one.rejected:
        say(f"  {name} rejected: {in_words(one.rejected)}")
    if one.problem:
        say(f"  {name} could not be read: {one.problem}")
