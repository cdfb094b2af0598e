"""The process that serves `watcher.chemistry`, so that a molecule which ends it does not end the daemon.

`python -m watcher.chemistry_child` answers each line of JSON on its standard input (`Request`) with one on its standard
output (`Reply`), in order, and ends at end of file. `chemistry_process` is the parent's side.
"""

import json
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import BinaryIO

import msgspec

from watcher.chemistry import canonical, identify
from watcher.chemistry_records import Identity, Rejection, Reply, Request
from watcher.child import confine

_ADDRESS_SPACE = 3 << 30  # bytes; 0.3 GiB is in use after the start, the rest is for one very unusual molecule


def main() -> None:
    """Serve requests from standard input until its end; see the module's docstring."""
    confine()
    # Whatever a library prints goes to standard error: the real standard output carries records only.
    sys.stdout.flush()
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    identify("CCO.Cl")  # loads RDKit and all tables before the first clock runs
    for kind, limit in ((resource.RLIMIT_AS, _ADDRESS_SPACE), (resource.RLIMIT_CORE, 0)):
        with suppress(ValueError, OSError):  # a lower limit is in force already, or the platform has none
            resource.setrlimit(kind, (limit, limit))
    with suppress(BrokenPipeError), replies:  # the parent has gone
        serve(sys.stdin.buffer, replies)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer each request in order. SIGALRM, with its default action, ends a molecule that takes too long."""
    for line in requests:
        # the standard library's JSON reads lone surrogates, which a raw string may hold
        request = msgspec.convert(json.loads(line), Request)
        signal.setitimer(signal.ITIMER_REAL, request.timeout)
        result = _answer(request)
        signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(msgspec.json.encode(Reply(request.id, result)) + b"\n")
        replies.flush()


def _answer(request: Request) -> Identity | Rejection | str | None:
    match request.op:
        case "identify":
            return identify(request.text, max_heavy_atoms=request.max_heavy_atoms)
        case "canonical":
            return canonical(request.text)


if __name__ == "__main__":
    main()
