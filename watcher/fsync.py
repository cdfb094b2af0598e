"""What must outlast a failure of the power."""

import os
from pathlib import Path


def sync_directory(path: Path) -> None:
    """Make what was made, renamed or removed in a directory last. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
