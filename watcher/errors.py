"""What can go wrong, as few kinds; each kind knows what happens next.

::

    WatcherError
     ├── SettingsError      the program does not start (exit 2)
     ├── AlreadyRunning     another `run` or `once` holds the record (exit 1)
     └── Failure            something went wrong with one unit of work
          ├── Transient     tried again forever, with backoff; Retry-After wins
          ├── AuthFailure   the service pauses until its credentials work, or one target waits that alone is refused;
          │                 nothing counts as deleted
          ├── Invalid       this one item is set aside with its reason; the others go on
          │    └── NotFound tried for about ten minutes before it is believed
          └── Ours          this machine or the database: pause, start no new effect, resume by itself

Doubt after a paid request has left is no exception but a state of the batch: see `watcher.molecule_one.outcome`.
What follows from a failure: the waits are in `watcher.pipeline.failures`, conditions and pauses in
`watcher.pipeline.health`; what becomes of the unit itself is said by `put_off` of its stage.
"""

from datetime import timedelta
from typing import ClassVar, Literal

Service = Literal["fragalysis", "molecule_one"]


class WatcherError(Exception):
    """Anything the program reports by its own words; the message is for people."""


class SettingsError(WatcherError):
    """A setting is unknown, wrong or unreadable; the message names its key and what is allowed."""


class AlreadyRunning(WatcherError):
    """Another process holds the single-instance lock; the message says who."""


class Failure(WatcherError):
    """One unit of work did not succeed.

    `message` says what happened and to which item; `action` what the reader can do, empty when nothing is needed.
    """

    kind: ClassVar[str] = "failure"

    def __init__(self, message: str, *, action: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.action = action


class Transient(Failure):
    """May well succeed later: connect error, reset, time-out, 5xx, 429, an answer that cannot be read.

    `retry_after` is what the server asked for, if it did.
    """

    kind = "transient"

    def __init__(self, message: str, *, action: str = "", retry_after: timedelta | None = None) -> None:
        super().__init__(message, action=action)
        self.retry_after = retry_after


class AuthFailure(Failure):
    """The service lets us in no more: 401, 403, a sign-in redirect, a deleted session cookie; a refused purchase too.

    A refused purchase (402, 404, 405, a proxy's page) blames account, address or proxy, and no compound.
    """

    kind = "auth"


class Invalid(Failure):
    """A definite answer about this one item, or an item that breaks the contract or its limits."""

    kind = "invalid"


class NotFound(Invalid):
    """A 404 in the words of the service: definite, or of a server that is being changed.

    What follows for an upload is decided by `watcher.pipeline.failures.believed`. The message says what was asked and
    that the answer was 404, up to its first colon.
    """


class Ours(Failure):
    """The fault is on this side: disk full, read-only file system, database locked or gone."""

    kind = "ours"
