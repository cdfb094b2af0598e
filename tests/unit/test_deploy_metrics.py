"""What is deployed beside the daemon speaks of what the daemon has: metrics, labels, states, conditions, commands."""

import re
from itertools import combinations, pairwise
from typing import Any

import pytest

from tests.support.deploy import (
    GRAFANA,
    JOB,
    PROMETHEUS,
    ROOT,
    Matcher,
    alerts,
    dashboard,
    dashboard_targets,
    expressions,
    matchers_in,
    metrics_in,
    read_yaml,
    rule_tests,
    rules,
)
from tests.tools.make_reference import all_metrics, commands_reference
from watcher.store.states import ARCHIVE_STATES, BATCH_STATES, CONDITION_KINDS, SCORING_STATES

LABELS = {name: set(labels) for name, kind, labels, _ in all_metrics()}
HISTOGRAMS = {name for name, kind, _, _ in all_metrics() if kind == "histogram"}
RECORDED = {"watcher:pending_target_seconds"}
FOREIGN = {
    "up", "ALERTS", "process_start_time_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total",
    "process_open_fds",
}  # fmt: skip
"""Of Prometheus itself, and of the library for the process."""
STATES = {
    "watcher_uploads": {*ARCHIVE_STATES, *SCORING_STATES},
    "watcher_batches": set(BATCH_STATES),
}
CATCH_ALL = "WatcherNeedsAttention"
GUIDE = (ROOT / "docs" / "howto" / "alerts.md").read_text(encoding="utf-8")
SECTIONS = dict(part.split("\n", 1) for part in GUIDE.split("\n### ")[1:])


def family(name: str) -> str:
    """Return the metric that a series belongs to: a histogram has three kinds of series."""
    short = re.sub(r"_(bucket|count|sum)$", "", name)
    return short if short in HISTOGRAMS else name


def alert_of_kind(kind: str) -> str:
    """Return the alert that the guide names for a kind of condition."""
    row = re.search(rf"^\| `{kind}` \| \[(\w+)\]", GUIDE, flags=re.MULTILINE)
    assert row, f"docs/howto/alerts.md does not say which alert the condition {kind!r} raises"
    return row[1]


def kinds_left_to_others() -> set[str]:
    (matcher,) = matchers_in(alerts()[CATCH_ALL]["expr"])
    assert (matcher.label, matcher.operator) == ("kind", "!~")
    return set(matcher.words)


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (kind) (watcher_conditions{kind!="up"}) or vector(0)', {"watcher_conditions"}),
        ("time() - (a > 0) > on (stage) group_left (service) b:c unless on (x) d == bool 0", {"a", "b:c", "d"}),
        ("max_over_time(timestamp(a == 1)[12h:5m]) < Inf", {"a"}),
    ],
)
def test_the_names_in_an_expression(expression: str, names: set[str]) -> None:
    assert metrics_in(expression) == names


def test_every_metric_that_is_read_exists() -> None:
    known = {*LABELS, *FOREIGN, *RECORDED}
    for expression in expressions():
        assert {family(name) for name in metrics_in(expression)} - known == set(), expression
    assert {rule["record"] for rule in rules() if "record" in rule} == RECORDED


def test_every_label_and_value_that_is_asked_for_exists() -> None:
    asked = [matcher for expression in expressions() for matcher in matchers_in(expression)]
    assert asked
    for one in asked:
        if one.metric.startswith("watcher_"):
            added = {"job", "instance", *(["le"] if one.metric.endswith("_bucket") else [])}
            assert one.label.removeprefix("exported_") in LABELS[family(one.metric)] | added, one
        assert unknown_values(one) == set(), one


def unknown_values(matcher: Matcher) -> set[str]:
    allowed = {
        "kind": set(CONDITION_KINDS),
        "leg": {"archive", "scoring"},
        "service": {"fragalysis", "molecule_one"},
        "job": {JOB},
        "state": STATES.get(matcher.metric, set()),
    }
    return set(matcher.words) - allowed.get(matcher.label, set(matcher.words))


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    shown = {family(name) for _, target in dashboard_targets() for name in metrics_in(target["expr"])}
    assert {name for name in LABELS if name.startswith("watcher_")} - shown == set()


