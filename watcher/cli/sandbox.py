"""`watcher sandbox`: the two stand-in servers in the foreground."""

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from watcher.cli.common import AsJson
from watcher.cli.output import UsageProblem, say, say_json
from watcher.cli.shapes import Age
from watcher.errors import Ours

if TYPE_CHECKING:
    from watcher.sandbox import Sandbox


def sandbox(
    age: Annotated[Age, typer.Option(help="The Fragalysis API of this year.")] = Age.NEWER,
    ports: Annotated[
        str, typer.Option(metavar="A,B", help="Ports of Fragalysis and Molecule.one on 127.0.0.1; 0: a free one.")
    ] = "8901,8902",
    seconds_per_molecule: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Time that Molecule.one takes for a compound; four are scored at a time."
        ),
    ] = 1.0,
    queue_seconds: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Time that a batch waits before it begins.")
    ] = 5.0,
    build_seconds: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Time that Fragalysis takes to build an archive.")
    ] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Serve the two stand-in services, until Ctrl-C.

    A Fragalysis and a Molecule.one on this machine, for trying settings out and for tests. Nothing leaves the machine,
    nothing costs money, and all is forgotten at the end. It prints the settings to use and how to make things happen or
    go wrong.
    """
    fragalysis_port, molecule_one_port = _ports(ports)
    from watcher.sandbox import Sandbox

    servers = Sandbox(
        age=age.value,
        seconds_per_molecule=seconds_per_molecule,
        queue_seconds=queue_seconds,
        build_seconds=build_seconds,
        fragalysis_port=fragalysis_port,
        molecule_one_port=molecule_one_port,
    )
    asyncio.run(_serve(servers, as_json=as_json))


def _ports(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() and int(part) < 65536 for part in parts):
        raise UsageProblem(f"--ports {text}: must be two ports such as 8901,8902, or 0,0 for free ones")
    return int(parts[0]), int(parts[1])


async def _serve(servers: "Sandbox", *, as_json: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await servers.__aenter__()
    except OSError as error:
        raise Ours(
            f"a port cannot be opened: {error.strerror or error}", action="name free ones with --ports A,B"
        ) from None
    try:
        _introduce(servers, as_json=as_json)
        await stop.wait()
    finally:
        await servers.close()


def _introduce(servers: "Sandbox", *, as_json: bool) -> None:
    fragalysis, molecule_one = servers.fragalysis, servers.molecule_one
    if as_json:
        say_json(
            {
                "fragalysis": {"url": fragalysis.url, "token": fragalysis.session_token},
                "molecule_one": {"url": molecule_one.url, "token": molecule_one.token},
            }
        )
    else:
        text = _TEXT.format(fragalysis=fragalysis, molecule_one=molecule_one, routes=_routes())
        for line in text.split("\n"):
            say(line)
    sys.stdout.flush()


def _routes() -> str:
    """Return the control routes, as the package's own description lists them."""
    from watcher import sandbox

    text = (sandbox.__doc__ or "").partition("Control over HTTP")[2]
    return f"Control over HTTP{text}".strip()


_TEXT = """\
Fragalysis    {fragalysis.url}    session token: {fragalysis.session_token}
Molecule.one  {molecule_one.url}    token: {molecule_one.token}

Settings to use (config.toml):

[fragalysis]
stack = "{fragalysis.url}"
token = "{fragalysis.session_token}"
requests_per_second = 20.0
settle = "0s"

[molecule_one]
base_url = "{molecule_one.url}"
token = "{molecule_one.token}"
requests_per_second = 20.0
poll_interval = "1s"

{routes}

One more upload, for example:

  curl -X POST {fragalysis.url}/sandbox/publish -d '{{"target": "A71EV2A", "target_access_string": "lb32627-66"}}'

Ctrl-C ends it.
"""
