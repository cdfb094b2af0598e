"""Raw SMILES -> a chemical identity, or the reason why there is none. The only module that imports RDKit.

The functions are pure. A parser written in C++ can crash, hang or eat the memory on a hostile string. The daemon
therefore does not call them itself: `chemistry_child` serves them from a process of its own. RDKit is imported inside
them, because that process confines itself first.

What is scored is what was observed: charges, tautomers, radicals, isotopes and stereo stay as they are. Only salts and
solvents are split off, and atom maps, names and CXSMILES blocks dropped.
"""

import functools
import re
from contextlib import suppress
from importlib import metadata
from typing import Any

import msgspec

from watcher.chemistry_records import Identity, Rejection
from watcher.chemistry_screens import looks_like_a_name, smiles_in, without_maps

_BROKEN = (RuntimeError, ValueError)  # what RDKit raises when a molecule breaks one of its invariants
RULES = 1  # raise it when the same raw string may get another verdict although RDKit is the same


def identify(raw: str, *, max_heavy_atoms: int = 1000) -> Identity | Rejection:
    """Return the identity of the compound that a raw string stands for, or why it has none.

    Every text is answered; only MemoryError, which blames the machine, gets out.
    """
    found = smiles_in(raw)
    if isinstance(found, Rejection):
        return found
    smiles, cxsmiles = found
    try:
        verdict = _identity(smiles, max_heavy_atoms)
    except _BROKEN as error:
        verdict = Rejection("unparsable", f"RDKit fails on it: {' '.join(str(error).split())[:300]}")
    return msgspec.structs.replace(verdict, cxsmiles=cxsmiles) if cxsmiles else verdict


def canonical(smiles: str) -> str | None:
    """Return today's canonical form of an already stored SMILES, all fragments kept; None if RDKit refuses it."""
    from rdkit import Chem, rdBase

    smiles = without_maps(smiles)
    seen: list[str] = []
    # RDKit does not always write what it would write again after reading it: go on until it does.
    with rdBase.BlockLogs(), suppress(*_BROKEN):
        while smiles not in seen:
            mol = _parse(smiles)
            if mol is None or not mol.GetNumAtoms():
                return None
            seen.append(smiles)
            smiles = Chem.MolToSmiles(mol)
        return min(seen[seen.index(smiles) :])  # one spelling; of a cycle of them the same one, wherever it was entered
    return None


def version(max_heavy_atoms: int = 1000) -> str:
    """Return all that a verdict depends on besides the raw string; stored with it, to reconsider it on a change.

    RDKit is not loaded for it, if its package says which one it is.
    """
    try:
        installed = metadata.version("rdkit")
    except metadata.PackageNotFoundError:  # it came from elsewhere, and can only say so itself
        import rdkit

        installed = rdkit.__version__
    return f"rdkit {installed}, rules {RULES}, at most {max_heavy_atoms} heavy atoms"


def _parse(smiles: str, *, sanitize: bool = True) -> Any:  # RDKit's stubs are of mixed quality
    from rdkit import Chem

    if not smiles.isascii() or "\0" in smiles:  # RDKit drops such characters silently
        return None
    parameters: Any = Chem.SmilesParserParams()
    parameters.sanitize = parameters.removeHs = sanitize
    parameters.allowCXSMILES = parameters.parseName = False
    return Chem.MolFromSmiles(smiles, parameters)


def _identity(smiles: str, max_heavy_atoms: int) -> Identity | Rejection:
    from rdkit import Chem, rdBase
    from rdkit.Contrib.SA_Score import sascorer

    with rdBase.BlockLogs():
        rough = _parse(smiles, sanitize=False)  # cheap, also for what is much too large
        if rough is None:
            if looks_like_a_name(smiles):
                return Rejection("not_smiles", f"'{smiles[:60]}' looks like a name or a code, not a SMILES")
            return Rejection("unparsable", "RDKit cannot read it as a SMILES")
        atoms = rough.GetAtoms()
        size = max(sum(atoms[i].GetAtomicNum() > 1 for i in part) for part in Chem.GetMolFrags(rough) or ((),))
        if size > max_heavy_atoms:
            return Rejection("too_large", f"{size} heavy atoms; at most {max_heavy_atoms} are allowed")
        whole = canonical(smiles)
        if whole is None:
            words = "; ".join(problem.Message() for problem in Chem.DetectChemistryProblems(rough))
            return Rejection("unparsable", f"RDKit refuses it: {words[:300] or 'no reason given'}")
        if any(atom.GetAtomicNum() == 0 for atom in atoms):
            return Rejection("wildcard", "a dummy atom: one atom is left open")
        if any(part.HasQuery() for part in (*atoms, *rough.GetBonds())):
            return Rejection("query", "a query for many molecules, not a molecule")
        parent, removed = _split(whole)
        if parent is None:
            return Rejection("no_organic_parent", f"nothing with carbon in it: {', '.join(removed)[:300]}")
        mol = _parse(parent)
        return Identity(
            smiles=parent,
            inchikey=_inchikey(mol),
            heavy_atoms=mol.GetNumHeavyAtoms(),
            sa_score=round(sascorer.calculateScore(mol), 3),
            removed=removed,
        )


