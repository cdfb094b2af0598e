"""What a shell offers for the name of a target: those in the record. Silent whatever goes wrong: a person is typing."""

from contextlib import suppress
from pathlib import Path
from typing import Any


def target_names(ctx: Any, incomplete: str) -> list[str]:
    """Return the targets of a SQLite record that begin so, as NAME, or as NAME@TAS where the name is not enough."""
    found: list[str] = []
    with suppress(Exception, SystemExit):
        found = _target_names(ctx)
    return [name for name in found if name.startswith(incomplete) and name.isprintable()]


def _target_names(ctx: Any) -> list[str]:
    from watcher.settings_source import load
    from watcher.store.names import target_names as recorded

    named = ctx.find_root().params.get("config")
    pairs = recorded(load(Path(named) if named else None).database)
    names = [name for name, _ in pairs]
    return sorted({name if names.count(name) == 1 else f"{name}@{tas}" for name, tas in pairs})
