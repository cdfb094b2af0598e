"""What every test with killed daemons needs."""

import logging
import sys
import threading
from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster

pytest.register_assert_rewrite("tests.crash.scene")


@pytest.fixture(scope="session", autouse=True)
def _launcher_ends() -> Iterator[None]:
    """What starts the daemons is shared by all tests of a process."""
    from tests.crash.launched import LAUNCHER

    yield
    LAUNCHER.end()


@pytest.fixture(autouse=True)
def _checks_are_made_here(blockbuster: BlockBuster) -> Iterator[None]:
    """A record is checked within this process; what that does to the logs of the process is undone."""
    blockbuster.deactivate()  # a command may import within its loop: nothing else runs there
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
