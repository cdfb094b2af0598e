"""Four defects, put into a copy of the program, are each caught by tests that look at what is promised."""

import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # a busy machine is no failure

ROOT = Path(__file__).parents[2]
PARTS = ("watcher", "migrations", "tests", "pyproject.toml")
"""What the tests of a copy need."""
WHICH = "tests/unit/test_which_program.py"
"""A test in the copy that says whether the copy is what is tested, and not an installed program."""
WHICH_SOURCE = """
from pathlib import Path

import watcher
from watcher.store.migrate import migrations_directory


def test_it_is_the_copy() -> None:
    copy = Path(__file__).parents[2]
    assert Path(watcher.__file__).is_relative_to(copy)
    assert migrations_directory().is_relative_to(copy)
"""


@dataclass(frozen=True)
class Change:
    """An exact text that stands once in a file, and what stands there in the defective copy."""

    file: str
    old: str
    new: str

    def plant(self, copy: Path) -> None:
        """Make the change. Fails when the program has moved on, so that no defect is forgotten."""
        path = copy / self.file
        text = path.read_text(encoding="utf-8")
        assert text.count(self.old) == 1, f"{self.file} holds this {text.count(self.old)} times:\n{self.old}"
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


@dataclass(frozen=True)
class Defect:
    """What is changed, and the tests that must fail then, each with what its failure says. Each passes without."""

    changes: tuple[Change, ...]
    caught_by: dict[str, str]


UPLOADS = "tests/integration/test_stages_uploads.py"
PURCHASES = "tests/integration/test_stages_purchases.py"
STORE = "tests/integration/test_store_purchases.py"
DEFECTS = {
    "sent before the intent is committed": Defect(
        (
            Change(
                "watcher/pipeline/submit.py",
                """\
                await ask_for_approval(session, profile, now)
                reach("submit.intending")
""",
                """\
                if batch is not None:
                    self._outcome = await self._context.molecule_one.create(batch.payload.encode())
                await ask_for_approval(session, profile, now)
                reach("submit.intending")
""",
            ),
            Change(
                "watcher/pipeline/submit.py",
                "                outcome = await self._context.molecule_one.create(batch.payload.encode())\n",
                "                outcome = self._outcome\n",
            ),
        ),
        {
            f"{PURCHASES}::test_a_crash_between_sending_and_recording[v1]": "assert [] == ['submitting']",
            f"{PURCHASES}::test_an_intent_in_doubt_is_never_sent[False]": "'CCO': 2",
        },
    ),
    "the unique live item dropped": Defect(
        (
            Change(
                "watcher/store/schema.py",
                """\
        Index("uq_batch_item_live", "claim_id", unique=True, sqlite_where=text("live"), postgresql_where=text("live")),
""",
                "",
            ),
            Change(
                "migrations/versions/0001_the_record_as_it_begins.py",
                """\
        batch_op.create_index(
            "uq_batch_item_live",
            ["claim_id"],
            unique=True,
            sqlite_where=sa.text("live"),
            postgresql_where=sa.text("live"),
        )
""",
                "",
            ),
        ),
        {
            f"{STORE}::test_code_that_forgets_a_purchase_cannot_repeat_it[sqlite]": "DID NOT RAISE Conflict",
            f"{STORE}::test_a_second_live_item_is_refused_by_the_database[sqlite]": "DID NOT RAISE Conflict",
        },
    ),
    "the index moved only at the end": Defect(
        (
            Change(
                "watcher/store/legs.py",
                """\
    target.current_upload_id = upload.id if upload else None
""",
                """\
    if upload is None or upload.scoring_state == "scored":
        target.current_upload_id = upload.id if upload else None
""",
            ),
            Change(
                "watcher/store/upload_queues.py",
                """\
        .join(Target, Target.current_upload_id == Upload.id)
        .where(
            Target.followed,
            or_(
""",
                """\
        .join(Target, Target.id == Upload.target_id)
        .where(
            Target.followed,
            or_(
""",
            ),
            Change(
                "watcher/pipeline/extract.py",
                """\
            if target.current_upload_id != unit:
""",
                """\
            if not target.followed:
""",
            ),
            Change(
                "watcher/pipeline/extract.py",
                """\
            if target.current_upload_id != upload.id:
""",
                """\
            if not target.followed:
""",
            ),
            Change(
                "watcher/store/claims.py",
                """\
        .join(Target, Target.current_upload_id == Observation.upload_id)
        .where(
            Alias.compound_id.is_not(None),
""",
                """\
        .where(
            Alias.compound_id.is_not(None),
""",
            ),
            Change(
                "watcher/pipeline/finish.py",
                """\
            if target.current_upload_id == upload.id:
                target.last_success_at = now
""",
                """\
            target.current_upload_id, target.last_success_at = upload.id, now
            from watcher.pipeline.profile import profile_in_force
            profile = await profile_in_force(session, self._context)
            await claims.review(session, profile, self._context.policy, now=now)
""",
            ),
        ),
        {
            "tests/integration/test_store_machine.py::test_the_promises_hold_in_any_order": "current_upload_id",
            f"{UPLOADS}::test_the_index_moves_when_an_upload_is_seen_not_when_it_is_done": "assert [1, 1] == [2, 1]",
        },
    ),
    "an unknown outcome taken for not sent": Defect(
        (
            Change(
                "watcher/pipeline/submit.py",
                "                await in_doubt(session, batch, reason, due_at=now, now=now)\n",
                '                await batches.close_unsent(session, batch, why=f"not sent: {reason}", now=now)\n',
            ),
        ),
        {
            f"{PURCHASES}::test_a_lost_answer_is_found_again[v1-close_after]": "{'CCO': 2} != {'CCO': 1}",
            f"{PURCHASES}::test_a_lost_answer_is_found_again[v2-status_after]": "{'CCO': 2} != {'CCO': 1}",
        },
    ),
}


