"""A file system made by the steps of a Dockerfile, and commands run in it as a container engine would; needs root.

No engine and only the standard library: the stages are layers of an overlay on this machine's root, with its bare
Python at the place of the base image's. Every mount and process ends with the process that made it.
"""

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.dockerfile import Stage, Step, context, expanded

ROOT = Path(__file__).parents[2]
COMMAND_S = 60.0
_STEP_S = 900.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What an engine's build takes over from its surroundings: how to reach a package registry.
_PASSED_ON = ("PIP_", "SSL_CERT_", "REQUESTS_CA_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


class Image:
    """The file system of one stage, as it grows: a layer over this machine's root."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage = stage
        self.root = folder / "root"
        self.workdir = "/"
        self.environment = {"PATH": _PATH, "HOME": "/root"}
        _overlay(Path("/"), folder, self.root)
        if (python := Path(sys.base_prefix)) not in (Path("/usr"), Path("/usr/local")):
            _overlay(python, folder / "python", self.root / "usr/local")
            subprocess.run(["chroot", self.root, "ldconfig"], check=True)
        for place in {"/tmp", "/run", "/" + ROOT.parts[1]}:
            _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", self.inside(place))
        _mount("--rbind", "/dev", self.inside("/dev"))

    def inside(self, path: str) -> Path:
        """Return where a path of the image lies on this machine."""
        return self.root / path.lstrip("/")

    def command(self, words: Sequence[str], *, user: str = "0:0") -> list[str]:
        """Return the command line that runs `words` in the image, as process 1 of a process space of its own.

        It ends with this process, however this one ends.
        """
        uid, gid = user.split(":")
        rights = ["--reuid", uid, "--regid", gid, "--clear-groups"]
        if uid != "0":
            rights += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        return [
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--root", str(self.root)),
            # Again, for becoming another user forgets it.
            *("--wd", self.workdir, "setpriv", *rights, "--pdeathsig", "KILL", "--", *words),
        ]

    def build(self, earlier: Mapping[str, "Image"]) -> None:
        """Run every step of the stage, in order."""
        for step in self.stage.steps:
            say(f"{step.name:<11} {' '.join(step.text.split())[:110]}")
            if step.name == "ENV":
                new = (word.split("=", 1) for word in step.words)
                self.environment |= {name: expanded(value, self.environment) for name, value in new}
            elif step.name == "WORKDIR":
                self.workdir = step.text
                self.inside(step.text).mkdir(parents=True, exist_ok=True)
            elif step.name == "COPY":
                self._copy(step, earlier)
            elif step.name == "RUN":
                passed_on = {key: value for key, value in os.environ.items() if key.upper().startswith(_PASSED_ON)}
                words = step.exec_form or ["/bin/sh", "-c", step.text]
                _check(subprocess.run(self.command(words), env=passed_on | self.environment, timeout=_STEP_S))

    def _copy(self, step: Step, earlier: Mapping[str, "Image"]) -> None:
        *sources, target = step.words
        place = self.inside(os.path.join(self.workdir, target))  # noqa: PTH118 - keeps the last slash
        for source in sources:
            if (stage := step.options.get("from")) is not None:
                shutil.copytree(earlier[stage].inside(source), place, symlinks=True, dirs_exist_ok=True)
                continue
            for path in context(ROOT):
                if not path.is_relative_to(source):
                    continue
                inner = path.relative_to(source) if (ROOT / source).is_dir() else Path(source)
                (place / inner).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, place / inner)

    def freeze(self, files: Mapping[str, str], volume: Path) -> None:
        """Make the root read-only, with the volume mounted where the image says, and some files for all to read."""
        place = self.inside(self.stage.last("VOLUME").text)
        status = place.stat()
        volume.mkdir(mode=status.st_mode & 0o777)
        os.chown(volume, status.st_uid, status.st_gid)  # an engine gives a new volume to the folder's owner
        for path, text in files.items():
            self.inside(path).parent.mkdir(parents=True, exist_ok=True)
            self.inside(path).write_text(text, encoding="utf-8")
        _mount("-o", "remount,ro", self.root)
        if (self.root / "usr/local").is_mount():
            _mount("-o", "remount,ro", self.root / "usr/local")
        _mount("-o", "remount,ro", self.inside("/run"))
        _mount("--bind", volume, place)


class Container:
    """The frozen image, used by the commands that a person would type."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._user = image.stage.last("USER").text
        # HOME is what an engine takes from /etc/passwd.
        home = next(
            fields[5]
            for line in image.inside("/etc/passwd").read_text(encoding="utf-8").splitlines()
            if (fields := line.split(":"))[2] == self._user.split(":")[0]
        )
        self.environment = image.environment | {"HOME": home}

    def call(self, *words: str, expect: int = 0) -> str:
        """Run a command to its end and return what it printed. Raises SystemExit for another exit code."""
        say("$", *words)
        command = self._image.command(words, user=self._user)
        done = subprocess.run(command, env=self.environment, text=True, timeout=COMMAND_S, stdout=subprocess.PIPE)
        _check(done, expect)
        return done.stdout

    def succeeds(self, *words: str) -> bool:
        """Tell whether a command ends well, without a word of it."""
        command = self._image.command(words, user=self._user)
        return not subprocess.run(command, env=self.environment, timeout=COMMAND_S, capture_output=True).returncode

    @contextmanager
    def running(self, *words: str, output: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Have a command run while the block runs; what it says goes to a file."""
        say("$", *words, "&")
        command = self._image.command(words, user=self._user)
        with output.open("wb") as file:
            process = subprocess.Popen(command, env=self.environment, stdout=file, stderr=file)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def leave_mounts() -> None:
    """Give this process mounts of its own. Raises SystemExit where that is not allowed."""
    _unshare(0x00020000)  # CLONE_NEWNS, <linux/sched.h>
    _mount("--make-rprivate", "/")


def leave_network() -> None:
    """Give this process a network of its own, with a loopback interface alone. Raises SystemExit likewise."""
    _unshare(0x40000000)  # CLONE_NEWNET
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1))  # SIOCSIFFLAGS, IFF_UP


def _unshare(flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags):
        raise SystemExit(f"a file system and a network of its own: {os.strerror(ctypes.get_errno())}; it needs root")


def say(*words: str) -> None:
    """Print a line now."""
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def _check(done: subprocess.CompletedProcess[Any], expect: int = 0) -> None:
    if done.returncode != expect:
        raise SystemExit(f"exit code {done.returncode} instead of {expect}")


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


def _overlay(lower: Path, folder: Path, place: Path) -> None:
    """Lay an empty layer in `folder` over a folder of this machine, seen together at `place`."""
    upper, work = folder / "upper", folder / "work"
    for path in (upper, work, place):
        path.mkdir(parents=True, exist_ok=True)
    upper.chmod(0o755)
    _mount("-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", "overlay", place)
