"""The points themselves: known, reached, and armed by nobody but the launcher of the tests."""

import ast
from collections import Counter
from pathlib import Path

import watcher
from tests.crash.test_crash_points import (
    AT_POINTS,
    BEFORE,
    COMMANDS,
    LEFT,
    PRUNE,
    RECORD,
    RESTORE,
    SIGNALS,
    SURE,
    UPGRADE,
    cases_of,
    ends_in_the_longer_proofs,
)
from watcher import points

PACKAGE = Path(watcher.__file__).parent


def reached_in(path: Path) -> list[str]:
    """Return the names of the points that a module reaches; each must stand there as it is."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    named = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "reach"]
    names = [name.value for name in named if isinstance(name, ast.Constant)]
    assert len(names) == len(named), f"{path} reaches a point without naming it"
    return [str(name) for name in names]


def test_every_point_is_reached_once_and_every_reached_one_is_known() -> None:
    reached = Counter(name for path in PACKAGE.rglob("*.py") for name in reached_in(path))
    assert reached == dict.fromkeys(points.POINTS, 1)
    assert len(points.POINTS) >= 15


def test_the_number_of_ends_is_the_one_that_is_told() -> None:
    told = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    ends = ends_in_the_longer_proofs()
    assert f"at least {ends['sqlite']} times over SQLite, {ends['postgres']} over PostgreSQL |" in told
    assert f"of {SURE} commits" in told


def test_nothing_in_the_program_arms_a_point() -> None:
    assert points.hook is None
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert path == PACKAGE / "points.py" or "points.hook" not in source, path
        assert "import points" not in source, path
    assert "environ" not in (PACKAGE / "points.py").read_text(encoding="utf-8").replace("environment", "")


def test_a_point_without_a_hook_is_nothing() -> None:
    points.reach("no such point")


def test_every_point_has_its_cases() -> None:
    own = {*UPGRADE, *PRUNE, *RESTORE}
    assert own | {*AT_POINTS} | {"store.committing", "store.committed"} == points.POINTS.keys()
    assert {*RECORD, *LEFT, *BEFORE, *COMMANDS} <= points.POINTS.keys()
    for point in AT_POINTS:
        assert {case.kills[-1].by for case in cases_of(point)} == {*SIGNALS}, point
