"""The drawing of the program is true: imports point one way, and every module has its line in the table."""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAYERS = (
    {"__main__"},
    {"cli"},
    {"daemon"},
    {"web"},
    {"heartbeat"},
    {"schedule"},
    {"program"},
    {"pipeline", "in_force"},
    {"fragalysis", "molecule_one", "store", "archives", "chemistry_process", "chemistry_child", "notify_process"},
)
"""From the top to the bottom; what is not named lies below. Nothing imports from its own layer or from one above."""
ONLY_IN = {"sqlalchemy": ("watcher/store/*", "watcher/settings_source.py"), "rdkit": ("watcher/chemistry.py",)}
PROGRAM = sorted((ROOT / "watcher").rglob("*.py"))


def room(path: Path) -> str:
    """The module or package at the top of the program that a file belongs to."""
    return path.relative_to(ROOT / "watcher").parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name: str) -> int:
    return next((number for number, layer in enumerate(LAYERS) if name in layer), len(LAYERS))


def test_imports_point_one_way() -> None:
    rooms = {room(path) for path in PROGRAM} - {"__init__"}
    wrong = {
        (room(path), other)
        for path in PROGRAM
        for module in imported(path)
        if module.startswith("watcher.") and (other := module.split(".")[1]) in rooms and other != room(path)
        if layer(other) < layer(room(path)) or layer(other) == layer(room(path)) < len(LAYERS)
    }
    assert not wrong


def test_libraries_stay_in_their_rooms() -> None:
    wrong = {
        (str(path.relative_to(ROOT)), library)
        for path in PROGRAM
        for module in imported(path)
        if (library := module.split(".")[0]) in ONLY_IN
        if not any(fnmatch(str(path.relative_to(ROOT)), where) for where in ONLY_IN[library])
    }
    assert not wrong


def test_every_module_has_its_line_in_the_table() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table = text.split("## Where things are", 1)[1].split("\n## ", 1)[0]
    named = re.findall(r"`([a-z_*]+)(?:\.py|/)`", table)
    missing = {one for one in map(room, PROGRAM) if not any(fnmatch(one, name) for name in named)}
    assert missing == {"__init__", "__main__"}
    gone = {name for name in named if not any(fnmatch(room(path), name) for path in PROGRAM)} - {"migrations"}
    files = {path.name for path in PROGRAM}
    assert not {name for name in gone if f"{name}.py" not in files}
