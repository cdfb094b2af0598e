"""The rules, by promtool: they are well formed, each fires and heals. The dashboard's queries too."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.deploy import PROMETHEUS, ROOT, RULE_TESTS, expressions

PROMTOOL = shutil.which("promtool")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian package prometheus)"),
]


def promtool(*arguments: str, folder: Path = PROMETHEUS) -> str:
    """Call promtool; fail with what it says."""
    done = subprocess.run([str(PROMTOOL), *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_well_formed() -> None:
    assert "SUCCESS" in promtool("check", "rules", "rules.yaml")


def test_the_configurations_are_well_formed(tmp_path: Path) -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
    for file in (ROOT / "deploy" / "compose" / "prometheus.yml", PROMETHEUS / "rules.yaml"):
        shutil.copy(file, tmp_path)
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml", folder=tmp_path)


@pytest.mark.parametrize("name", RULE_TESTS)
def test_each_alert_fires_and_heals(name: str) -> None:
    assert "SUCCESS" in promtool("test", "rules", name)


def test_every_expression_can_be_read(tmp_path: Path) -> None:
    """Those of the dashboard too: as rules of a file of their own. JSON is YAML."""
    rules = [{"record": f"expression:{number}", "expr": text} for number, text in enumerate(expressions())]
    file = tmp_path / "expressions.yaml"
    file.write_text(json.dumps({"groups": [{"name": "expressions", "rules": rules}]}), encoding="utf-8")
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))
