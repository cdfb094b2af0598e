"""`watcher notify`: whether messages arrive."""

import asyncio
from typing import TYPE_CHECKING

import typer

from watcher.cli.common import log_quietly, settings_of
from watcher.cli.output import say
from watcher.errors import Failure

if TYPE_CHECKING:
    from watcher.settings import Settings

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Try whether messages to people arrive.")


@app.callback()
def _group() -> None:
    """Keep `test` a command of its own while it is the only one."""


@app.command()
def test(context: typer.Context) -> None:
    """Send a test message to each URL of the settings.

    It prints a line each: "ok", or what is wrong. URLs are named by their place in the settings and by what stands
    before `://`; the rest is a secret. Works beside `watcher run`. Exit code 1 when a line is not ok.
    """
    settings = settings_of(context)
    log_quietly(settings)
    if not settings.notify.urls:
        say("notify.urls is empty: nobody is told anything", error=True)
        raise typer.Exit(1)
    raise typer.Exit(0 if asyncio.run(_test(settings)) else 1)


async def _test(settings: "Settings") -> bool:
    from watcher.notify import Letter
    from watcher.notify_process import Notifier, label_of

    told = ", ".join(settings.notify.events) or "nothing"
    letter = Letter("Fragalysis Watcher: a test", f"Messages arrive here. What is told: {told}.", "info")
    notifier = Notifier(settings.http)
    all_well = True
    for number, url in enumerate(settings.notify.urls, start=1):
        label = label_of(number, url.get_secret_value())
        try:
            await notifier.send(url.get_secret_value(), letter)
        except Failure as failure:
            all_well = False
            say(f"{label}: NOT OK: {failure.message}")
        else:
            say(f"{label}: ok, sent")
    return all_well
