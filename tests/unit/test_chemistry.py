"""Raw SMILES -> identity or reason: the table of known traps, and what must hold for any text."""

import csv
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watcher.chemistry import canonical, identify, version
from watcher.chemistry_records import Identity, Rejection
from watcher.chemistry_screens import MAX_CHARACTERS

TABLE = Path(__file__).parents[1] / "data" / "pathological_smiles.csv"
with TABLE.open(encoding="ascii", newline="") as file:
    ROWS = list(csv.DictReader(file))

steady = settings(deadline=None, max_examples=150)

# Pieces with two open ends: any sequence of them is a molecule.
PIECES = ["C", "C(=O)", "N", "O", "S(=O)(=O)", "C/C=C/C", "[C@H](F)", "[C@@](C)(O)", "[13CH2]", "[C@@H]1CCC(C1)"]
PIECES += ["c1ccc(nc1)", "c1cc([N+](=O)[O-])ccc1", "N1CC[C@H](C1)", "C(C([O-])=O)", "[Si](C)(C)", "C(Cl)=C"]
molecules = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map(
    lambda pieces: "".join(pieces) + "C1(CC1)c1ccccc1"
)
SALTS = {
    "Cl": "hydrochloride",
    "[Na+]": "sodium",
    "O": "water",
    "OC(=O)C(F)(F)F": "trifluoroacetic acid",
    "[O-]C(=O)C(F)(F)F": "trifluoroacetic acid",
    "O[C@H]([C@@H](O)C(=O)O)C(=O)O": "tartaric acid",
    "CS(C)=O": "dimethyl sulfoxide",
}


def identity(raw: str) -> Identity:
    verdict = identify(raw)
    assert isinstance(verdict, Identity), verdict
    return verdict


def mol(smiles: str) -> Any:
    from rdkit import Chem

    return Chem.MolFromSmiles(smiles)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["category"])
def test_known_trap(row: dict[str, str]) -> None:
    verdict = identify(json.loads(row["smiles_json"]))
    assert (verdict.cxsmiles or "") == row["expected_cxsmiles"]
    if isinstance(verdict, Rejection):
        assert verdict.reason == row["expected"]
        assert 0 < len(verdict.detail) < 400
        assert verdict.detail.isascii()
    else:
        assert row["expected"] == "ok"
        assert verdict.smiles == row["expected_smiles"]
        assert "; ".join(verdict.removed) == row["expected_removed"]
        assert canonical(verdict.smiles) == verdict.smiles


def test_table_holds_every_reason_that_fits_in_it() -> None:
    assert {row["expected"] for row in ROWS} == {
        "ok", "empty", "not_ascii", "unparsable", "wildcard", "query", "reaction", "no_organic_parent", "not_smiles"
    }  # fmt: skip


@pytest.mark.parametrize(
    "raw",
    [
        "C" * 1001,
        "C" * MAX_CHARACTERS,
        "C" * (MAX_CHARACTERS + 1),
        "C(" * 3000 + "C" + ")" * 3000,
        "CC(=O)Nc1ccccc1." + "C" * 1001,
        "*" + "C" * MAX_CHARACTERS,
    ],
    ids=lambda raw: f"{raw[:2]}, {len(raw)} characters",
)
def test_too_large(raw: str) -> None:
    verdict = identify(raw)
    assert isinstance(verdict, Rejection)
    assert verdict.reason == "too_large"


def test_size_limit_counts_heavy_atoms_of_one_fragment() -> None:
    assert identity("C" * 1000).heavy_atoms == 1000
    assert identity("CCCC.CCCCC").removed == ("CCCC",)
    assert isinstance(identify("[H]C([H])([H])CCC.CCCCC", max_heavy_atoms=5), Identity)
    assert isinstance(identify("CCCC.CCCCC", max_heavy_atoms=4), Rejection)


def test_all_fields() -> None:
    assert identify("OC(=O)C(F)(F)F.CC(=O)Oc1ccccc1C(=O)O |r| lot 7") == Identity(
        smiles="CC(=O)Oc1ccccc1C(=O)O",
        inchikey="BSYNRYMUTXBXSQ-UHFFFAOYSA-N",
        heavy_atoms=13,
        sa_score=1.58,
        removed=("trifluoroacetic acid",),
        cxsmiles="|r|",
    )


def test_inchikey_is_empty_where_inchi_has_none() -> None:
    verdict = identify("C" * 1500, max_heavy_atoms=2000)
    assert isinstance(verdict, Identity)
    assert verdict.inchikey == ""


def test_detail_quotes_rdkit() -> None:
    verdict = identify("CC(C)(C)(C)C")
    assert isinstance(verdict, Rejection)
    assert "valence for atom # 1 C, 5" in verdict.detail


