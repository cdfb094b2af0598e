"""The settings as text: the example file, what is in force, and the reference. All from the models, so none can age."""

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from textwrap import wrap

from pydantic import SecretStr

from watcher.redaction import HIDDEN, redactor
from watcher.settings import Settings, format_duration, format_size
from watcher.settings_keys import Key, keys, sections
from watcher.settings_source import secrets_of

_FOUND = """\
The file is named by `--config PATH`, else by $WATCHER_CONFIG, else it is ./config.toml or /etc/watcher/config.toml.
Relative paths are relative to the working directory. Environment variables win over the file, named like
WATCHER_MOLECULE_ONE__TOKEN (lists and tables as JSON); secret files (`token_file`) win over both.
Durations are written 90s, 15m, 6h, 2d; sizes 200MB, 2GB."""


def example() -> str:
    """Return the example file: every key with its meaning, commented out at its default."""
    lines = [
        "# Settings of Fragalysis Watcher. Each key stands here with its default; remove the `#` to change it.",
        *(f"# {line}" for line in _FOUND.splitlines()),
    ]
    for section, table in sections().items():
        lines += ["", f"# {table.__doc__}", f"[{section}]"]
        for key in _keys_of(section):
            lines += [*(f"# {line}" for line in wrap(_meaning(key), 116)), f"# {key.name} = {_value(key, key.default)}"]
    return "\n".join(lines) + "\n"


def show(settings: Settings) -> str:
    """Return what is in force as TOML that can be loaded again; secrets are hidden, empty ones are shown as empty."""
    clean = redactor(secrets_of(settings))
    lines: list[str] = []
    for section in sections():
        lines += ["", f"[{section}]"]
        for key in _keys_of(section):
            value = getattr(getattr(settings, section), key.name)
            if isinstance(value, SecretStr) and key.name == "url":
                value = str(clean(value.get_secret_value()))  # all of it but the password is worth seeing
            lines.append(f"{key.name} = {_value(key, value)}")
    return "\n".join(lines[1:]) + "\n"


def reference() -> str:
    """Return the reference of every setting in Markdown."""
    lines = ["# Settings", "", *_FOUND.splitlines()]
    for section, table in sections().items():
        lines += ["", f"## `[{section}]`", "", table.__doc__ or "", ""]
        lines += ["| key | default | allowed | meaning |", "|---|---|---|---|"]
        for key in _keys_of(section):
            allowed = key.allowed.partition(" such as ")[0]  # the forms are told above
            cells = f"`{key.name}`", f"`{_value(key, key.default)}`", allowed, _meaning(key)
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _keys_of(section: str) -> Iterator[Key]:
    return (key for key in keys() if key.section == section)


def _meaning(key: Key) -> str:
    return " ".join((key.field.description or "").split())


def _value(key: Key, value: object) -> str:
    """Write a value the way it is written in the file."""
    if isinstance(value, timedelta):
        return _toml(format_duration(value))
    if isinstance(value, int) and key.is_size:
        return _toml(format_size(value))
    if isinstance(value, dict) and "null" in (text := json.dumps(value)):
        return _toml(text)  # TOML has no null; a table is also read from JSON
    return _toml(value)


def _toml(value: object) -> str:
    """Write a value in TOML; nothing at all as empty text, a secret as asterisks."""
    if isinstance(value, SecretStr):
        return _toml(HIDDEN if value.get_secret_value() else "")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(str(name))} = {_toml(item)}" for name, item in value.items()) + "}"
    # the escapes of JSON are those of TOML; only DEL needs one in TOML alone, and half characters fit into neither
    text = "" if value is None else str(value).encode("utf-8", "replace").decode()
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
