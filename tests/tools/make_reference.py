"""Writes what is generated from the code: the example settings and the reference. Run it after changing either.

python -m tests.tools.make_reference
"""

from collections.abc import Callable, Iterator
from enum import Enum, EnumType
from inspect import Parameter, cleandoc, signature
from pathlib import Path
from typing import Any, cast, get_type_hints

from prometheus_client.metrics import MetricWrapperBase
from typer.models import ArgumentInfo, CommandInfo, OptionInfo

from watcher import metrics, settings_text
from watcher.cli import app

ROOT = Path(__file__).parents[2]


def all_metrics() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Yield name, type, labels and meaning of every metric, in the order of the module."""
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield name, family.type, tuple(metric._labelnames), family.documentation


def metrics_reference() -> str:
    """Return the reference of every metric in Markdown."""
    lines = [
        "# Metrics",
        "",
        "`/metrics` of the server (`[server] listen`) gives these in the Prometheus text format.",
        "Times are unix timestamps, not ages: subtract them from `time()`.",
        "",
        "| name | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for name, kind, labels, meaning in all_metrics():
        lines.append(f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {meaning} |")
    return "\n".join(lines) + "\n"


def commands_reference() -> str:
    """Return the reference of every command in Markdown, from what `--help` shows."""
    main = cast("Callable[..., None]", app.registered_callback and app.registered_callback.callback)
    lines = ["# Commands", "", *_described(main)]
    for command in app.registered_commands:
        lines += ["", f"## `watcher {_name(command)}`", "", *_described(command.callback)]
    for group in app.registered_groups:
        lines += ["", f"## `watcher {group.name}`", "", str(group.typer_instance and group.typer_instance.info.help)]
        for command in group.typer_instance.registered_commands if group.typer_instance else ():
            lines += ["", f"### `watcher {group.name} {_name(command)}`", "", *_described(command.callback)]
    return "\n".join(lines) + "\n"


def _name(command: CommandInfo) -> str:
    return command.name or str(getattr(command.callback, "__name__", ""))


def _described(command: Callable[..., None] | None) -> list[str]:
    """Return a command's text and a table of its arguments and options."""
    assert command is not None
    hints = get_type_hints(command, include_extras=True)
    rows = []
    for name, parameter in signature(command).parameters.items():
        for info in getattr(hints[name], "__metadata__", ()):
            shown = parameter.default.value if isinstance(parameter.default, Enum) else parameter.default
            default = "" if shown in (None, False, Parameter.empty) else f" Default: `{shown}`."
            rows.append(f"| `{_spelled(name, hints[name].__origin__, info)}` | {info.help}{default} |")
    table = ["", "| argument or option | meaning |", "|---|---|", *rows] if rows else []
    return [*cleandoc(command.__doc__ or "").splitlines(), *table]


def _spelled(name: str, kind: Any, info: OptionInfo | ArgumentInfo) -> str:
    """Write an argument or option as it is typed."""
    choices = "\\|".join(kind) if isinstance(kind, EnumType) else ""
    value = str(info.metavar or choices or getattr(kind, "__name__", "").upper())
    if isinstance(info, ArgumentInfo):
        return value
    named = [one for one in (info.default, *(info.param_decls or ())) if isinstance(one, str)]
    options = ", ".join(named or [f"--{name.replace('_', '-')}"])
    return options if kind is bool else f"{options} {value}"


GENERATED: dict[str, Callable[[], str]] = {
    "config.example.toml": settings_text.example,
    "docs/reference/settings.md": settings_text.reference,
    "docs/reference/metrics.md": metrics_reference,
    "docs/reference/commands.md": commands_reference,
}
"""What is written where. A further reference needs one line here; `tests/unit/test_docs.py` checks each."""


def main() -> None:
    """Write every generated file."""
    for place, generate in GENERATED.items():
        (ROOT / place).write_text(generate(), encoding="utf-8")


if __name__ == "__main__":
    main()
