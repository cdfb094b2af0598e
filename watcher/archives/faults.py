"""What can be wrong with an archive or with the disk under it, as kinds of `watcher.errors`."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from watcher.errors import Invalid, Ours, Transient

_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_RIGHTS = (errno.EACCES, errno.EPERM, errno.EROFS)


class NotAnArchive(Transient):
    """What came is neither zip nor gzip, for example a page of the server. Worth another try; a caller counts."""


class Undecodable(Invalid):
    """A complete archive that cannot be read: bad checksum, cut, broken. Worth one fresh build."""


class Unsafe(Invalid):
    """An archive that breaks the rules for members or exceeds a limit. A fresh build would do so again."""


@contextmanager
def disk(path: Path, doing: str) -> Iterator[None]:
    """Turn an error of the operating system into Ours, with what the reader can do."""
    try:
        yield
    except OSError as error:
        if error.errno in _SPACE:
            action = f"free space, or quota, where {path.parent} lies"
        elif error.errno in _RIGHTS:
            action = f"let the program write in {path.parent}: its owner, its rights, and no read-only file system"
        else:
            action = f"look at the disk and the file system of {path.parent}"
        reason = error.strerror or type(error).__name__
        message = f"{doing} {path} failed: {reason}; it is tried again when the disk is well"
        raise Ours(message, action=action) from error
