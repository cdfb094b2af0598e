"""How connections are made: certificates, the proxy, and how far a request over one of them got."""

import ssl
import urllib.request
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import aiohttp
from yarl import URL

from watcher.errors import Ours
from watcher.http_faults import Dropped, describe
from watcher.settings import HttpSettings


@dataclass(slots=True)
class Trace:
    """How far a request got; given to it as `trace_request_ctx`."""

    connected: bool = False


def new_session(
    origin: URL, settings: HttpSettings, *, user_agent: str, force_close: bool = False
) -> aiohttp.ClientSession:
    """Return a session with one origin, to be closed by the caller; its requests need a time-out and a `Trace`.

    Raises Ours when the certificates or the proxy cannot be used.
    """
    trace = aiohttp.TraceConfig()
    # Fires once TCP, proxy tunnel and TLS stand, before the first byte of the request (aiohttp 3.14, connector.py).
    trace.on_connection_create_end.append(_note_connected)
    trace.on_connection_reuseconn.append(_note_connected)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=_tls(settings.ca_file), force_close=force_close, limit=16),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": user_agent, "Accept": "application/json"},
        proxy=_proxy_for(origin) if settings.trust_env else None,
        trust_env=False,  # true would read ~/.netrc too, and a match there clashes with our Authorization header
        trace_configs=[trace],
        middlewares=(_never_again,),
    )


@cache
def _tls(ca_file: Path | None) -> ssl.SSLContext:
    """Return the one context for all connections: reading the certificates of a system takes a while."""
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:
        raise Ours(f"http.ca_file {ca_file} cannot be used: {error.strerror or error}") from None


def _proxy_for(origin: URL) -> URL | None:
    """Return the proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name for an origin. Raises Ours when it is no URL."""
    if urllib.request.proxy_bypass(origin.authority):
        return None
    proxy = urllib.request.getproxies().get(origin.scheme)
    if not proxy:
        return None
    try:
        url = URL(proxy if "://" in proxy else f"http://{proxy}")
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise Ours(f"{origin.scheme.upper()}_PROXY is no URL of a proxy; write for example http://host:3128")
    return url


async def _note_connected(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
    context.trace_request_ctx.connected = True


async def _never_again(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from repeating an idempotent request by itself when a connection drops: we count the tries."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise Dropped(describe(error)) from None
