"""Runs the steps of the Dockerfile without a container engine, and the result as a container would run it.

    python -m tests.tools.dockerfile_steps FOLDER

It needs root on Linux, and only the standard library. The stages are layers of an overlay on this machine's root, with
its bare Python at the place of the base image's; nothing of the checkout is seen but the build context. What the last
stage gives is then started as the Dockerfile and compose.yaml say: read-only root, user without rights, process 1 of
its own process space, one writable folder, a network with the sandbox alone. Nothing is left but the folder's content.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.support.dockerfile import Stage, stages
from tests.support.image import COMMAND_S, ROOT, Container, Image, leave_mounts, leave_network, say

_GRACE_S = 30.0  # stop_grace_period of compose.yaml
_SECRET = "/run/secrets/molecule_one_token"
_SANDBOX = ("http://127.0.0.1:8901", "http://127.0.0.1:8902", "sandbox-token")  # what `watcher sandbox` says
# The shared libraries of a slim base that Python programs meet; this machine has more, which would hide a missing one.
_SLIM = {
    *("ld-linux-x86-64", "ld-linux-aarch64", f"libpython3.{sys.version_info.minor}", "libstdc++", "libgcc_s"),
    *("libc", "libcrypt", "libdl", "libm", "libnss_dns", "libnss_files", "libpthread", "libresolv", "librt", "libutil"),
    *("libbz2", "libcrypto", "libffi", "liblzma", "libsqlite3", "libssl", "libuuid", "libz"),
}


def prove(container: Container, stage: Stage, folder: Path) -> None:
    """Use the image: the commands that the how-to begins with, then the daemon, until it has bought a score."""
    entry = stage.last("ENTRYPOINT").exec_form or []
    run = stage.last("CMD").exec_form or []
    health = stage.last("HEALTHCHECK").exec_form or []
    fragalysis, molecule_one, _ = _SANDBOX
    quick = ("--queue-seconds", "0", "--build-seconds", "0", "--seconds-per-molecule", "0.01")

    version = stage.labels["org.opencontainers.image.version"]
    if container.call(*entry, "--version") != f"watcher {version}\n":
        raise SystemExit(f"the label says version {version}")
    container.call(
        "sh", "-c", 'test "$(id -u)" = 10001 && ! touch /opt/watcher/x 2> /dev/null && touch /tmp/x x && rm x'
    )
    container.call(*entry, "config", "init")
    container.call(*entry, "db", "upgrade")
    with container.running(*entry, "sandbox", *quick, output=folder / "sandbox.log"):
        container.environment |= {
            "WATCHER_FRAGALYSIS__STACK": fragalysis,
            "WATCHER_FRAGALYSIS__SETTLE": "0s",
            "WATCHER_FRAGALYSIS__REQUESTS_PER_SECOND": "50",
            "WATCHER_MOLECULE_ONE__BASE_URL": molecule_one,
            "WATCHER_MOLECULE_ONE__TOKEN_FILE": _SECRET,
            "WATCHER_MOLECULE_ONE__POLL_INTERVAL": "1s",
            "WATCHER_SERVER__LISTEN": "0.0.0.0:9464",
            "WATCHER_SERVER__PUBLIC": "true",
        }
        container.call(*health, expect=1)  # nobody is there yet
        with container.running(*entry, *run, output=folder / "daemon.log") as daemon:
            try:
                _wait_for("the daemon is healthy", daemon, lambda: container.succeeds(*health))
                _wait_for("scores are bought", daemon, lambda: _scored(container, entry))
                container.call(*health, "--ready")
                _needs_nothing_else(daemon)
                _terminate(daemon)
            except BaseException:
                say((folder / "daemon.log").read_text(encoding="utf-8", errors="replace")[-5000:])
                raise
        container.call(*health, expect=1)
    container.call(*entry, "db", "check")


def _scored(container: Container, entry: Sequence[str]) -> bool:
    claims = json.loads(container.call(*entry, "status", "--json"))["claims"]
    return bool(claims.get("scored", 0) > 50)


def _wait_for(what: str, process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + COMMAND_S
    while not condition():
        if process.poll() is not None:
            raise SystemExit(f"before {what}, the daemon ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {COMMAND_S:g} s: {what}")
        time.sleep(1)
    say(f"  {what}")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def _needs_nothing_else(process: subprocess.Popen[bytes]) -> None:
    loaded = set(_system_libraries(process.pid))
    if "libsqlite3" not in loaded or loaded - _SLIM:
        raise SystemExit(f"a slim base lacks some of these libraries: {', '.join(sorted(loaded))}")
    say(f"  no library but the base's own: {' '.join(sorted(loaded))}")


def _system_libraries(pid: int) -> Iterator[str]:
    """Yield the name of each shared library of the base that a process and its children have loaded."""
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
        path = Path(line.split(maxsplit=5)[-1])  # as this process sees it, not the container
        if ".so" in path.name and not {"watcher", "lib-dynload"} & set(path.parts):
            yield path.name.partition(".so")[0]
    for child in _children(pid):
        yield from _system_libraries(child)


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to process 1 of the container, which ends in time and well."""
    [first] = _children(process.pid)
    began = time.monotonic()
    os.kill(first, signal.SIGTERM)
    if status := process.wait(_GRACE_S):
        raise SystemExit(f"after SIGTERM the daemon ended with {status}")
    say(f"  SIGTERM ended it within {time.monotonic() - began:.1f} s")


def main() -> None:
    """Build, freeze, use."""
    folder = Path(sys.argv[1]).absolute()
    leave_mounts()
    built: dict[str, Image] = {}
    for number, stage in enumerate(stages(ROOT / "Dockerfile")):
        say(f"FROM        {stage.base}: here, Python {sys.version.split()[0]}")
        image = built[stage.name or str(number)] = Image(stage, folder / str(number))
        image.build(built)
    image.freeze({_SECRET: _SANDBOX[2]}, folder / "volume")
    leave_network()
    prove(Container(image), image.stage, folder)


if __name__ == "__main__":
    main()
