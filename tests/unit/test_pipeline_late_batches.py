"""How long a batch that was lost, or given up, is looked for."""

from datetime import timedelta

import pytest

from tests.support.clock import START
from watcher.pipeline.late_batches import is_late
from watcher.store.forgotten import READ_BACK
from watcher.store.schema import Batch


@pytest.mark.parametrize(
    ("state", "remote_id", "closed_ago", "due_in", "late"),
    [
        ("lost", "7", None, 0, True),
        ("lost", "7", None, 1, False),
        ("lost", "7", None, -200, True),  # nobody looked for days
        ("lost", "7", 200, -1, True),  # it had been given up before, and turned up
        ("lost", "7", None, None, True),
        ("released", None, 1, None, True),
        ("released", None, 0.5, None, False),
        ("released", None, 23, -1, True),
        ("released", None, 23, 1, False),
        ("released", None, 24, -1, False),
        ("released", "7", 1, -1, True),  # it was lost before
        ("closed", None, 1, -1, False),
        ("submitted", "7", None, -1, False),
    ],
)
def test_what_may_still_turn_up_is_looked_for(
    state: str, remote_id: str | None, closed_ago: float | None, due_in: float | None, late: bool
) -> None:
    batch = Batch(
        state=state,
        remote_id=remote_id,
        closed_at=None if closed_ago is None else START - timedelta(hours=closed_ago),
        due_at=None if due_in is None else START + timedelta(hours=due_in),
    )
    assert is_late(batch, START) is late
    batch.outcome = READ_BACK  # what it holds may never be told
    assert is_late(batch, START) is (late and state == "lost")
