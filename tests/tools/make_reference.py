"""Writes what is generated from the code: the example settings and the reference. Run it after changing either.

python -m tests.tools.make_reference
"""

from collections.abc import Callable, Iterator, Mapping
from enum import Enum, EnumType
from inspect import Parameter, cleandoc, signature
from pathlib import Path
from typing import Any, cast, get_type_hints

from prometheus_client.metrics import MetricWrapperBase
from typer.models import ArgumentInfo, CommandInfo, OptionInfo

from watcher import metrics, settings_text
from watcher.cli import app
from watcher.store import states
from watcher.store.batches import MOVES
from watcher.store.export import COLUMNS, Row

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
        "Times are unix timestamps, not ages: subtract them from `time()`. Beside these stand the `process_*` metrics",
        "of the Prometheus client; `process_start_time_seconds` is when the daemon started.",
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


def states_reference() -> str:
    """Return the reference of every state and kind of condition in Markdown."""
    lines = ["# States", "", "What the record says of each upload, claim and batch, and what can be not well."]
    for title, text, meanings in (
        ("Upload, archive leg", "Its two legs do not wait for each other.", states.ARCHIVE_STATES),
        ("Upload, scoring leg", "", states.SCORING_STATES),
        ("Claim", "One compound to be scored under one scoring profile.", states.CLAIM_STATES),
        ("Batch", "What is bought at Molecule.one, and is paid for.", states.BATCH_STATES),
    ):
        lines += ["", f"## {title}", "", *([text, ""] if text else []), *_table("state", meanings)]
    moves = {f"`{old}`": ", ".join(f"`{new}`" for new in sorted(MOVES[old])) or "none" for old in states.BATCH_STATES}
    lines += ["", "Changes that a batch can make:", "", "| from | to |", "|---|---|"]
    lines += [f"| {old} | {new} |" for old, new in moves.items()]
    lines += ["", "## Conditions", "", "`watcher status` lists what is open, with its reason and what to do.", ""]
    return "\n".join([*lines, *_table("kind", states.CONDITION_KINDS)]) + "\n"


def _table(name: str, meanings: Mapping[str, str]) -> list[str]:
    return [f"| {name} | meaning |", "|---|---|", *(f"| `{one}` | {text} |" for one, text in meanings.items())]


def export_reference() -> str:
    """Return the reference of the columns of the export in Markdown."""
    hints = get_type_hints(Row, include_extras=True)
    meanings = {column: hints[column].__metadata__[0] for column in COLUMNS}
    lines = [
        "# Export columns",
        "",
        "`watcher export` gives one row for each observation of each target's current upload, in these columns and",
        "in this order, in every format. Empty means unknown. In CSV, an apostrophe stands before a text that a",
        "spreadsheet would run.",
        "",
    ]
    return "\n".join([*lines, *_table("column", meanings)]) + "\n"


GENERATED: dict[str, Callable[[], str]] = {
    "config.example.toml": settings_text.example,
    "docs/reference/settings.md": settings_text.reference,
    "docs/reference/metrics.md": metrics_reference,
    "docs/reference/commands.md": commands_reference,
    "docs/reference/states.md": states_reference,
    "docs/reference/export.md": export_reference,
}
"""What is written where. A further reference needs one line here; `tests/unit/test_docs.py` checks each."""


def main() -> None:
    """Write every generated file."""
    for place, generate in GENERATED.items():
        (ROOT / place).write_text(generate(), encoding="utf-8")


if __name__ == "__main__":
    main()
