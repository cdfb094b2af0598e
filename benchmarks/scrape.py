"""How long a scrape of `/metrics` takes with 500 targets in the record.

    .venv/bin/python benchmarks/scrape.py [--targets 500] [--scrapes 50]

Fills a SQLite record: each target with five uploads, ten compounds and their claims; a batch for every 250 claims. Then
it starts the installed `watcher run` on it, with both services out of reach, and asks over HTTP as Prometheus does.
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
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from idle import cpu_seconds
from pydantic import SecretStr
from sqlalchemy import insert

from watcher.settings import DatabaseSettings
from watcher.store.engine import Store
from watcher.store.migrate import upgrade
from watcher.store.schema import Base, Batch, BatchItem, Claim, Compound, Profile, Target, Upload

WATCHER = Path(sys.executable).with_name("watcher")
NOW = datetime.now(UTC)
STACK = "http://127.0.0.1:9"  # nobody listens there
UPLOADS, COMPOUNDS, BATCH_SIZE = 5, 10, 250


async def fill(file: Path, targets: int) -> None:
    profile = {"id": 1, "key": "1", "api_version": "v1", "normalised": "{}", "created_at": NOW, "approved_at": NOW}
    claims = range(1, targets * COMPOUNDS + 1)
    batches = range(1, len(claims) // BATCH_SIZE + 1)
    rows: dict[type[Base], list[dict[str, object]]] = {
        Profile: [profile],
        Target: [target(number) for number in range(1, targets + 1)],
        Upload: [upload(number, index) for number in range(1, targets + 1) for index in range(1, UPLOADS + 1)],
        Compound: [compound(number) for number in claims],
        Claim: [claim(number, paid=number <= len(batches) * BATCH_SIZE) for number in claims],
        Batch: [batch(number) for number in batches],
        BatchItem: [item(number) for number in claims[: len(batches) * BATCH_SIZE]],
    }
    async with Store(DatabaseSettings(url=SecretStr(f"sqlite+aiosqlite:///{file}"))) as store:
        await upgrade(store, name="a-benchmark", now=NOW)
        async with store.write() as session:
            for model, values in rows.items():
                await session.execute(insert(model), values)


def target(number: int) -> dict[str, object]:
    return {
        "id": number, "stack": STACK, "remote_id": number, "name": f"TARGET{number}", "open_to_public": True,
        "target_access_string": f"lb{10000 + number}-1", "first_seen_at": NOW, "remote_index": UPLOADS,
        "current_upload_id": number * UPLOADS, "last_success_at": NOW,
    }  # fmt: skip


def upload(target: int, index: int) -> dict[str, object]:
    state = "scored" if index == UPLOADS else "history"
    return {
        "id": (target - 1) * UPLOADS + index, "target_id": target, "upload_index": index, "seen_at": NOW,
        "committed_at": NOW + timedelta(days=index), "scan_no": 1, "archive_state": "skipped", "scoring_state": state,
        "program_version": "0",
    }  # fmt: skip


def compound(number: int) -> dict[str, object]:
    return {
        "id": number, "smiles": f"C{number}", "smiles_digest": f"{number}", "inchikey": f"{number}", "heavy_atoms": 20,
        "created_at": NOW,
    }  # fmt: skip


def claim(number: int, *, paid: bool) -> dict[str, object]:
    return {
        "id": number, "compound_id": number, "profile_id": 1, "state": "scored" if paid else "withheld",
        "reason": None if paid else "baseline", "scan_no": 1, "created_at": NOW, "changed_at": NOW,
    }  # fmt: skip


def batch(number: int) -> dict[str, object]:
    return {
        "id": number, "token": f"{number}", "profile_id": 1, "state": "collected", "size": BATCH_SIZE, "payload": "{}",
        "payload_digest": "", "remote_id": f"{number}", "created_at": NOW, "sent_at": NOW,
    }  # fmt: skip


def item(number: int) -> dict[str, object]:
    return {"batch_id": (number - 1) // BATCH_SIZE + 1, "position": number, "claim_id": number}


def scrape(port: int) -> tuple[float, bytes]:
    begin = time.perf_counter()
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != 200:
        raise SystemExit(f"/metrics answered {answer.status}: {body[:200]!r}")
    return time.perf_counter() - begin, body


def measure(pid: int, port: int, scrapes: int) -> None:
    times, body = [], b""
    scrape(port)  # the first one compiles the queries
    before = cpu_seconds(pid)
    for _ in range(scrapes):
        took, body = scrape(port)
        times.append(1000 * took)
        time.sleep(0.05)
    used = 1000 * (cpu_seconds(pid) - before) / scrapes
    shown = body.count(b"watcher_target_recorded_upload_index{")
    print(f"/metrics: {median(times):.1f} ms (median of {scrapes}), {max(times):.1f} ms at most,")
    print(f"          {used:.1f} ms of a core each; {shown} targets, {len(body) / 1000:.0f} kB")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(targets: int, scrapes: int) -> None:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(fill(Path(folder) / "watcher.db", targets))
        environment = {
            **os.environ,
            "WATCHER_FRAGALYSIS__STACK": STACK,
            "WATCHER_MOLECULE_ONE__BASE_URL": STACK,
            "WATCHER_DOWNLOAD__ENABLED": "false",
            "WATCHER_SERVER__LISTEN": f"127.0.0.1:{port}",
        }
        with (Path(folder) / "log").open("wb") as log:
            daemon = subprocess.Popen([WATCHER, "run"], cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            while b"daemon_ready" not in (Path(folder) / "log").read_bytes():
                if daemon.poll() is not None:
                    raise SystemExit((Path(folder) / "log").read_text())
                time.sleep(0.1)
            time.sleep(2)
            measure(daemon.pid, port, scrapes)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", type=int, default=500)
    parser.add_argument("--scrapes", type=int, default=50)
    arguments = parser.parse_args()
    main(arguments.targets, arguments.scrapes)
