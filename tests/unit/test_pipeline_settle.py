"""How long a pass waits before it calls the rest settled."""

from datetime import timedelta

import pytest

from tests.support.clock import START
from watcher.pipeline.settle import PATIENCE, patient_wait
from watcher.store.waits import Waits

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("due_in", "at_work", "wait"),
    [
        (None, False, None),
        (-SECOND, False, -SECOND),
        (PATIENCE, False, PATIENCE),
        (PATIENCE + SECOND, False, None),
        (None, True, PATIENCE),
        (SECOND, True, SECOND),
        (PATIENCE + SECOND, True, PATIENCE),
    ],
)
def test_only_a_batch_at_work_is_worth_a_long_wait(
    due_in: timedelta | None, at_work: bool, wait: timedelta | None
) -> None:
    next_at = None if due_in is None else START + due_in
    assert patient_wait(Waits(next_at, at_work), START) == wait
