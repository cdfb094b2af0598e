"""What the daemon costs while it has nothing to do, and how long `watcher --help` takes.

    .venv/bin/python benchmarks/idle.py [--minutes 2]

Starts the installed `watcher run` against the sandbox (Linux only: reads /proc), waits until the job is done and the
chemistry process is let go, then measures.
"""

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from watcher.sandbox import Sandbox

WATCHER = Path(sys.executable).with_name("watcher")
SETTLING_S = 60


def memory_mib(pid: int) -> dict[str, float]:
    """Resident memory now and at its highest, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("VmRSS", "VmHWM"))}


def cpu_seconds(pid: int) -> float:
    """Time spent on a processor so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def idle(minutes: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with Sandbox() as sandbox:
            environment = {
                **os.environ,
                "WATCHER_FRAGALYSIS__STACK": sandbox.fragalysis.url,
                "WATCHER_MOLECULE_ONE__BASE_URL": sandbox.molecule_one.url,
                "WATCHER_MOLECULE_ONE__TOKEN": sandbox.molecule_one.token,
                "WATCHER_SERVER__LISTEN": "127.0.0.1:0",
            }
            manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            manager.bind(f"{folder}/notify")
            environment |= {"NOTIFY_SOCKET": f"{folder}/notify", "WATCHDOG_USEC": "180000000"}  # as the unit has it
            with (Path(folder) / "log").open("wb") as log:
                daemon = await asyncio.create_subprocess_exec(
                    str(WATCHER), "run", cwd=folder, env=environment, stdout=log, stderr=log
                )
            await asyncio.sleep(SETTLING_S)
            before = cpu_seconds(daemon.pid)
            await asyncio.sleep(60 * minutes)
            used = cpu_seconds(daemon.pid) - before
            memory = memory_mib(daemon.pid)
            daemon.send_signal(signal.SIGTERM)
            print(f"idle daemon: {memory['VmRSS']:.1f} MiB resident, {memory['VmHWM']:.1f} MiB at most,")
            print(f"             {100 * used / (60 * minutes):.2f} % of one core over {minutes:g} minutes")
            print(
                f"             ended with {await daemon.wait()}; {sandbox.molecule_one.ledger.total} compounds bought"
            )


def help_takes(runs: int = 10) -> None:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run([str(WATCHER), "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    print(f"watcher --help: {sorted(times)[runs // 2]:.2f} s (median of {runs}), {max(times):.2f} s at most")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2)
    arguments = parser.parse_args()
    help_takes()
    asyncio.run(idle(arguments.minutes))
