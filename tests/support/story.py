"""The fixture `story`: what is logged while a test runs, and how often the runner takes a turn."""

from collections.abc import Iterator

import pytest
import structlog

from tests.support.storm import Story
from watcher.pipeline.runner import Runner

pytest_plugins = ("tests.support.at_once",)


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch, sqlite_at_once: None) -> Iterator[Story]:
    seen, original = Story(), Runner.turn

    async def turn(self: Runner) -> bool:
        seen.turns += 1
        return await original(self)

    monkeypatch.setattr(Runner, "turn", turn)
    with structlog.testing.capture_logs() as logs:
        structlog.get_config()["processors"].insert(0, structlog.contextvars.merge_contextvars)
        seen.logs = logs
        yield seen
