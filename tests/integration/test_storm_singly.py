"""One fault at a time on every call of both services: told once, healed once, and the job ends right."""

import re
from pathlib import Path

import pytest

from tests.support.storm import (
    BOUGHT,
    BOUGHT_ALONE,
    CALLS,
    HARMLESS,
    MOST_LINES,
    ROWS,
    ROWS_ALONE,
    SIDES,
    Age,
    Story,
    calm,
    cases,
    ends_right,
    expected,
    fault,
    held,
    help_out,
    is_alone,
    left_to_a_person,
    make_asked,
    storm,
    told_once,
)
from watcher.sandbox.server import Server

pytest_plugins = ("tests.support.story",)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize(("age", "call", "kind"), [*cases()])
async def test_a_fault_is_told_once_and_forgotten(tmp_path: Path, story: Story, age: Age, call: str, kind: str) -> None:
    """It lasts more than an hour."""
    alone = is_alone(call, kind)
    everything = (BOUGHT_ALONE, ROWS_ALONE) if alone else (BOUGHT, ROWS)
    told = expected(call, kind, age)
    async with storm(tmp_path, age, alone=alone, patient=not kind.startswith("held")) as job:
        await make_asked(job, call, age)
        async with job.run() as runner:
            # Results that are not listed are looked for an hour, then they count as failed: that is another test.
            unlisted = call.startswith("results") and kind in ("repeated", "skipped")
            rule = fault(call, kind, job, times=3 if unlisted else None)
            await job.again(runner)
            assert rule.hits
            for wait in (5, 28, 28):  # no longer at once: who fails is still known to fail then
                await job.later(runner, minutes=wait)
            assert story.told("condition_opened").keys() == told
            if kind in HARMLESS and call != "file":
                await ends_right(job, *everything)
            asked = sum(len(server.requests) for server in (job.sandbox.fragalysis, job.sandbox.molecule_one))
            # A build is looked at five times before it counts as a failure, and each look is asked for three times.
            assert asked < (1500 if call == "task" else 400), "no hot loop"
            assert story.turns < 400
            await calm(job, runner)
            left = left_to_a_person(call, kind, age)
            assert {(one.subject, one.kind) for one in await job.open_conditions()} == left
            assert job.posts() == 1 or not await held(job)
            if left:
                await help_out(job)
                await calm(job, runner, 1)
            await ends_right(job, *everything)
            # A batch that is refused for its content is tried whole and in halves, then and later.
            told_once(story, told, most=6 if (call, kind) == ("create", "400") else MOST_LINES)


@pytest.mark.parametrize("age", SIDES)
async def test_the_calls_are_all_there_are(tmp_path: Path, age: Age) -> None:
    async with storm(tmp_path, age) as job:
        for call in ("details", "delete"):
            await make_asked(job, call, age)
        await job.once()
        calls = {name: one for name, one in CALLS.items() if age in one.ages}
        met = set()
        for server in (job.sandbox.fragalysis, job.sandbox.molecule_one):
            for method, path in server.requests:
                found = [name for name, one in calls.items() if method == one.method and re.search(one.path, path)]
                assert len(found) == 1, (method, path, found)
                met.update(found)
        assert met == calls.keys()


@pytest.mark.parametrize("age", SIDES)
@pytest.mark.parametrize("where", ["fragalysis", "molecule_one"])
async def test_a_service_that_takes_no_connection(tmp_path: Path, story: Story, age: Age, where: str) -> None:
    async with storm(tmp_path, age) as job, job.run() as runner:
        server: Server = getattr(job.sandbox, where)
        await server.close()
        await job.again(runner)
        for _ in range(4):
            await job.later(runner, minutes=20)
        assert [*await job.conditions()] == [f"{where}: unreachable"]
        assert story.turns < 400
        await server.start()
        await calm(job, runner)
        await ends_right(job)
        told_once(story, {(where, "unreachable")})
