"""What lies in `deploy/` for Prometheus and Grafana, read as data; and the metrics that an expression speaks of."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
RULE_TESTS = ("rules.test.yaml", "rules.days.test.yaml")
JOB = "fragalysis-watcher"
_GROUPING = r"\b(?:by|on|without|ignoring|group_left|group_right)\b\s*(?:\([^)]*\))?"
_KEYWORDS = {"and", "or", "unless", "bool", "offset", "Inf"}
_SELECTOR = re.compile(r"([A-Za-z_:][\w:]*)\s*\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def read_yaml(path: Path) -> Any:
    """Read a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Matcher:
    """What a selector asks of one label."""

    metric: str
    label: str
    operator: str
    value: str

    @property
    def words(self) -> list[str]:
        """The values named."""
        return self.value.split("|") if "~" in self.operator else [self.value]


@cache
def rules() -> list[dict[str, Any]]:
    """Return every rule."""
    return [rule for group in read_yaml(PROMETHEUS / "rules.yaml")["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


@cache
def rule_tests() -> list[dict[str, Any]]:
    """Return the cases of both files."""
    return [case for name in RULE_TESTS for case in read_yaml(PROMETHEUS / name)["tests"]]


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    loaded: dict[str, Any] = json.loads((GRAFANA / "dashboard.json").read_text(encoding="utf-8"))
    return loaded


def dashboard_targets() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the title of each panel with each of its queries."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target


def expressions() -> list[str]:
    """Return every PromQL expression of rules and dashboard."""
    return [*(rule["expr"] for rule in rules()), *(filled_in(target["expr"]) for _, target in dashboard_targets())]


def filled_in(query: str) -> str:
    """Put something in the place of Grafana's variables."""
    return query.replace("$__rate_interval", "5m").replace("$instance", ".*")


def metrics_in(expression: str) -> set[str]:
    """Return the names of the metrics that an expression reads."""
    text = re.sub(r'"[^"]*"', " ", expression)
    text = re.sub(rf"\{{[^}}]*\}}|\[[^\]]*\]|{_GROUPING}", " ", text)
    return set(re.findall(r"(?<![\w:])[A-Za-z_:][\w:]*(?![\w:])(?!\s*\()", text)) - _KEYWORDS


def matchers_in(expression: str) -> Sequence[Matcher]:
    """Return what the selectors of an expression ask of labels."""
    return [
        Matcher(metric, label, operator, value)
        for metric, inside in _SELECTOR.findall(expression)
        for label, operator, value in _MATCHER.findall(inside)
    ]
