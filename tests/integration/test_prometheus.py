"""A real Prometheus looks at a real daemon: it reads every metric, and what goes wrong raises the right alert.

The rules are those that are deployed, without the time for which a trouble must last (`for`).
"""

import json
import re
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.deploy import PROMETHEUS, dashboard_targets, expressions, filled_in
from tests.support.network import free_port
from tests.support.process import Process, Served, Workplace, eventually
from tests.tools.make_reference import all_metrics
from watcher.sandbox import Fault

PROGRAM = shutil.which("prometheus")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(PROGRAM is None, reason="prometheus is not installed (Debian package prometheus)"),
]
TOKEN = "only-for-prometheus"
TARGET = ("A71EV2A", "lb32627-66")
NOT_OURS_TO_MEND = {"WatcherDiskAlmostFull"}  # of the machine that the test runs on
UNUSED = {"watcher_conditions", "watcher_notifications_total"}
"""No series until the first condition, and the first message."""
EMPTY_WHILE_WELL = {
    "Alerts firing",
    "Failed requests by operation",
    "Notifications by outcome",
    "Oldest unit that waits, by stage",
    "Open conditions by kind",
}
"""Panels that show something only when there is something."""
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Prometheus:
    """Asks the API of a Prometheus."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        with _DIRECT.open(f"{self._url}/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)["data"]

    def ready(self) -> bool:
        try:
            with _DIRECT.open(f"{self._url}/-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def value(self, query: str) -> float | None:
        """Return the first value that a query has, if it has one."""
        found = self.get(f"query?query={quote(query)}")["result"]
        return float(found[0]["value"][1]) if found else None

    def until_firing(self, *names: str) -> None:
        """Return when these alerts fire, and no other."""
        try:
            eventually(lambda: set(self.firing()) == set(names))
        except AssertionError:
            raise AssertionError(f"these fire instead: {self.firing()}") from None

    def firing(self) -> dict[str, dict[str, Any]]:
        """Return the alerts that fire, by name."""
        found = [one for one in self.get("alerts")["alerts"] if one["state"] == "firing"]
        return {one["labels"]["alertname"]: one for one in found if one["labels"]["alertname"] not in NOT_OURS_TO_MEND}


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(build_polls=0) as served:
        yield served


@pytest.fixture
def workplace(tmp_path: Path, served: Served) -> Workplace:
    workplace = Workplace(tmp_path, served)
    workplace.set("fragalysis", targets=[TARGET[0]], scan_interval="10s")
    workplace.set("molecule_one", api_version="v2", poll_interval="1s")
    workplace.set("server", listen=f"127.0.0.1:{free_port()}", token=TOKEN)
    return workplace


@pytest.fixture
def prometheus(tmp_path: Path, workplace: Workplace) -> Iterator[Prometheus]:
    folder = tmp_path / "prometheus"
    folder.mkdir()
    rules = (PROMETHEUS / "rules.yaml").read_text(encoding="utf-8")
    (folder / "rules.yaml").write_text(re.sub(r"\bfor: \w+", "for: 0s", rules), encoding="utf-8")
    (folder / "token").write_text(TOKEN, encoding="utf-8")
    config = (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8").replace("interval: 30s", "interval: 1s")
    config = config.replace("127.0.0.1:9464", workplace.settings["server"]["listen"])
    guarded = f"$0\n    authorization: {{type: Bearer, credentials_file: {folder / 'token'}}}".replace("$0", r"\g<0>")
    config = re.sub(r"^  - job_name: \S+", guarded, config, flags=re.MULTILINE)
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    port = free_port()
    process = Process(
        [
            str(PROGRAM),
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        folder,
    )
    try:
        asked = Prometheus(port)
        eventually(asked.ready)
        yield asked
    finally:
        process.end()


def test_it_sees_all_and_calls_for_the_right_trouble(
    workplace: Workplace, served: Served, prometheus: Prometheus
) -> None:
    prometheus.until_firing("WatcherDown")
    with workplace.running("run") as daemon:
        daemon.said("daemon_ready")
        eventually(lambda: prometheus.value('watcher_claims{state="scored"} > 0'))
        prometheus.until_firing()
        sees_everything(prometheus)
        an_answer_is_lost_and_found(served, prometheus)
        the_credentials_are_refused(served, prometheus)
        daemon.stop()
    served.do(lambda sandbox: sandbox.clear_faults())
    with workplace.running("run") as daemon:  # as the guide says: with valid credentials it is started again
        eventually(lambda: prometheus.value("up") == 1)
        prometheus.until_firing()
        daemon.stop()
    assert set(served.purchases.values()) == {1}


def sees_everything(prometheus: Prometheus) -> None:
    """All metrics arrive, and every rule and every query of the dashboard can be answered from them."""
    assert prometheus.value("up") == 1
    names = {re.sub(r"_bucket$", "", name) for name in prometheus.get("label/__name__/values")}
    assert {name for name, _, _, _ in all_metrics()} - UNUSED <= names
    (group,) = prometheus.get("rules")["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    for text in expressions():
        prometheus.value(text)  # an error would be an answer with another status
    asked = {(title, filled_in(target["expr"])) for title, target in dashboard_targets()}
    eventually(lambda: {title for title, text in asked if prometheus.value(text) is None} <= EMPTY_WHILE_WELL)
    waits = prometheus.get("query?query=watcher_oldest_pending_timestamp_seconds")["result"]
    targets = prometheus.get(f"query?query={quote('watcher:pending_target_seconds')}")["result"]
    stages = {one["metric"]["stage"] for one in waits}
    assert stages == {"reconcile", *(one["metric"]["stage"] for one in targets)}


def an_answer_is_lost_and_found(served: Served, prometheus: Prometheus) -> None:
    """The batch shows in the service's list after some looks only: an alert meanwhile, and none afterwards."""

    def lose(sandbox: Any) -> None:
        sandbox.molecule_one.listing.lag = 3
        sandbox.molecule_one.pace.manual = True
        sandbox.add_fault(Fault("molecule_one", "close_after", match={"method": "POST"}))
        sandbox.fragalysis.publish(*TARGET)

    served.do(lose)
    prometheus.until_firing("WatcherBatchUnconfirmed")
    alert = prometheus.firing()["WatcherBatchUnconfirmed"]
    assert alert["labels"]["severity"] == "ticket"
    assert "took 1 batches of the watcher at 127.0.0.1:" in alert["annotations"]["summary"]
    prometheus.until_firing()
    assert prometheus.value('watcher_batches{state="submitted"}') == 1


def the_credentials_are_refused(served: Served, prometheus: Prometheus) -> None:
    """The service at work on the batch does not let us in any more."""
    served.do(lambda sandbox: sandbox.add_fault(Fault("molecule_one", "status", status=401, times=None)))
    prometheus.until_firing("WatcherCredentialsRefused")
    assert prometheus.firing()["WatcherCredentialsRefused"]["labels"]["severity"] == "page"
    assert prometheus.value('watcher_service_up{service="molecule_one"}') == 0
