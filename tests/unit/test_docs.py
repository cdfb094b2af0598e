"""What is written about the program is true: generated pages are fresh, and what the design promises exists."""

import re
import tomllib

import pytest

from tests.support.storm import CALLS, KINDS, cases
from tests.tools.make_reference import GENERATED, ROOT, all_metrics, commands_reference
from watcher import store
from watcher.points import POINTS
from watcher.settings import Settings
from watcher.settings_keys import keys, sections
from watcher.settings_text import show

PROMISED = """
fragalysis: stack token token_file targets exclude scan_interval scan_cron settle first_seen user_agent
    requests_per_second max_concurrent_downloads
download: enabled directory max_archive_size max_unpacked_size metadata_file combined_sdf compound_set_sdfs
    soakdb_files unaligned_pdbs ligand_cifs event_maps inspection_maps residual_maps real_space_maps
    transformation_files reflections_files extract
molecule_one: base_url api_version token token_file batch_size poll_interval detail_level exploratory_search priority
    preset invalid_target_strategy parameters on_unconfirmed unconfirmed_window delete_after_collect price_per_compound
limits: compounds_per_day new_compounds_per_scan submit_private max_heavy_atoms
database: url
http: ca_file trust_env
server: listen token token_file
notify: urls urls_file events patience include_structures
log: format level
daemon: shutdown_timeout
"""
DEFAULTS = {
    "fragalysis.stack": "production",
    "fragalysis.targets": ["*"],
    "fragalysis.exclude": [],
    "fragalysis.scan_interval": "15m",
    "fragalysis.settle": "10m",
    "fragalysis.first_seen": "process",
    "fragalysis.max_concurrent_downloads": 1,
    "download.enabled": True,
    "download.directory": "downloads",
    "molecule_one.batch_size": 250,
    "molecule_one.poll_interval": "30s",
    "molecule_one.invalid_target_strategy": "pass",
    "molecule_one.on_unconfirmed": "hold",
    "molecule_one.unconfirmed_window": "30m",
    "molecule_one.delete_after_collect": False,
    "limits.compounds_per_day": 5000,
    "limits.new_compounds_per_scan": 2000,
    "limits.submit_private": False,
    "limits.max_heavy_atoms": 1000,
    "database.url": "sqlite+aiosqlite:///watcher.db",
    "http.trust_env": True,
    "server.listen": "127.0.0.1:9464",
    "notify.urls": [],
    "notify.events": ["settled", "attention", "recovered"],
    "notify.patience": "15m",
    "notify.include_structures": False,
    "log.format": "auto",
    "daemon.shutdown_timeout": "8s",
}
METRICS = """
target_last_success_timestamp_seconds{target,tas} target_remote_upload_index{target,tas}
target_recorded_upload_index{target,tas} uploads{leg,state} batches{state} claims{state}
oldest_pending_timestamp_seconds{stage} stage_duration_seconds{stage,outcome}
http_requests_total{service,operation,outcome} compounds_submitted_total{} limit_remaining_compounds{}
service_up{service} conditions{kind} build_info{version} notifications_total{outcome} notifications_pending{}
"""
COMMANDS = """
demo; run; once --timeout; plan --json; check --json; status --json; export --format --target --output; retry --target;
approve --profile; batches list --state --json; batches show --json; batches adopt; batches release --yes; db upgrade;
health --ready; db check; db backup; config init; config show; notify test; sandbox --age --ports --seconds-per-molecule
"""


@pytest.mark.parametrize("place", GENERATED)
def test_generated_files_are_fresh(place: str) -> None:
    written = (ROOT / place).read_text(encoding="utf-8")
    assert written == GENERATED[place](), f"{place} is stale: run `python -m tests.tools.make_reference`"


def test_every_page_is_in_the_contents_and_each_link_between_pages_leads_somewhere() -> None:
    docs = ROOT / "docs"
    pages = {str(page.relative_to(docs)) for page in docs.rglob("*.md")}
    assert set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)) == pages
    broken = [
        f"{page.name}: {link}"
        for page in [*docs.rglob("*.md"), *ROOT.glob("*.md")]
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert broken == []


def test_each_promise_names_a_test_that_exists() -> None:
    text = (ROOT / "docs/reliability.md").read_text("utf-8")
    file, wrong = ROOT, []
    for folder, name, of_it, another in re.findall(r"(tests/\w+/)?(test_\w+\.py)(?:::(\w+))?|`::(test_\w+)`", text):
        if name:
            file = ROOT / (folder or "tests/integration") / name
        function = of_it or another
        code = file.read_text("utf-8") if file.is_file() else None
        if code is None or (function and not re.search(rf"^(async )?def {function}\(", code, re.MULTILINE)):
            wrong.append(f"{file.relative_to(ROOT)}::{function}")
    assert wrong == []
    promises = text.partition("## Promises")[2].partition("## Numbers")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ") and not line.endswith("shown by |")]
    assert len(rows) > 20
    assert [row for row in rows if "::test_" not in row] == []
    bold = [part for part in re.split(r"\n(?=\*\*)", promises) if part.startswith("**")]
    assert [part for part in bold if "::test_" not in part] == []


def test_the_numbers_of_what_can_be_counted_are_true() -> None:
    text = (ROOT / "docs/reliability.md").read_text("utf-8")
    assert f"named places ({len(POINTS)} of them)" in text
    assert f"| one kind of fault ({len(KINDS)}) on one call ({len(CALLS)}) | {len([*cases()])} pairs" in text


def test_the_record_lists_its_modules() -> None:
    modules = {path.stem for path in (ROOT / "watcher/store").glob("*.py")} - {"__init__"}
    assert sorted(re.findall(r"`(\w+)`", store.__doc__ or "")) == sorted(modules)


def test_every_promised_setting_exists() -> None:
    promised: set[str] = set()
    section = ""
    for word in PROMISED.split():
        if word.endswith(":"):
            section = word[:-1]
        else:
            promised.add(f"{section}.{word}")
    assert promised <= {str(key) for key in keys()}


def test_every_promised_default_holds() -> None:
    shown = tomllib.loads(show(Settings()))
    assert {key: shown[key.split(".")[0]][key.split(".")[1]] for key in DEFAULTS} == DEFAULTS


def test_every_setting_and_table_is_described() -> None:
    assert [str(key) for key in keys() if not (key.field.description or "").strip()] == []
    assert [name for name, table in sections().items() if not (table.__doc__ or "").strip()] == []


def test_every_promised_metric_exists_and_each_is_described() -> None:
    there = {f"{name}{{{','.join(labels)}}}" for name, _, labels, _ in all_metrics()}
    assert {f"watcher_{metric}" for metric in METRICS.split()} <= there
    assert all(name.startswith("watcher_") and meaning for name, _, _, meaning in all_metrics())


def test_every_promised_command_is_described() -> None:
    described = {}
    for part in commands_reference().split("# `watcher ")[1:]:
        name, _, text = part.partition("`")
        described[name] = text
    for promised in COMMANDS.split(";"):
        words = promised.split()
        options = [word for word in words if word.startswith("--")]
        text = described[" ".join(word for word in words if word not in options)]
        assert [option for option in options if f"`{option}" not in text] == []
    assert all(text.strip() for text in described.values())
