"""The command line: thin faces over the program, one module a group of commands.

Importing it costs next to nothing, because each command imports what it needs when it is called.

Exit codes: 0 done; 1 failed; 2 usage or settings; 3 done, but something needs attention (it wins over 1).
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from watcher.cli import (
    approve,
    batches,
    check,
    config,
    database,
    demo,
    export,
    health,
    notify,
    once,
    plan,
    prune,
    retry,
    run,
    sandbox,
    status,
    targets,
)
from watcher.cli.common import Call
from watcher.cli.output import UsageProblem, say
from watcher.errors import Failure, SettingsError, WatcherError


class _Commands(TyperGroup):
    """Turns what the program reports by its own words into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except WatcherError as error:
            raise typer.Exit(_explain(error, ctx.obj)) from None


def _explain(error: WatcherError, call: Call) -> int:
    """Say what happened and what can be done; return the exit code."""
    for line in call.hide(str(error)).split("\n"):
        say(f"error: {line}", error=True)
    if isinstance(error, Failure) and error.action:
        say(f"what to do: {call.hide(error.action)}", error=True)
    return 2 if isinstance(error, SettingsError | UsageProblem) else 1


def _version(asked: bool) -> None:
    if asked:
        from watcher import __version__

        say(f"watcher {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="watcher",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def _main(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Settings file; else $WATCHER_CONFIG, ./config.toml, /etc/watcher/config.toml.",
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Watch Fragalysis for new structures and buy Molecule.one scores, no compound twice.

    Begin with `watcher demo`; it needs neither settings nor an account. Then `watcher config init`, `watcher check`,
    `watcher plan`, and `watcher once` or `watcher run`.

    Exit codes: 0 done; 1 failed, or --timeout passed; 2 usage or settings; 3 done, but something needs attention.
    """
    context.obj = Call(config)


app.command()(demo.demo)
app.command()(run.run)
app.command()(once.once)
app.command()(plan.plan)
app.command()(check.check)
app.command()(status.status)
app.command()(targets.targets)
app.command()(targets.uploads)
app.command()(targets.history)
app.command()(health.health)
app.command()(export.export)
app.command()(retry.retry)
app.command()(approve.approve)
app.command()(prune.prune)
app.add_typer(batches.app, name="batches")
app.add_typer(database.app, name="db")
app.add_typer(config.app, name="config")
app.add_typer(notify.app, name="notify")
app.command()(sandbox.sandbox)


def main() -> None:
    """Run the command line."""
    app()