def copied(folder: Path) -> Path:
    """Copy the program and its tests as they are now."""
    copy = folder / "copy"
    copy.mkdir()
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, copy / part)
    (copy / WHICH).write_text(WHICH_SOURCE, encoding="utf-8")
    return copy


def failures(copy: Path, tests: Collection[str]) -> dict[str, str]:
    """Run some tests of the copy; return those that failed, each with what was said."""
    report = copy / "report.xml"
    options = ("-q", "-n", "0", "-m", "", "-p", "no:cacheprovider", f"--junitxml={report}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, WHICH, *tests],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "CI": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    cases = list(ET.parse(report).iter("testcase"))
    failed = {str(case.get("name")): "".join(failure.itertext()) for case in cases for failure in case.iter("failure")}
    assert (done.returncode == 1) == bool(failed), done.stdout
    assert {str(case.get("name")) for case in cases} >= {"test_it_is_the_copy", *map(name_of, tests)}, done.stdout
    assert "test_it_is_the_copy" not in failed, failed["test_it_is_the_copy"]
    return failed


def name_of(test: str) -> str:
    return test.rpartition("::")[2]


def test_the_program_as_it_is_passes(tmp_path: Path) -> None:
    """What catches the defects below fails for nothing else."""
    assert failures(copied(tmp_path), {test for defect in DEFECTS.values() for test in defect.caught_by}) == {}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_caught(name: str, tmp_path: Path) -> None:
    copy = copied(tmp_path)
    for change in DEFECTS[name].changes:
        change.plant(copy)
    failed = failures(copy, DEFECTS[name].caught_by)
    for test, words in DEFECTS[name].caught_by.items():
        assert name_of(test) in failed, f"{name}: passed by {test}"
        assert words in failed[name_of(test)], f"{name}: {test} failed for another reason:\n{failed[name_of(test)]}"
    print(f"{name}: caught by {', '.join(DEFECTS[name].caught_by)}")  # noqa: T201 - shown with -s
