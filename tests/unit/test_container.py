"""The Dockerfile and compose.yaml keep what docs/howto/container.md promises."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.dockerfile import context, stages
from watcher.settings import parse_duration
from watcher.settings_keys import keys
from watcher.settings_source import load

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BUILD, FINAL = stages(ROOT / "Dockerfile")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WATCHERS = ["watcher", "watcher-postgresql"]
HOW_TO = (ROOT / "docs/howto/container.md").read_text(encoding="utf-8")


def test_both_stages_have_one_base_pinned_to_a_patch_release() -> None:
    assert BUILD.base == FINAL.base
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", FINAL.base)


def test_the_image_runs_as_a_numbered_user_without_rights() -> None:
    uid, gid = FINAL.last("USER").text.split(":")
    assert int(uid) >= 10000
    assert int(gid) >= 10000
    changes = [number for number, step in enumerate(FINAL.steps) if step.name in ("RUN", "COPY", "ADD")]
    assert FINAL.steps.index(FINAL.last("USER")) > max(changes)


@pytest.mark.parametrize(
    ("name", "words"), [("ENTRYPOINT", ["watcher"]), ("CMD", ["run"]), ("HEALTHCHECK", ["watcher", "health"])]
)
def test_commands_have_the_exec_form(name: str, words: list[str]) -> None:
    assert FINAL.last(name).exec_form == words  # the shell form would keep SIGTERM from the daemon


def test_it_ends_by_the_signal_that_the_daemon_knows() -> None:
    assert FINAL.last("STOPSIGNAL").text == "SIGTERM"


def test_the_one_folder_to_write_to_is_a_volume_and_the_working_directory() -> None:
    assert FINAL.last("VOLUME").text == FINAL.last("WORKDIR").text == "/var/lib/watcher"


def test_nothing_is_compiled_at_run_time() -> None:
    assert FINAL.environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert any("compileall" in step.text for step in FINAL.all("RUN"))


def test_labels_say_what_the_project_says() -> None:
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in FINAL.labels.items()}
    assert labels["title"] == "Fragalysis Watcher"
    assert labels["description"] == PROJECT["description"]
    assert labels["licenses"] == PROJECT["license"]
    assert labels["version"] == PROJECT["version"]
    assert {"revision", "source"} <= labels.keys()


def test_dependencies_are_a_layer_before_the_source() -> None:
    order = [(step.name, step.text) for step in BUILD.steps]
    source = next(number for number, (name, text) in enumerate(order) if name == "COPY" and text.startswith("watcher "))
    before = order[:source]
    assert ("COPY", "pyproject.toml ./") in before
    assert any(name == "RUN" and "pip install" in text for name, text in before)


def test_the_build_sees_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    for name in (".env", "config.toml", "secrets/token", "watcher/a.py", "watcher/b/__pycache__/c.pyc", "LICENSE"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".dockerignore").write_text((ROOT / ".dockerignore").read_text(encoding="utf-8"), encoding="utf-8")
    assert [str(path) for path in context(tmp_path)] == ["LICENSE", "watcher/a.py"]
    copied = {word for step in BUILD.all("COPY") for word in step.words[:-1]}
    assert {str(path).split("/")[0] for path in context(ROOT)} == copied


# compose.yaml


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined_and_pinned(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert {"max-size", "max-file"} <= service["logging"]["options"].keys()
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert not service.get("privileged")


@pytest.mark.parametrize("name", WATCHERS)
def test_the_watcher_has_time_to_end_and_a_limit(name: str) -> None:
    service = SERVICES[name]
    assert service["image"] == f"fragalysis-watcher:{PROJECT['version']}"
    assert service["stop_grace_period"] == "30s"
    assert parse_duration(service["environment"]["WATCHER_DAEMON__SHUTDOWN_TIMEOUT"]) < parse_duration("30s")
    assert service["healthcheck"]["test"] == ["CMD", *(FINAL.last("HEALTHCHECK").exec_form or [])]
    assert {"mem_limit", "pids_limit", "init"} <= service.keys()
    assert any(str(volume).endswith(f":{FINAL.last('VOLUME').text}") for volume in service["volumes"])


def test_profiles_never_run_two_watchers() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items()}
    assert profiles == {
        "watcher": ["sqlite"],
        **{name: ["full"] for name in ("watcher-postgresql", "postgresql", "prometheus", "grafana")},
    }
    # One name: neither Compose nor the engine lets two such containers be.
    assert {SERVICES[name]["container_name"] for name in WATCHERS} == {"fragalysis-watcher"}
    records = [volume for name in WATCHERS for volume in SERVICES[name]["volumes"] if isinstance(volume, str)]
    assert len(set(records)) == 2
    assert "COMPOSE_PROFILES=sqlite" in (ROOT / ".env").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_are_files_and_only_files(name: str) -> None:
    service = SERVICES[name]
    given = {secret: f"/run/secrets/{secret}" for secret in service.get("secrets", [])}
    secret_variables = {key.variable for key in keys() if key.is_secret} | {"POSTGRES_PASSWORD"}
    environment = service.get("environment", {})
    for variable, value in environment.items():
        if variable.removesuffix("_FILE") in secret_variables and variable.endswith("_FILE"):
            assert value in given.values()
        elif variable in secret_variables:
            assert value == "sqlite+aiosqlite:////var/lib/watcher/watcher.db"
    assert set(given.values()) <= set(environment.values())
    for secret in given:
        assert COMPOSE["secrets"][secret] == {"file": f"./secrets/{secret}"}
        assert f"secrets/{secret}" in HOW_TO


@pytest.mark.parametrize("name", WATCHERS)
def test_the_program_takes_the_settings_that_compose_gives(name: str, tmp_path: Path) -> None:
    environment = {variable: value for variable, value in SERVICES[name]["environment"].items() if value is not None}
    for secret in SERVICES[name]["secrets"]:
        text = "postgresql+asyncpg://watcher:long-password@postgresql/watcher" if secret == "database_url" else secret
        (tmp_path / secret).write_text(text, encoding="utf-8")
    moved = {key: value.replace("/run/secrets", str(tmp_path)) for key, value in environment.items()}
    settings = load(None, environ=moved)
    assert settings.molecule_one.token.get_secret_value() == "molecule_one_token"
    assert settings.fragalysis.token.get_secret_value() == "fragalysis_token"
    assert settings.server.listen.rpartition(":")[2] == FINAL.last("EXPOSE").text
    url = settings.database.url.get_secret_value()
    assert url.partition("@")[2] == "postgresql/watcher" if name == "watcher-postgresql" else "/var/lib/watcher/" in url


@pytest.mark.parametrize("name", SERVICES)
def test_every_mounted_path_is_there_or_the_reader_is_told_to_make_it(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
        if not source.startswith("."):
            assert source in COMPOSE["volumes"]
        elif source == "./config.toml":
            assert volume["bind"] == {"create_host_path": False}
            assert volume["read_only"] is True
            assert "> config.toml" in HOW_TO
        else:
            assert (ROOT / source).exists(), source
            assert volume.endswith(":ro")


def test_prometheus_scrapes_the_watcher_by_the_job_of_the_rules() -> None:
    def read(place: str) -> Any:
        return yaml.safe_load((ROOT / place).read_text(encoding="utf-8"))

    here, elsewhere = read("deploy/compose/prometheus.yml"), read("deploy/prometheus/prometheus.yml")
    assert here["rule_files"] == elsewhere["rule_files"] == ["rules.yaml"]
    [job], [other] = here["scrape_configs"], elsewhere["scrape_configs"]
    assert job["job_name"] == other["job_name"]
    assert job["static_configs"] == [{"targets": ["watcher:9464"]}]
    assert SERVICES["watcher-postgresql"]["networks"]["default"]["aliases"] == ["watcher"]


def test_grafana_finds_the_dashboard_and_prometheus() -> None:
    provisioning = ROOT / "deploy/grafana/provisioning"
    [dashboards] = [yaml.safe_load(path.read_text()) for path in (provisioning / "dashboards").glob("*.y*ml")]
    [sources] = [yaml.safe_load(path.read_text()) for path in (provisioning / "datasources").glob("*.y*ml")]
    mounted = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    place = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert place in mounted
    assert str(Path(place).parent) in {provider["options"]["path"] for provider in dashboards["providers"]}
    assert [source["url"] for source in sources["datasources"]] == ["http://prometheus:9090"]
