"""A sandbox and a workplace for every end-to-end test."""

import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from tests.support.process import Served, Workplace


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(build_polls=0) as served:
        yield served


@pytest.fixture
def workplace(tmp_path: Path, served: Served) -> Workplace:
    """Calls the command as a process of its own."""
    return Workplace(tmp_path, served)


@pytest.fixture
def desk(tmp_path: Path, served: Served, blockbuster: BlockBuster) -> Iterator[Workplace]:
    """Calls the command within this process; what it does to the logs of the process is undone."""
    blockbuster.deactivate()  # a command may import within its loop: nothing else runs there yet
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield Workplace(tmp_path, served, in_process=True)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
