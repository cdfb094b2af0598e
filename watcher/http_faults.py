"""What can go wrong between us and a service: its kind, its words, and whether a second try at once is worth it.

No message holds the URL: its query can hold a link that works as a secret.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import aiohttp

from watcher.errors import Ours, Transient

OUT_OF_RESOURCES = "find out what uses up the open files or the memory of this machine; the program goes on by itself"
_NETWORK = (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, OSError, EOFError, ValueError)
"""What aiohttp raises when the network or the other side fails; TimeoutError is an OSError."""
_OUT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class Final(Transient):
    """Transient, but not worth a second try at once: it would cost as much again and end the same."""


class Dropped(aiohttp.ClientError):
    """The connection ended before an answer came."""


@contextmanager
def network(what: str) -> Iterator[None]:
    """Turn a network fault of the request `what` into Transient, or into Ours if this machine is out of resources."""
    try:
        yield
    except _NETWORK as error:
        # Without its cause: the cause's text can hold the URL with its query, and tracebacks are logged.
        said = f"{what}: {describe(error)}"
        raise (Ours(said, action=OUT_OF_RESOURCES) if is_ours(error) else Transient(said)) from None


def is_ours(error: BaseException) -> bool:
    """Say whether there is no connection because this machine is out of file descriptors or memory."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return isinstance(cause, OSError) and cause.errno in _OUT_OF


def worth_repeating(error: Exception) -> bool | timedelta:
    """Repeat what is transient; wait as the server asks when that is short, else leave it to the caller's due time."""
    if not isinstance(error, Transient) or isinstance(error, Final):
        return False
    if error.retry_after is None:
        return True
    return error.retry_after if error.retry_after <= timedelta(seconds=3) else False


def describe(error: BaseException) -> str:
    """Say a network error in one line, without the URL."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"the certificate of {error.host} is not trusted ({error.certificate_error})"
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} does not resolve"
        case aiohttp.ClientConnectorError():
            return f"no connection to {error.host}:{error.port} ({error.os_error.strerror or error.os_error})"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answered {error.status}"
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection without an answer"
        case TimeoutError():
            return "timed out"
        case Dropped() | aiohttp.ClientPayloadError() | OSError():
            return str(error) or type(error).__name__
        case _:
            return type(error).__name__
