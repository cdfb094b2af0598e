"""How the vendor's work goes forward, and the chance behind its order."""

from watcher.sandbox import Listing
from watcher.sandbox.batches import Batches, Pace
from watcher.sandbox.chance import identifier, shuffled, unit


def test_chance_repeats_itself() -> None:
    assert unit("a", 1) == unit("a", 1) != unit("a", 2)
    assert 0 <= unit("a") < 1
    assert shuffled(range(20), 1) == shuffled(range(20), 1) != list(range(20))
    assert sorted(shuffled(range(20), 1)) == list(range(20))
    assert identifier("x") == identifier("x") != identifier("y")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_work_goes_on_by_the_clock() -> None:
    clock = Clock()
    pace = Pace(seconds_per_molecule=2.0, queue_seconds=10.0, parallel=2)
    batches = Batches(pace, clock, 0)
    batch = batches.create(["C"] * 5, version="v2", name=None, metadata={}, settings={}, detailed=False)
    progress = []
    for now in (100.0, 109.9, 110.0, 111.9, 112.0, 114.0, 116.0, 999.0):
        clock.now = now
        batches.get(batch.id)
        progress.append((batch.done, batches.running(batch)))
    assert progress == [(0, 0), (0, 0), (0, 2), (0, 2), (2, 2), (4, 1), (5, 0), (5, 0)]


def test_work_goes_on_by_hand() -> None:
    batches = Batches(Pace(manual=True, parallel=3), Clock(), 0)
    first, second = (
        batches.create(["C"] * 3, version="v1", name=None, metadata={}, settings={}, detailed=False) for _ in range(2)
    )
    assert batches.get(first.id) is first
    assert (first.done, batches.running(first)) == (0, 3)
    assert batches.finish(4) == 4
    assert (first.done, second.done) == (3, 1)
    assert sorted(first.ready) == [0, 1, 2]
    assert batches.finish() == 2
    assert batches.delete(first.id)
    assert not batches.delete(first.id)
    assert first.id != second.id


def test_the_listing_starts_out_honest() -> None:
    assert Listing() == Listing(form="auto", names=True, lag=0, limit=None, repeat=False)
