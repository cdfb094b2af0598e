"""The fixtures `job` and `v1`: two targets and nothing recorded, without archives; Molecule.one in v2 and in v1.

A test module asks for them with `pytest_plugins = ("tests.support.worlds",)`.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.pipeline import Job, world


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[Job]:
    async with world(tmp_path) as job:
        job.set("download", enabled=False)
        yield job


@pytest.fixture
async def v1(tmp_path: Path) -> AsyncIterator[Job]:
    async with world(tmp_path, version="v1") as job:
        job.set("download", enabled=False)
        yield job
