"""`watcher health`: asks the daemon whether it is well. A container does so every half minute, so it must be quick."""

import json
import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watcher.cli.common import settings_of
from watcher.cli.output import say
from watcher.errors import SettingsError, WatcherError

if TYPE_CHECKING:
    from collections.abc import Mapping

PATIENCE_S = 8.0
"""Longest wait for the answer; the daemon waits five seconds for its database."""
_LISTEN = "127.0.0.1:9464"
_LARGEST_ANSWER = 1 << 20


def health(
    context: typer.Context,
    ready: Annotated[
        bool, typer.Option("--ready", help="Ask whether it does its work, not only whether it lives.")
    ] = False,
) -> None:
    """Ask the daemon whether it is well.

    It asks /livez, or /readyz with --ready, at [server] listen of the settings: for the health checks of containers and
    for scripts. Exit codes: 0 it is; 1 it is not, or does not answer; 2 [server] listen names no place to ask.
    """
    listen, token = _server(context)
    host, port = _place(listen)
    path = "/readyz" if ready else "/livez"
    status, body = _ask(host, port, path, token)
    reason = body.get("reason") or f"{path} answered {status}"
    if status == 401:
        raise WatcherError(f"the daemon at {listen} does not know this server.token: it was started with another one")
    if status != 200:
        raise WatcherError(f"the daemon at {listen} is not well: {reason}")
    say("ready" if ready else "alive")
    for condition in body.get("conditions", []):
        say(f"  {condition['subject']}: {condition['reason']}")


def _server(context: typer.Context) -> tuple[str, str]:
    """Return `server.listen` and the token in force."""
    call = context.find_root().obj
    quick = quick_look(call.config, os.environ)
    if quick is not None:
        return quick
    server = settings_of(context).server
    return server.listen, server.token.get_secret_value()


def quick_look(config: Path | None, environ: "Mapping[str, str]") -> tuple[str, str] | None:
    """Return `server.listen` and the token without a check of all settings, which takes most of a second.

    None when something looks odd: then the check says what.
    """
    import tomllib

    from watcher.settings_files import find_config, read_secret

    variables = {name.upper(): value for name, value in environ.items()}
    try:
        file = find_config(config, environ)
        table = tomllib.loads(file.read_text(encoding="utf-8")).get("server", {}) if file else {}
        listen, token, token_file = (
            variables.get(f"WATCHER_SERVER__{name}".upper(), table.get(name, default))
            for name, default in (("listen", _LISTEN), ("token", ""), ("token_file", ""))
        )
        if token_file:
            token = read_secret(Path(token_file))
        fits = re.fullmatch(r"|.+:[0-9]{1,5}", listen) and re.fullmatch(r"[\x21-\x7e]*", token)
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return None
    return (listen, token) if fits else None


def _place(listen: str) -> tuple[str, int]:
    """Return the host and port to ask. Raises SettingsError when there is none."""
    host, _, port = listen.rpartition(":")
    if not listen:
        raise SettingsError("server.listen is empty: the daemon has no server to ask; set it, or ask `watcher status`")
    if int(port) == 0:
        raise SettingsError(f"server.listen = {listen!r} is another port at each start; set one to ask")
    host = host.strip("[]")
    try:
        address = ip_address(host)
    except ValueError:
        return host, int(port)
    if address.is_unspecified:  # "everywhere" is no address to ask
        host = "127.0.0.1" if address.version == 4 else "::1"
    return host, int(port)


def _ask(host: str, port: int, path: str, token: str) -> tuple[int, dict[str, Any]]:
    """Return the status and what the body says. Raises WatcherError when no answer comes."""
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection(host, port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        body = answer.read(_LARGEST_ANSWER)
    except (OSError, OverflowError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise WatcherError(f"no daemon answers at {host}, port {port}: {reason.lower()}") from None
    finally:
        connection.close()
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    return answer.status, document if isinstance(document, dict) else {}
