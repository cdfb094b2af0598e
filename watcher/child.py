"""What every child process of the program has in common: it ends with its parent, and its arguments hold no secret."""

import os
import signal
from contextlib import suppress

_PR_SET_PDEATHSIG = 1  # prctl(2)
# Tokens are in the environment, too: a child gets only what an interpreter may need to find its libraries.
_INHERITED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # no memory for idle threads


def environment() -> dict[str, str]:
    """Return the environment of a child."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ} | _ENVIRONMENT


def confine() -> None:
    """Make sure that this process ends with its parent, and not at a signal that is meant for the parent.

    SIGALRM ends it, also within C++.
    """
    import ctypes

    parent = os.getppid()
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # sent to a whole group; end of file ends us
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # both may be inherited otherwise
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    os.nice(5)
    with suppress(AttributeError, OSError):  # Linux only; elsewhere end of file and the alarm have to do
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before that was in force
        os._exit(0)
