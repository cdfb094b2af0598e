"""The daemon is killed at random moments while uploads go on arriving: nothing is bought twice, nothing is lost."""

import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

import pytest

from tests.crash.launched import Launched
from tests.crash.scene import Row, Scene, Version, scene
from tests.support.process import eventually

pytest_plugins = ("tests.support.store",)

WHILE_STARTING_S = 0.6
WHILE_WORKING_S = 1.0
WHILE_ENDING_S = 0.3


@dataclass(frozen=True)
class Soak:
    """How often one daemon is killed, and on what it works."""

    kills: int
    version: Version
    on: Literal["sqlite", "postgres"] = "sqlite"
    checkpoints: bool = False


def seed_of_this_run() -> int:
    """Return the seed of the moments; SOAK_SEED chooses it, to play a run again as far as a machine allows."""
    seed = int(os.environ.get("SOAK_SEED") or time.time_ns() % 10**9)
    print(f"SOAK_SEED={seed}")  # noqa: T201 - what a failed run must show
    return seed


def new_rows(chance: random.Random, numbers: "count[int]") -> list[Row]:
    """Return observations of one to three molecules that nobody has seen."""
    made = [next(numbers) for _ in range(chance.randint(1, 3))]
    return [(f"A{number:04}a", "C" * number + "N", f"Z{number}") for number in made]


def end_somehow(daemon: Launched, chance: random.Random, *, meanwhile: Callable[[], object]) -> bool:
    """Kill a daemon as it starts, as it works, or as it ends in order; say whether it had not ended by then.

    `meanwhile` comes while it works.
    """
    in_order = False
    if chance.random() < 0.3:
        time.sleep(chance.uniform(0, WHILE_STARTING_S))
    else:
        eventually(lambda: daemon.ended or any("daemon_ready" in line for line in daemon.stderr))
        time.sleep(chance.uniform(0, WHILE_WORKING_S / 2))
        meanwhile()
        time.sleep(chance.uniform(0, WHILE_WORKING_S / 2))
        if in_order := chance.random() < 0.3:
            daemon.send(signal.SIGTERM)
            time.sleep(chance.uniform(0, WHILE_ENDING_S))
    daemon.send(signal.SIGKILL)
    code = daemon.wait()
    assert code == -signal.SIGKILL or (in_order and code == 0), "".join(daemon.stderr[-20:])
    return code == -signal.SIGKILL


def soak(stage: Scene, how: Soak, seed: str) -> tuple[int, int]:
    """Start the daemon until it was killed so many times, then let it finish.

    Returns how often it was started, and how many uploads came while it worked.
    """
    chance = random.Random(f"{seed} {how}")
    numbers = count(5)
    starts = killed = beside = 0
    stage.desk.set("fragalysis", scan_interval="0.4s")
    stage.options = ("--checkpoints",) if how.checkpoints else ()

    def another() -> None:
        stage.publish(new_rows(chance, numbers))

    def while_it_works() -> None:
        nonlocal beside
        if starts % 3 != 1:
            another()
            beside += 1

    while killed < how.kills:
        assert starts < 2 * how.kills, f"only {killed} of {starts} starts were killed, the others had ended in order"
        if starts % 3 == 1:
            another()
        with stage.launched("--", "run") as daemon:
            killed += end_somehow(daemon, chance, meanwhile=while_it_works)
        starts += 1
    stage.settle()
    stage.check()
    return starts, beside


def soak_all(ways: list[Soak], folder: Path) -> int:
    """Soak several daemons at once; return how many uploads came while one worked."""
    seed = seed_of_this_run()

    def one(number: int) -> tuple[int, int, int]:
        how = ways[number]
        with scene(folder / str(number), how.version, how.on) as stage:
            try:
                starts, beside = soak(stage, how, f"{seed} {number}")
            except AssertionError as error:
                error.add_note(f"in {how}, number {number} of the seed {seed}")
                raise
            return starts, beside, len(stage.compounds)

    with ThreadPoolExecutor(3) as pool:
        starts, beside, bought = zip(*pool.map(one, range(len(ways))), strict=True)
    kills = sum(how.kills for how in ways)
    print(  # noqa: T201
        f"{kills} kills in {sum(starts)} starts; {sum(beside)} uploads came while it worked;"
        f" {sum(bought)} compounds, each bought once"
    )
    return sum(beside)


@pytest.mark.slow
def test_a_few_random_kills(tmp_path: Path) -> None:
    soak_all([Soak(2, "v1", checkpoints=True), Soak(2, "v2")], tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_random_kills(tmp_path: Path) -> None:
    ways = [Soak(17, version, checkpoints=checkpoints) for version in ("v1", "v2") for checkpoints in (False, True)]
    assert soak_all([*ways, *ways[1:3]], tmp_path) >= 10


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.timeout(300)
def test_random_kills_on_postgresql(tmp_path: Path, postgres_server: None) -> None:
    assert soak_all([Soak(12, "v1", "postgres"), Soak(12, "v2", "postgres")], tmp_path) >= 1
