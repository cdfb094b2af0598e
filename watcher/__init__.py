"""Fragalysis Watcher: from an upload on Fragalysis to a Molecule.one score on the user's disk, paid once."""

import sys
from importlib.metadata import version

__version__ = version("fragalysis-watcher")

if "structlog" not in sys.modules and "rich" not in sys.modules:
    # structlog imports rich wherever it is installed, for tracebacks that the logs do not use (they could show
    # secrets). A daemon would carry its 7 MB for months, and every command would wait for it.
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog  # noqa: F401

    del sys.modules["rich"]
