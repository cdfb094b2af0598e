"""The points themselves: known, reached, and armed by nobody but the launcher of the tests."""

import ast
from collections import Counter
from pathlib import Path

import watcher
from tests.crash.test_crash_points import BEFORE, COMMANDS, PRUNE, RECORD, RESTORE, UPGRADE, cases_of
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
    assert all(point in own or list(cases_of(point)) for point in points.POINTS)
    assert set(RECORD) | own | {*BEFORE} | {*COMMANDS} <= set(points.POINTS)
