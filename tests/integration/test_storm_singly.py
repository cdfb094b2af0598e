"""One fault at a time on every call of both services: told once, healed once, and the job ends right."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.storm import (
    CALLS,
    EVERYTHING,
    HARMLESS,
    KINDS,
    SIDES,
    Age,
    Story,
    calm,
    ends_right,
    fault,
    fits,
    held,
    help_out,
    storm,
    told_once,
)

pytest_plugins = ("tests.support.story",)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def cases() -> Iterator[tuple[Age, str, str]]:
    for age in SIDES:
        for call in CALLS:
            yield from ((age, call, kind) for kind in KINDS if fits(call, kind, age))


CHOSEN = [
    ("2026", "targets", "sign_in_page"),
    ("2026", "uploads", "session_deleted"),
    ("2026", "observations", "404_page"),
    ("2024", "observations", "missing"),
    ("2026", "task", "redirect_302"),
    ("2026", "create", "504_after"),
    ("2026", "results", "missing"),
    ("2026", "list", "429_seconds"),
]


# Every kind on every call would take a quarter of an hour: one pair in thirteen, every call and every kind among them.
OTHERS = [
    ("2024", "uploads", "429_date"),
    ("2026", "request_task", "503"),
    ("2026", "file", "half"),
    ("2026", "status", "page"),
    ("2026", "status", "404"),
    ("2026", "status", "missing"),
    ("2024", "results_v1", "wrong_type"),
    ("2024", "create", "reset"),
]
OTHERS += [
    one for number, one in enumerate(cases()) if one not in (*CHOSEN, *OTHERS) and (EVERYTHING or number % 13 == 6)
]


async def weather(tmp_path: Path, story: Story, age: Age, call: str, kind: str) -> None:
    """A fault that lasts more than an hour, and what must hold during it and after."""
    async with storm(tmp_path, age) as job, job.run() as runner:
        # Results that are not listed are looked for five times, then they count as failed: that is another test.
        unlisted = call.startswith("results") and kind in ("repeated", "skipped")
        rule = fault(call, kind, job, times=3 if unlisted else None)
        await job.again(runner)
        if call == "landing" and rule.hits == 0:
            pytest.skip("never asked for")
        assert rule.hits
        await job.later(runner, minutes=5)
        for _ in range(3):  # no longer at once: who fails is still known to fail then
            await job.later(runner, minutes=20)
        if kind in HARMLESS and call != "file":
            assert not story.told("condition_opened")
            await ends_right(job)
        asked = sum(len(server.requests) for server in (job.sandbox.fragalysis, job.sandbox.molecule_one))
        if kind == "404_page":
            quarantined = [one for one in story.told("condition_opened") if "quarantined" in one[1]]
            assert not quarantined, "a page of a proxy says nothing of an item"
        # A build is looked at five times before it counts as a failure, and each look is asked for three times.
        assert asked < (1500 if call == "task" else 400), "no hot loop"
        assert story.turns < 400
        await calm(job, runner)
        if call == "create":
            assert job.posts() == 1 or not await held(job)
        await help_out(job)
        await calm(job, runner, 1)
        await ends_right(job)
        told_once(story)


@pytest.mark.parametrize(("age", "call", "kind"), CHOSEN, ids=map("-".join, CHOSEN))
async def test_a_fault_is_told_once_and_forgotten(tmp_path: Path, story: Story, age: Age, call: str, kind: str) -> None:
    await weather(tmp_path, story, age, call, kind)


@pytest.mark.slow
@pytest.mark.parametrize(("age", "call", "kind"), OTHERS, ids=map("-".join, OTHERS))
async def test_every_fault_of_every_call(tmp_path: Path, story: Story, age: Age, call: str, kind: str) -> None:
    await weather(tmp_path, story, age, call, kind)
