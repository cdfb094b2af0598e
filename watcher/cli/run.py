"""`watcher run`: the daemon."""

import asyncio

import typer

from watcher.cli.common import log_as_set, settings_of


def run(context: typer.Context) -> None:
    """Watch until SIGTERM or Ctrl-C.

    It scans, downloads, buys and collects as time goes by. It logs when it is ready, and serves /livez, /readyz and
    /metrics at [server] listen. A second `watcher run` or `watcher once` on the same record is turned away; every other
    command works beside it.
    """
    settings = settings_of(context)
    log_as_set(settings)
    from watcher import daemon

    raise typer.Exit(asyncio.run(daemon.run(settings)))
