"""Download archives, made on the fly and the same every time: zip for the 2024 server, tar.gz for 2026.

Contents as in the published description of a download: `metadata.csv` (unquoted, superseded rows too),
`<title>_combined.sdf` (the 2024 server writes no `$$$$` between molecules), `smiles.smi` (one line, a comma after
each), `aligned_files/`, READMEs.
"""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence

from watcher.sandbox.shapes import Age, longcode, mol_block
from watcher.sandbox.world import Observation, Target

_HEADER = (
    "Code,Long code,Experiment code,Compound code,Smiles,"
    "ConformerSites,CanonSites,CrystalformSites,Quatassemblies,Crystalforms,[Other] Fragment"
)
_MOMENT = (2024, 9, 1, 9, 14, 6)


def build(target: Target, observations: Sequence[Observation], flags: Mapping[str, bool], age: Age) -> bytes:
    """Return the archive of these observations, with the parts that the request's flags ask for."""
    members = _members(target, observations, flags, age)
    return _zip(members) if age == "2024" else _tar_gz(members)


def _members(
    target: Target, observations: Sequence[Observation], flags: Mapping[str, bool], age: Age
) -> dict[str, str]:
    members = {
        "README.md": f"# {target.name}\n\nA download of {target.project.target_access_string} made by the sandbox.\n"
    }
    if flags.get("metadata_info"):
        members["metadata.csv"] = _metadata(target.observations)
    if flags.get("single_sdf_file"):
        end = "" if age == "2024" else "$$$$\n"
        members[f"{target.name}_combined.sdf"] = "".join(mol_block(longcode(each)) + end for each in observations)
    if flags.get("all_aligned_structures"):
        members["smiles.smi"] = "".join(f"{each.row.smiles}," for each in observations)
        for each in observations:
            stem = f"aligned_files/{longcode(each)}/{longcode(each)}"
            members[f"{stem}.pdb"] = f"HEADER    {each.experiment}\nEND\n"
            members[f"{stem}_ligand.mol"] = mol_block(longcode(each))
            members[f"{stem}_ligand.smi"] = f"{each.row.smiles} {longcode(each)}\n"
    return members


def _metadata(observations: Sequence[Observation]) -> str:
    lines = [_HEADER]
    for each in observations:
        site = f"1a - {each.experiment}"
        cells = (
            each.row.code, longcode(each), each.experiment, each.row.compound_code or "", each.row.smiles,
            site, "1 - Active site", f"F1a - {each.experiment}/{each.chain}/147", "A1 - monomer",
            "F1 - first crystal form", "True",
        )  # fmt: skip
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"


def _zip(members: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name, _MOMENT), text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _tar_gz(members: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in members.items():
            content = text.encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
