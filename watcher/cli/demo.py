"""`watcher demo`: the whole job on the sandbox, told step by step."""

import asyncio
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watcher.cli.output import on_terminal, say
from watcher.cli.shapes import Age, ApiVersion
from watcher.errors import WatcherError

if TYPE_CHECKING:
    from watcher.cli.progress import Show
    from watcher.cli.story import Story
    from watcher.sandbox import Sandbox
    from watcher.settings import Settings

NEW_UPLOAD = ("A71EV2A", "lb32627-66")


def demo(
    directory: Annotated[
        Path, typer.Option(metavar="DIR", help="Where to keep it: a new folder, or that of an earlier demo.")
    ] = Path("watcher-demo"),
    age: Annotated[Age, typer.Option(help="The Fragalysis API of this year.")] = Age.NEWER,
    api_version: Annotated[ApiVersion, typer.Option(help="The version of the Molecule.one API.")] = ApiVersion.V1,
) -> None:
    """See the whole job in half a minute, at no cost.

    It needs neither settings nor an account. It starts a stand-in Fragalysis and a stand-in Molecule.one on this
    machine, archives five targets, buys and ranks the scores of their compounds, and shows what one further upload
    costs. Nothing else is contacted. A demo takes the place of an earlier one in the same folder.
    """
    from watcher.cli.demo_folder import prepared

    place = prepared(directory)
    raise typer.Exit(asyncio.run(_demo(place, age, api_version)))


async def _demo(place: Path, age: Age, api_version: ApiVersion) -> int:
    from watcher import log
    from watcher.cli.demo_folder import LOG, settings_for
    from watcher.cli.story import Story
    from watcher.sandbox import Sandbox
    from watcher.settings_source import secrets_of

    asyncio.get_running_loop().set_exception_handler(log.handle_loop_exception)
    sandbox = Sandbox(age=age.value, seconds_per_molecule=0.2, queue_seconds=1.0, build_polls=1)
    with (place / LOG).open("w", encoding="utf-8") as log_file:
        async with sandbox:
            settings = settings_for(place, sandbox, api_version)
            log.configure(settings.log, secrets=secrets_of(settings), stream=log_file)
            try:
                settled = await _tell(Story(place, settings, sandbox), sandbox, settings)
            except WatcherError:
                raise
            except Exception as error:
                log.get_logger(__name__).exception("demo_failed")
                raise WatcherError(f"the demo failed, {error!r}; {place / LOG} holds the details") from error
    if not settled:
        say("Stopped.")
    return 0 if settled else 1


async def _tell(story: "Story", sandbox: "Sandbox", settings: "Settings") -> bool:
    """Run both passes and tell them; returns whether nobody stopped them."""
    from watcher.cli.progress import run_pass
    from watcher.program import opened

    story.begin()
    async with opened(settings, "demo") as program:
        with _bars_or_lines() as show:
            if await run_pass(program, show) != "settled":
                return False
        await story.first_pass(program.context.store)
        sandbox.fragalysis.publish(*NEW_UPLOAD)
        story.one_more_upload(*NEW_UPLOAD)
        with _bars_or_lines() as show:
            if await run_pass(program, show) != "settled":
                return False
        await story.second_pass(program.context.store, *NEW_UPLOAD)
    await story.end()
    return True


def _bars_or_lines() -> "AbstractContextManager[Show]":
    from watcher.cli import progress

    return progress.bars() if on_terminal() and on_terminal(sys.stderr) else progress.lines()
