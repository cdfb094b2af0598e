"""Every setting by its dotted key, with what people need to know about it: default, what is allowed, meaning."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator, SecretStr
from pydantic.fields import FieldInfo

from watcher.settings import Section, Settings
from watcher.settings_types import DURATION_FORM, SIZE_FORM, parse_size


@dataclass(frozen=True, slots=True)
class Key:
    """One setting."""

    section: str
    name: str
    field: FieldInfo

    def __str__(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"WATCHER_{self.section}__{self.name}".upper()

    @property
    def types(self) -> tuple[Any, ...]:
        """The bare types that its value can have: `X | None` gives X and None, `tuple[X, ...]` tuple and X."""
        return tuple(_bare(self.field.annotation))

    @property
    def is_secret(self) -> bool:
        """Whether its value must never be shown."""
        return SecretStr in self.types

    @property
    def is_size(self) -> bool:
        """Whether its value is a number of bytes."""
        return any(isinstance(m, BeforeValidator) and m.func is parse_size for m in self.field.metadata)

    @property
    def default(self) -> Any:
        """The value in force when nothing is said; a URL as its text, since a default is no secret."""
        value = self.field.get_default(call_default_factory=True)
        return value.get_secret_value() if isinstance(value, SecretStr) else value

    @property
    def allowed(self) -> str:
        """What it can be, for messages and the reference."""
        if get_origin(self.field.annotation) is Literal:
            return " or ".join(f'"{choice}"' for choice in get_args(self.field.annotation))
        if self.is_size:
            return SIZE_FORM
        words = {
            bool: "true or false",
            timedelta: DURATION_FORM,
            Path: "a path",
            tuple: 'a list such as ["A", "B"]',
            dict: "a table",
            int: "a whole number",
            float: "a number",
        }
        return next((words[t] for t in self.types if t in words), "text") + self._range()

    def _range(self) -> str:
        limits = {Gt: " above {0.gt}", Ge: " of {0.ge} or more", Le: ", {0.le} at most"}
        return "".join(text.format(m) for kind, text in limits.items() for m in self.field.metadata if type(m) is kind)


def keys() -> Iterator[Key]:
    """Yield every setting in the order of the file."""
    for section, table in sections().items():
        for name, field in table.model_fields.items():
            yield Key(section, name, field)


def sections() -> dict[str, type[Section]]:
    """Return every table of the file by its name, in order."""
    return {name: cast("type[Section]", field.annotation) for name, field in Settings.model_fields.items()}


def nearest(unknown: str) -> str:
    """Return `; did you mean ...?` for an unknown dotted key, table or environment variable; empty if none is near."""
    if unknown.upper().startswith("WATCHER_"):
        found = get_close_matches(unknown.upper(), [key.variable for key in keys()], n=1)
    else:
        leaf = unknown.rpartition(".")[2]
        found = [str(key) for key in keys() if key.name == leaf]  # the right name in the wrong table
        found = found or get_close_matches(unknown, map(str, keys()) if "." in unknown else sections(), n=1)
        leaves = get_close_matches(leaf, [key.name for key in keys()], n=1)
        found = found or [str(key) for key in keys() if key.name in leaves]
    return f"; did you mean {' or '.join(f'`{name}`' for name in found)}?" if found else ""


def _bare(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _bare(get_args(annotation)[0])
    elif origin in (UnionType, tuple):
        if origin is tuple:
            yield tuple
        for part in get_args(annotation):
            yield from _bare(part)
    else:
        yield origin or annotation