@pytest.mark.parametrize("raw", ["", "c1ccccc", "CCO\ud800", "CC\0O", "C(", "\u0421CO"])
def test_canonical_of_what_is_none(raw: str) -> None:
    assert canonical(raw) is None


def test_canonical_keeps_all_fragments() -> None:
    assert canonical("OCC.Cl.[CH4:3]") == "C.CCO.Cl"


def test_canonical_of_a_cycle_is_the_same_from_everywhere() -> None:
    one, other = "CCC[C@SP1]Oc1ncccc1", "CCC[C@SP2]Oc1ncccc1"  # RDKit writes each as the other
    first = canonical(one)
    assert first is not None
    assert first == canonical(other) == canonical(first)


def test_version_tells_all_that_a_verdict_depends_on() -> None:
    import rdkit

    (stated,) = re.findall(r"^rdkit ([0-9.]+), ", version(1000))
    assert re.sub(r"\b0+\B", "", stated) == re.sub(r"\b0+\B", "", rdkit.__version__)
    assert version(1000).endswith(", at most 1000 heavy atoms")
    assert version(999) != version(1000)


def test_version_of_an_rdkit_without_a_package_is_what_it_says_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    import rdkit

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert version(1000).startswith(f"rdkit {rdkit.__version__}, ")


def test_rdkit_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    for raw in ("c1ccccc", "c1cccn1", "CC(C)(C)(C)C", "[Pt]<-N1CCCCC1", "C[C@H](C)O", "C$C", "CCCCN.[Na+]"):
        identify(raw)
        canonical(raw)
    assert capfd.readouterr() == ("", "")


def test_importing_the_module_does_not_import_rdkit() -> None:
    code = "import sys, watcher.chemistry_process; sys.exit('rdkit' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


any_text = st.text(st.characters(exclude_categories=()))
smiles_like = st.text("CNOSPHBrlicnops()[]=#@+-./\\123%:;,*~>|$ \t\0\ufeff\ud800", max_size=40)
long_text = st.builds(lambda text, count: (text * count)[:10_000], st.text(min_size=1, max_size=9), st.just(10_000))


@steady
@given(
    st.one_of(
        any_text,
        smiles_like,
        long_text,
        st.sampled_from(["C", "[H]", "(", "C(", "[", "C.", ".", "C1"]).map(lambda s: (s * 10_000)[:10_000]),
    )
)
def test_every_text_is_answered(raw: str) -> None:
    verdict = identify(raw)
    if isinstance(verdict, Rejection):
        assert verdict.detail.isascii()
        assert len(verdict.detail) < 400
    else:
        assert verdict.smiles.isascii()
        assert identify(verdict.smiles) == Identity(
            verdict.smiles, verdict.inchikey, verdict.heavy_atoms, verdict.sa_score
        )


@steady
@given(molecules)
def test_identity_of_an_identity_is_itself(smiles: str) -> None:
    once = identity(smiles)
    assert identity(once.smiles) == once
    assert canonical(once.smiles) == once.smiles
    assert 1 <= once.sa_score <= 10
    assert len(once.inchikey) == 27


@steady
@given(molecules, st.lists(st.sampled_from(sorted(SALTS)), max_size=4), st.integers(1, 2), st.randoms())
def test_salts_come_off_whatever_their_order(smiles: str, salts: list[str], copies: int, random: Any) -> None:
    parts = [smiles] * copies + salts
    random.shuffle(parts)
    verdict = identity(".".join(parts))
    assert verdict.smiles == identity(smiles).smiles
    assert verdict.removed == tuple(sorted({SALTS[salt] for salt in salts}))


@steady
@given(molecules, st.randoms(use_true_random=False))
def test_atom_maps_and_atom_order_do_not_matter(smiles: str, random: Any) -> None:
    from rdkit import Chem

    molecule = mol(smiles)
    order = list(range(molecule.GetNumAtoms()))
    random.shuffle(order)
    shuffled = Chem.RenumberAtoms(molecule, order)
    for number, atom in enumerate(shuffled.GetAtoms(), 1):
        atom.SetAtomMapNum(number)
    mapped = Chem.MolToSmiles(shuffled, canonical=False)
    assert ":1]" in mapped
    assert identify(mapped) == identity(smiles)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Oc1ccccn1", "O=c1cccc[nH]1"),
        ("CC(=O)O", "CC(=O)[O-]"),
        ("C[C@H](N)c1ccccc1", "C[C@@H](N)c1ccccc1"),
        ("C[C@H](N)c1ccccc1", "CC(N)c1ccccc1"),
        ("F/C=C/F", "F/C=C\\F"),
        ("COc1ccccc1", "[13CH3]Oc1ccccc1"),
        ("CCO", "[CH2]CO"),
    ],
)
def test_what_was_observed_is_kept_apart(one: str, other: str) -> None:
    assert identity(one).smiles != identity(other).smiles
