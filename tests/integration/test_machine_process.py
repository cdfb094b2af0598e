"""The machine fails under a daemon that runs as a process: no file descriptors, no room in files, no right to write.

And the chemistry's own process is killed in the middle of its work.
"""

import json
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.pipeline import ROWS_A, A, Alias, world
from tests.support.process import COMMAND, Process, Served, Workplace, eventually
from watcher import chemistry_process
from watcher.program import opened

pytestmark = pytest.mark.slow

TARGET = ("A71EV2A", "lb32627-66")
# Root passes every check of rights; without this capability it does not, and chmod binds as it binds everybody.
_WITHOUT_RIGHTS = (
    "import ctypes, os, sys\n"
    "libc = ctypes.CDLL(None, use_errno=True)\n"
    "dropped = [libc.prctl(24, capability, 0, 0, 0) for capability in (1, 2)] if os.getuid() == 0 else [0]\n"
    "sys.exit('cannot drop capabilities') if any(dropped) else os.execv(sys.argv[1], sys.argv[1:])\n"
)


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(build_polls=0) as served:
        yield served


@pytest.fixture
def place(tmp_path: Path, served: Served) -> Workplace:
    place = Workplace(tmp_path, served)
    place.set("fragalysis", targets=[TARGET[0]], scan_interval="1s")
    return place


def lines(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.stderr]


def told(process: Process, event: str) -> Counter[tuple[str, str]]:
    """How often something was said of each condition."""
    return Counter((one["subject"], one["kind"]) for one in lines(process) if one["event"] == event)


def count(process: Process, *events: str) -> int:
    return sum(one["event"] in events for one in lines(process))


def tries(process: Process) -> int:
    """How often something failed for what the machine lacks."""
    units = sum(1 for one in lines(process) if one["event"] == "stage_run" and one["outcome"] == "ours")
    return units + sum(int(one["failed_tries"]) for one in lines(process) if one["event"] == "record_available_again")


def everything_is_scored(process: Process, uploads: int) -> None:
    eventually(lambda: sum(one["event"] == "upload_scoring_changed" and one["new"] == "scored"
                           for one in lines(process)) >= uploads or process._is_over("scored"))  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "value"), [(resource.RLIMIT_NOFILE, 3), (resource.RLIMIT_FSIZE, 4096)], ids=["descriptors", "file size"]
)
def test_a_daemon_without_resources_stays_alive_and_goes_on(
    place: Workplace, served: Served, limit: int, value: int
) -> None:
    with place.running("run") as daemon:
        everything_is_scored(daemon, 1)
        before = served.purchases
        _, hard = resource.prlimit(daemon._popen.pid, limit)
        resource.prlimit(daemon._popen.pid, limit, (value, hard))
        served.do(lambda sandbox: sandbox.fragalysis.publish(*TARGET))
        eventually(lambda: count(daemon, "record_unavailable", "condition_opened") or daemon._is_over("trouble"))
        if limit == resource.RLIMIT_NOFILE:  # over the connections that it has, it goes on: time for it to shout
            scans = count(daemon, "scan_finished")
            eventually(lambda: count(daemon, "scan_finished") > scans + 2 or tries(daemon) > 1)
        assert daemon._popen.poll() is None
        resource.prlimit(daemon._popen.pid, limit, (hard, hard))
        everything_is_scored(daemon, 2)
        assert daemon.stop() == 0
    assert set(before) < set(served.purchases)
    assert set(served.purchases.values()) == {1}
    begun = told(daemon, "condition_opened")
    assert begun == told(daemon, "condition_closed")
    assert {*begun.values()} <= {1}
    assert count(daemon, "record_unavailable") == count(daemon, "record_available_again") <= 1
    assert begun or count(daemon, "record_unavailable")
    assert tries(daemon) <= 4
    events = {one["event"] for one in lines(daemon)}
    assert not [event for event in events if "unexpected" in event or "uncaught" in event]
    assert place.call("status").exit_code == 0


@pytest.mark.slow
def test_a_folder_that_may_not_be_written(place: Workplace, served: Served) -> None:
    place.set("download", enabled=True)
    downloads = place.folder / "downloads"
    downloads.mkdir(mode=0o555)
    place.configure()
    daemon = Process([sys.executable, "-c", _WITHOUT_RIGHTS, *COMMAND, "run"], place.folder)
    try:
        everything_is_scored(daemon, 1)  # archives stop nothing else
        eventually(lambda: told(daemon, "condition_opened") or daemon._is_over("condition"))
        downloads.chmod(0o755)
        eventually(lambda: (downloads / TARGET[1] / TARGET[0] / "current").exists() or daemon._is_over("stored"))
        eventually(lambda: told(daemon, "condition_closed") or daemon._is_over("closed"))
        assert daemon.stop() == 0
    finally:
        daemon.end()
    assert told(daemon, "condition_opened") == told(daemon, "condition_closed") == {("download", "machine"): 1}
    assert set(served.purchases.values()) == {1}


async def test_the_chemistry_is_killed_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once by somebody, then by a molecule whenever it is asked of it: each end is said, and none follows for ever.

    The molecule is judged anew at the second reading: the machine may have been to blame.
    """
    killed: list[int] = []
    send = chemistry_process._Child.send

    def send_and_die(self: Any, op: str, texts: Any, *more: Any) -> None:
        if (len(texts) > 1 and not killed) or "CCC" in texts:
            killed.append(self.pid)
            os.kill(self.pid, signal.SIGKILL)
        send(self, op, texts, *more)

    monkeypatch.setattr(chemistry_process._Child, "send", send_and_die)
    async with world(tmp_path) as job:
        job.set("download", enabled=False)
        with capture_logs() as logs:
            async with opened(job.settings, "once", clock=job.clock) as program:
                job.clock.runner = program.runner
                await job.again(program.runner)
                assert len(killed) == 1
                job.sandbox.fragalysis.add_upload(*A, [*ROWS_A, ("A0400a", "CCC", "Z9"), ("A0401a", "CCCC", "Z8")])
                for _ in range(2):
                    await job.again(program.runner)
                    await job.later(program.runner, minutes=20)
        assert job.bought == {"CCO": 1, "CCN": 1, "c1ccccc1": 1, "CCCC": 1}
        assert await job.conditions() == {}
        assert [one.reason for one in await job.all(Alias) if one.raw == "CCC"] == ["unparsable"]
    said = [one for one in logs if one["event"] == "chemistry_process_lost"]
    assert [(one["log_level"], one["reason"]) for one in said] == 5 * [("warning", "signal 9, Killed")]
    assert ["another is started" in one["action"] for one in said] == [True, True, False, True, False]
    assert ["is rejected" in one["action"] for one in said] == [False, False, True, False, True]
    assert len(killed) == 5