def _split(whole: str) -> tuple[str | None, tuple[str, ...]]:
    """Split a canonical SMILES into its parent (None without carbon) and the names of the rest."""
    from rdkit.Chem.rdMolDescriptors import CalcExactMolWt

    # A canonical SMILES has a dot between fragments and nowhere else. Each is a known spelling already, or None.
    mols = {smiles: _parse(smiles) for smiles in {canonical(part) or part for part in whole.split(".")}}
    organic = [smiles for smiles, mol in mols.items() if any(atom.GetAtomicNum() == 6 for atom in mol.GetAtoms())]
    if organic and len(mols) == 1:
        return organic[0], ()
    names = {smiles: _known(mol) for smiles, mol in mols.items()}
    parent = max(
        [smiles for smiles in organic if not names.get(smiles)] or organic,  # a salt or solvent alone is its own parent
        key=lambda smiles: (mols[smiles].GetNumHeavyAtoms(), CalcExactMolWt(mols[smiles]), smiles),
        default=None,
    )
    return parent, tuple(sorted({names.get(smiles) or smiles for smiles in mols if smiles != parent}))


def _inchikey(mol: Any) -> str:
    from rdkit.Chem import rdinchi

    return str(rdinchi.MolToInchiKey(mol))


def _known(mol: Any) -> str | None:
    key = _inchikey(mol)
    return _salts().get(key) or _salts().get(key[:14])


@functools.cache
def _salts() -> dict[str, str]:
    """Return name by InChIKey, and by its first block: that one is blind to charge by protons, stereo and isotopes."""
    names: dict[str, str] = {}
    for entry in re.split(r",\s+", _SALTS.strip()):
        name, smiles = entry.rsplit(None, 1)
        key = _inchikey(_parse(smiles))
        names[key] = name
        names.setdefault(key[:14], name)
    return names


# Counter-ions and solvents that compounds are sold and soaked with. The first of two with the same skeleton names it.
_SALTS = """
hydrochloride Cl, chloride [Cl-], hydrobromide Br, bromide [Br-], hydroiodide I, iodide [I-], hydrofluoride F,
fluoride [F-], water O, hydroxide [OH-], ammonia N, ammonium [NH4+], lithium [Li+], sodium [Na+], potassium [K+],
caesium [Cs+], magnesium [Mg+2], calcium [Ca+2], zinc [Zn+2], sulfuric acid OS(=O)(=O)O, phosphoric acid OP(=O)(O)O,
nitric acid O[N+](=O)[O-], perchloric acid OCl(=O)(=O)=O, tetrafluoroborate F[B-](F)(F)F,
hexafluorophosphate F[P-](F)(F)(F)(F)F, carbonic acid OC(=O)O, formic acid OC=O, acetic acid CC(=O)O,
trifluoroacetic acid OC(=O)C(F)(F)F, oxalic acid OC(=O)C(=O)O, malonic acid OC(=O)CC(=O)O,
succinic acid OC(=O)CCC(=O)O, fumaric acid OC(=O)/C=C/C(=O)O, maleic acid OC(=O)/C=C\\C(=O)O,
malic acid OC(=O)CC(O)C(=O)O, tartaric acid OC(=O)C(O)C(O)C(=O)O, citric acid OC(=O)CC(O)(C(=O)O)CC(=O)O,
lactic acid CC(O)C(=O)O, benzoic acid OC(=O)c1ccccc1, methanesulfonic acid CS(=O)(=O)O,
trifluoromethanesulfonic acid OS(=O)(=O)C(F)(F)F, benzenesulfonic acid OS(=O)(=O)c1ccccc1,
p-toluenesulfonic acid Cc1ccc(cc1)S(=O)(=O)O, triethylamine CCN(CC)CC, diisopropylethylamine CCN(C(C)C)C(C)C,
dicyclohexylamine C1CCCCC1NC1CCCCC1, tromethamine OCC(N)(CO)CO, meglumine CNCC(O)C(O)C(O)C(O)CO, methanol CO,
ethanol CCO, isopropanol CC(C)O, acetonitrile CC#N, acetone CC(C)=O, dimethyl sulfoxide CS(C)=O,
dimethylformamide CN(C)C=O, dichloromethane ClCCl, chloroform ClC(Cl)Cl, ethyl acetate CCOC(C)=O,
diethyl ether CCOCC, tetrahydrofuran C1CCOC1, dioxane C1COCCO1, toluene Cc1ccccc1, ethylene glycol OCCO,
glycerol OCC(O)CO, hexylene glycol CC(O)CC(C)(C)O, diethylene glycol OCCOCCO, triethylene glycol OCCOCCOCCO,
tetraethylene glycol OCCOCCOCCOCCO
"""
