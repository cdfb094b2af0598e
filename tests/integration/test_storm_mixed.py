"""Every fault at once, by chance that repeats itself, while the world changes; then calm, and the job ends right."""

import re
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from tests.support.pipeline import PRIVATE, A, B, Job
from tests.support.record import settings_for_database
from tests.support.storm import (
    BOUGHT,
    CALLS,
    EVERYTHING,
    KINDS,
    SIDES,
    Age,
    Story,
    calm,
    ends_right,
    fault,
    fits,
    help_out,
    make_asked,
    ours,
    storm,
)
from watcher.pipeline.runner import Runner
from watcher.sandbox import FragalysisServer
from watcher.store.export import Row

pytest_plugins = ("tests.support.store", "tests.support.story")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STEPS = 12


class Weather:
    """Rules and changes by chance."""

    def __init__(self, job: Job, age: Age, seed: int) -> None:
        self.job, self.age, self.random = job, age, Random(seed)
        self.names = {A: A, B: B, PRIVATE: PRIVATE}
        self.smiles = set(BOUGHT)
        self.calls = [call for call, one in CALLS.items() if age in one.ages]
        self.number = 0
        self.hidden: set[tuple[str, str]] = set()

    def faults(self) -> None:
        """Put two to five rules in force, each at a rate of up to one in two."""
        self.job.sandbox.clear_faults()
        for _ in range(self.random.randint(2, 5)):
            call = self.random.choice(self.calls)
            kinds = [kind for kind in KINDS if fits(call, kind, self.age)]
            if call.startswith("results"):  # what is not listed for long counts as failed
                kinds = [kind for kind in kinds if kind not in ("repeated", "skipped")]
            if call == "create":  # what is refused once, alone, has failed for good
                kinds.remove("400")
            rate, seed = self.random.uniform(0.05, 0.5), self.random.getrandbits(32)
            fault(call, self.random.choice(kinds), self.job, probability=rate, seed=seed)

    def change(self) -> None:
        """Let one thing befall one target."""
        server = self.job.sandbox.fragalysis
        key = self.random.choice([*self.names])
        name, tas = self.names[key]
        self.number += 1
        match self.random.choice(["publish", "publish", "touch", "withdraw", "rename", "move", "vanish", "session"]):
            case "publish":
                smiles = "C" * (self.number + 3) + "N"
                self.smiles.add(smiles)
                server.add_upload(name, tas, [(f"N{self.number:04}a", smiles, f"Z{self.number}")])
            case "touch":
                server.touch(name, tas)
            case "withdraw" if server.world.find(name, tas).published > 1:
                server.withdraw(name, tas)
            case "rename":
                server.rename(name, tas, f"{key[0]}{self.number}")
                self.names[key] = (f"{key[0]}{self.number}", tas)
            case "move":
                server.move(name, tas, f"lb7{self.number:04}-1")
                self.names[key] = (name, f"lb7{self.number:04}-1")
            case "vanish" if key in self.hidden:
                server.reappear(name, tas)
                self.hidden.discard(key)
            case "vanish":
                server.vanish(name, tas)
                self.hidden.add(key)
            case "session":
                server.session_valid = not server.session_valid

    def clear_up(self) -> None:
        """All is as it should be."""
        self.job.sandbox.clear_faults()
        self.job.sandbox.fragalysis.session_valid = True
        for key in self.hidden:
            self.job.sandbox.fragalysis.reappear(*self.names[key])
        self.hidden.clear()


async def weather_over(job: Job, age: Age, seed: int) -> Weather:
    """Half of the storms, of each age, meet the calls too that the job does not always make."""
    for call in ("details", "delete") if seed // 2 % 2 else ():
        await make_asked(job, call, age)
    return Weather(job, age, seed)


async def rage(job: Job, runner: Runner, weather: Weather, steps: int = STEPS) -> None:
    for _ in range(steps):
        weather.faults()
        if weather.random.random() < 0.6:
            weather.change()
        job.clock.advance(timedelta(seconds=weather.random.choice([1, 20, 90, 900, 5400])))
        await job.again(runner)
        assert max(job.bought.values(), default=1) == 1, "never twice"


async def settle_down(job: Job, runner: Runner, weather: Weather) -> None:
    weather.clear_up()
    await calm(job, runner, 1, 2)
    await help_out(job)
    await job.again(runner)
    await calm(job, runner, 1, 2)
    await help_out(job)
    await job.again(runner)


