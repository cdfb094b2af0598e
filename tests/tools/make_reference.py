"""Writes what is generated from the code: the example settings and the reference. Run it after changing either.

python -m tests.tools.make_reference
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from watcher import metrics, settings_text

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


GENERATED: dict[str, Callable[[], str]] = {
    "config.example.toml": settings_text.example,
    "docs/reference/settings.md": settings_text.reference,
    "docs/reference/metrics.md": metrics_reference,
}
"""What is written where. A further reference needs one line here; `tests/unit/test_docs.py` checks each."""


def main() -> None:
    """Write every generated file."""
    for place, generate in GENERATED.items():
        (ROOT / place).write_text(generate(), encoding="utf-8")


if __name__ == "__main__":
    main()
