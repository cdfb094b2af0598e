"""Archives on the disk: received, checked, unpacked, found again. No network, no database.

Nothing that a server says chooses a path, and whatever is not finished has a name of the form `.<name>.part`.
"""

from watcher.archives.faults import NotAnArchive, Undecodable, Unsafe
from watcher.archives.layout import (
    CURRENT,
    FILES,
    Format,
    archive_folders,
    archive_name,
    archive_names,
    entries,
    folders,
    leftovers,
    part_of,
    point_current,
    rename,
    sweep,
    target_directory,
    upload_directory,
)
from watcher.archives.receive import Received, digest, receive
from watcher.archives.unpack import Unpacked, unpack

__all__ = [
    "CURRENT",
    "FILES",
    "Format",
    "NotAnArchive",
    "Received",
    "Undecodable",
    "Unpacked",
    "Unsafe",
    "archive_folders",
    "archive_name",
    "archive_names",
    "digest",
    "entries",
    "folders",
    "leftovers",
    "part_of",
    "point_current",
    "receive",
    "rename",
    "sweep",
    "target_directory",
    "unpack",
    "upload_directory",
]
