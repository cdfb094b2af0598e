"""systemd's notification protocol (sd_notify(3), sd_watchdog_enabled(3)), as far as the daemon speaks it."""

import os
import socket
from collections.abc import MutableMapping
from datetime import timedelta

_LASTING = ("READY", "STATUS", "STOPPING")
"""What still holds when it is told a little later; a WATCHDOG of then would be a lie."""


class ServiceManager:
    """Whoever started the daemon, and listens at $NOTIFY_SOCKET; there may be nobody.

    Its variables are taken out of `environ`, so that no child process speaks in our name.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        period, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address  # "@": no file, an abstract name
        self._socket: socket.socket | None = None
        self._unsent: dict[str, str | int] = {}
        if address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        watched = self.listens and period.isdecimal() and int(period) > 0 and pid in ("", str(os.getpid()))
        self.watchdog = timedelta(microseconds=int(period)) if watched else None
        """Longest silence after which it takes the daemon for hung; None when it does not watch."""

    @property
    def listens(self) -> bool:
        """Whether there is anybody to tell."""
        return self._socket is not None

    def tell(self, **facts: str | int) -> None:
        """Say something, such as READY=1 or STATUS="..."; neither waits nor raises.

        What a full or absent socket does not take is said again with the next word, where it still holds.
        """
        if self._socket is None:
            return
        facts = self._unsent | facts
        message = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in facts.items())
        try:
            self._socket.sendto(message.encode("utf-8", "replace"), self._address)
            self._unsent = {}
        except OSError:
            self._unsent = {name: value for name, value in facts.items() if name in _LASTING}

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
