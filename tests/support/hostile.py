"""Archives that nobody should send, built by hand."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["file", "folder", "symlink", "hardlink", "fifo", "device", "block device"]
_TAR = {
    "file": tarfile.REGTYPE,
    "folder": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
}
_ZIP = {
    "file": stat.S_IFREG,
    "folder": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "hardlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "device": stat.S_IFCHR,
    "block device": stat.S_IFBLK,
}


@dataclass(frozen=True)
class Entry:
    name: str
    content: bytes = b""
    kind: Kind = "file"
    link: str = ""
    mode: int = 0o644


def tar_gz(entries: Sequence[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type, info.linkname, info.mode, info.mtime = _TAR[entry.kind], entry.link, entry.mode, 10**9
            info.size = len(entry.content) if entry.kind == "file" else 0
            archive.addfile(info, io.BytesIO(entry.content))
    return buffer.getvalue()


def zip_(entries: Sequence[Entry], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for entry in entries:
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = entry.name
            info.external_attr = (_ZIP[entry.kind] | entry.mode) << 16
            info.compress_type = compression
            content = entry.link.encode() if entry.kind in ("symlink", "hardlink") else entry.content
            archive.writestr(info, content if entry.kind != "folder" else b"")
    return buffer.getvalue()


BUILDERS = {"zip": zip_, "tar.gz": tar_gz}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