def test_every_alert_has_all_that_a_reader_needs() -> None:
    assert list(SECTIONS) == list(alerts()), "docs/howto/alerts.md has a section for each alert, in the same order"
    for name, alert in alerts().items():
        severity = alert["labels"]["severity"]
        assert severity in ("page", "ticket", "info"), name
        assert f"\nSeverity: {severity}. " in SECTIONS[name], name
        notes = alert["annotations"]
        assert set(notes) == {"summary", "description", "runbook"}, name
        assert notes["runbook"] == f"docs/howto/alerts.md#{name.lower()}"
        for said in () if name == CATCH_ALL else ("**Meanwhile**", "**Do**", "**Ends**"):
            assert said in SECTIONS[name], f"{name}: {said}"


def test_every_alert_is_tested_to_fire_and_to_be_silent() -> None:
    asked: dict[str, list[bool]] = {name: [] for name in alerts()}
    for case in rule_tests():
        for test in case.get("alert_rule_test", ()):
            asked[test["alertname"]].append(bool(test["exp_alerts"]))
    for name, fired in asked.items():
        assert True in fired, f"{name} is never seen to fire"
        assert fired[0] is False, f"{name} is not seen to be silent before"
        healed = [b for a, b in pairwise(fired) if a]
        assert False in healed, f"{name} is never seen to end"


def test_every_kind_of_condition_raises_an_alert() -> None:
    left = kinds_left_to_others()
    cases = " ".join(line["series"] for case in rule_tests() for line in case["input_series"])
    for kind in CONDITION_KINDS:
        alert = alert_of_kind(kind)
        assert alert in alerts()
        assert alert != CATCH_ALL or f"\n- `{kind}`: " in SECTIONS[CATCH_ALL]
        assert (kind in left) == (alert != CATCH_ALL), f"{kind}: either {alert} or {CATCH_ALL} is for it, not both"
        assert f'kind="{kind}"' in cases, f"no test opens a condition {kind!r}"


def test_the_guide_knows_the_targets_and_the_commands() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+ \w+) \|", SECTIONS["WatcherPendingTooLong"], flags=re.MULTILINE))
    units = {"hour": 3600, "hours": 3600, "day": 86400, "days": 86400}
    told = {stage: int(text.split()[0]) * units[text.split()[1]] for stage, text in rows.items()}
    targets = {rule["labels"]["stage"]: product(rule["expr"]) for rule in rules() if rule.get("record") in RECORDED}
    assert told == targets
    names = set(re.findall(r"^#+ `watcher ([^`]+)`", commands_reference(), flags=re.MULTILINE))
    texts = [GUIDE, *(text for alert in alerts().values() for text in alert["annotations"].values())]
    typed = {typed for text in texts for typed in re.findall(r"(?:`| )watcher ((?:batches |db |notify )?[a-z]+)", text)}
    assert typed - names - WORDS == set()
    assert len(typed & names) > 10


WORDS = {"at", "needs", "that"}
"""What follows the word "watcher" where it is no command."""


def product(expression: str) -> int:
    """Return the number in `vector(a * b)`."""
    total = 1
    for factor in re.findall(r"\d+", expression):
        total *= int(factor)
    return total


def test_both_prometheuses_scrape_the_job_that_the_rules_go_by() -> None:
    for place in (PROMETHEUS / "prometheus.yml", ROOT / "deploy" / "compose" / "prometheus.yml"):
        config = read_yaml(place)
        assert [one["job_name"] for one in config["scrape_configs"]] == [JOB]
        assert config["rule_files"] == ["rules.yaml"]


def test_the_dashboard_is_sound() -> None:
    board = dashboard()
    panels: list[dict[str, Any]] = board["panels"]
    assert board["uid"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    (source,) = [one["name"] for one in board["templating"]["list"] if one["type"] == "datasource"]
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["title"]
        if panel["type"] == "row":
            continue
        assert panel["description"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": f"${{{source}}}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        for target in panel["targets"]:
            assert target["expr"].strip()
            assert target["datasource"] == panel["datasource"]
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, f"panels overlap at {one} and {other}"


def test_grafana_is_provisioned_with_what_compose_gives_it() -> None:
    services = read_yaml(ROOT / "compose.yaml")["services"]
    mounted = dict(text.split(":")[:2] for text in services["grafana"]["volumes"])
    (provider,) = read_yaml(GRAFANA / "provisioning" / "dashboards" / "watcher.yaml")["providers"]
    assert mounted["./deploy/grafana/dashboard.json"].startswith(provider["options"]["path"] + "/")
    assert mounted["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    (source,) = read_yaml(GRAFANA / "provisioning" / "datasources" / "prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in services
