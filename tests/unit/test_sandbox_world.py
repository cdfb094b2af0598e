"""Changes to what the Fragalysis sandbox holds."""

import pytest

from watcher.sandbox.catalogue import load
from watcher.sandbox.world import World

T = ("TGT", "lb1-1")


@pytest.fixture
def world() -> World:
    world = World()
    world.add_target(*T)
    return world


def codes(world: World) -> list[tuple[str, str]]:
    return sorted((each.row.code, each.row.smiles) for each in world.find(*T).current)


def test_uploads_add_up_and_carry_rows_over(world: World) -> None:
    world.add_upload(*T, [("A1a", "CCO", "Z1"), ("A2a", "CCN", None)])
    first = {each.row.code: each.id for each in world.find(*T).current}
    world.add_upload(*T, [("A1a", "CCO", "Z1"), ("A3a", "CCC", "Z3")])
    second = {each.row.code: each.id for each in world.find(*T).current}
    assert second.keys() == {"A1a", "A2a", "A3a"}
    assert second["A1a"] == first["A1a"]
    assert world.find(*T).published == 2


def test_a_later_row_of_the_same_code_supersedes(world: World) -> None:
    world.add_upload(*T, [("A1a", "CCO", "Z1")])
    world.add_upload(*T, [("A1a", "CCN", "Z1")])
    old, new = world.find(*T).observations
    assert (old.superseded_by, old.version, new.version) == (2, 1, 2)
    assert codes(world) == [("A1a", "CCN")]


def test_withdrawing_takes_the_rows_along_and_the_index_is_used_again(world: World) -> None:
    world.add_upload(*T, [("A1a", "CCO", "Z1")])
    world.add_upload(*T, [("A1a", "CCN", "Z1"), ("A2a", "CCC", "Z2")])
    before = world.find(*T).uploads[1].committed
    world.withdraw(*T)
    assert world.find(*T).published == 1
    assert codes(world) == [("A1a", "CCO")]
    assert len(world.find(*T).compounds) == 1
    world.publish(*T)
    assert world.find(*T).published == 2
    assert world.find(*T).uploads[1].committed > before


def test_an_upload_of_its_own_goes_before_the_prepared_ones(world: World) -> None:
    world.add_upload(*T, [("A1a", "CCO", None)], publish=False)
    world.add_upload(*T, [("A2a", "CCN", None)])
    assert codes(world) == [("A2a", "CCN")]
    world.publish(*T)
    assert codes(world) == [("A1a", "CCO"), ("A2a", "CCN")]


def test_touch_changes_the_time_alone(world: World) -> None:
    world.add_upload(*T, [("A1a", "CCO", None)])
    before = world.find(*T).uploads[0].committed
    world.touch(*T)
    assert world.find(*T).uploads[0].committed > before
    assert codes(world) == [("A1a", "CCO")]


def test_rename_move_vanish(world: World) -> None:
    world.rename(*T, "NEW")
    world.move("NEW", "lb1-1", "lb2-2")
    target = world.find("NEW", "lb2-2")
    assert target.id == 1
    world.vanish("NEW", "lb2-2")
    assert list(world.visible(member=True)) == []
    world.reappear("NEW", "lb2-2")
    assert list(world.visible(member=False)) == [target]
    world.set_public("lb2-2", False)
    assert list(world.visible(member=False)) == []


def test_a_failed_upload_changes_no_observation(world: World) -> None:
    world.add_upload(*T, [("A1a", "CCO", None)])
    world.add_upload(*T, [("A2a", "CCN", None)], status="FAILURE")
    assert codes(world) == [("A1a", "CCO")]
    assert world.find(*T).published == 2


def test_what_cannot_be_done_is_refused(world: World) -> None:
    with pytest.raises(LookupError, match="no prepared upload"):
        world.publish(*T)
    with pytest.raises(LookupError, match="no upload to withdraw"):
        world.withdraw(*T)
    with pytest.raises(LookupError, match="no upload to touch"):
        world.touch(*T)
    with pytest.raises(LookupError, match="no target"):
        world.find("TGT", "lb9-9")


@pytest.mark.parametrize("published", [None, 0, 1, 99])
def test_filling_publishes_as_many_as_asked(published: int | None) -> None:
    world = World()
    world.fill(load().targets, published)
    for entry, target in zip(load().targets, world.targets, strict=True):
        wanted = entry.published if published is None else min(published, len(entry.uploads))
        assert target.published == wanted
    times = [upload.committed for target in world.targets for upload in target.uploads[: target.published]]
    assert len({*times}) == len(times)