async def check(job: Job, weather: Weather, story: Story) -> None:
    world = job.sandbox.fragalysis.world
    current = {one.row.smiles for target in world.targets for one in target.current}
    codes = {(target.name, one.row.code) for target in world.targets for one in target.current}
    bought = ours(job)
    assert current <= bought.keys() <= weather.smiles
    await ends_right(job, dict.fromkeys(bought, 1), rows=None)
    exported: list[Row] = await job.rows()
    assert codes == {(row.target, row.code) for row in exported}
    assert {(row.target, row.target_access_string) for row in exported} == set(weather.names.values())
    assert story.broken == []
    asked = sum(len(server.requests) for server in (job.sandbox.fragalysis, job.sandbox.molecule_one))
    assert asked < 4000, "no hot loop"
    assert story.turns < 4000
    assert told(story, "condition_opened") == told(story, "condition_closed")


def told(story: Story, event: str) -> Counter[tuple[str, str]]:
    """Count an event by subject and kind of the condition, whatever its target was called at that moment."""
    names = r"^(target )?(A71EV2A|Mpro|Secret)\d*@\S+"
    counted = Counter[tuple[str, str]]()
    for (subject, kind), times in story.told(event).items():
        counted[re.sub(names, r"\1\2", subject), kind] += times
    return counted


@pytest.mark.parametrize("seed", range(200 if EVERYTHING else 8))
async def test_a_storm_then_calm(tmp_path: Path, story: Story, seed: int) -> None:
    age = [*SIDES][seed % 2]
    async with storm(tmp_path, age, patient=False) as job:
        weather = await weather_over(job, age, seed)
        async with job.run() as runner:
            await rage(job, runner, weather)
            await settle_down(job, runner, weather)
            await check(job, weather, story)


@pytest.mark.parametrize("seed", range(1000, 1030 if EVERYTHING else 1003))
async def test_a_storm_with_restarts_and_crashes(tmp_path: Path, story: Story, seed: int) -> None:
    age = [*SIDES][seed % 2]
    async with storm(tmp_path, age, patient=False) as job:
        weather = await weather_over(job, age, seed)
        for number in range(4):
            async with job.run(crash=number % 2 == 0) as runner:
                await rage(job, runner, weather, 4)
        async with job.run() as runner:
            await settle_down(job, runner, weather)
            await check(job, weather, story)


@pytest.mark.postgres
@pytest.mark.parametrize("seed", range(2000, 2020 if EVERYTHING else 2002))
async def test_a_storm_on_postgresql(
    tmp_path: Path, story: Story, postgres_database_of_its_own: str, seed: int
) -> None:
    age = [*SIDES][seed % 2]
    url = settings_for_database(postgres_database_of_its_own).url.get_secret_value()
    async with storm(tmp_path, age, patient=False, database=url) as job:
        weather = await weather_over(job, age, seed)
        for number in range(3):
            async with job.run(crash=number % 2 == 0) as runner:
                await rage(job, runner, weather, 4)
        async with job.run() as runner:
            await settle_down(job, runner, weather)
            await check(job, weather, story)


CHANGES: dict[str, Callable[[FragalysisServer], object]] = {
    "a private target vanishes": lambda server: server.vanish(*PRIVATE),
    "renamed": lambda server: server.rename(*A, "Entero"),
    "moved": lambda server: server.move(*A, "lb00009-1"),
    "a timestamp alone": lambda server: server.touch(*A),
    "made private": lambda server: server.set_public(B[1], False),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_while_observations_fail(tmp_path: Path, story: Story, change: str) -> None:
    """The observations of one target fail; the others go on, and what changes meanwhile leaves nothing open."""
    async with storm(tmp_path) as job, job.run() as runner:
        job.fault("fragalysis", "status", "site_observations/.*target=1(&|$)", status=500, times=None)
        await job.again(runner)
        assert job.bought.keys() == {"CCN", "c1ccccc1", "CCBr"}, "a fault of one target pauses no other"
        CHANGES[change](job.sandbox.fragalysis)
        await job.again(runner)
        await job.later(runner, hours=1)
        job.sandbox.clear_faults()
        if change == "a private target vanishes":
            job.sandbox.fragalysis.reappear(*PRIVATE)
        await job.again(runner)
        await calm(job, runner, 1, 2)
        await ends_right(job)
        assert story.broken == []
        assert story.told("condition_opened") == story.told("condition_closed")
