"""The JSON rows of the Fragalysis API, old (2024) and new (2026).

The 2024 shapes are those of the captures of a real backend (`targets`, `projects`, `target_experiment_uploads_target2`,
`real_loader_v2_*`); the 2026 upload row follows the newer serializers and the published client 1.4.13.
"""

from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from watcher.sandbox.chance import identifier
from watcher.sandbox.world import Compound, Observation, Project, Target

Age = Literal["2024", "2026"]
_SEQUENCE_ID = 147


def project_row(project: Project) -> dict[str, Any]:
    """Return a row of `/api/projects/`."""
    return {
        "id": project.id,
        "target_access_string": project.target_access_string,
        "init_date": "2024-08-01T08:00:00.617215Z",
        "authority": "DIAMOND-ISPYB",
        "open_to_public": project.public,
        "user_can_use_squonk": True,
    }


def target_row(target: Target, origin: str) -> dict[str, Any]:
    """Return a row of `/api/targets/`."""
    return {
        "id": target.id,
        "title": target.name,
        "display_name": target.display_name,
        "project": target.project.id,
        "default_squonk_project": None,
        "template_protein": None,
        "metadata": None,
        "zip_archive": f"{origin}/media/{quote(_folder(target))}",
        "upload_status": None,
    }


def upload_row(target: Target, index: int, origin: str, age: Age) -> dict[str, Any]:
    """Return a row of `/api/target_experiment_uploads/`."""
    upload = target.uploads[index - 1]
    committed = timestamp(upload.committed)
    tarball = f"{target.name}-v{index}.tgz"
    base = f"{origin}/media/target_loader_data/{quote(_folder(target))}/upload_{index}"
    transforms = {
        f"{kind}_transforms": f"{base}/{kind}_transforms.yaml"
        for kind in ("neighbourhood", "conformer_site", "reference_structure")
    }
    common = {
        "commit_datetime": committed,
        "task_id": identifier("load", target.id, committed),
        **transforms,
        "upload_data_dir": f"upload_{index}",
        "upload_version": index,
        "project": target.project.id,
        "target": target.id,
        "committer": 3,
    }
    if age == "2026":
        return {
            **common,
            "target_name": target.name,
            "proposal_number": target.project.target_access_string,
            "tarball": f"{origin}/media/target_loader_data/{quote(_folder(target))}/{quote(tarball)}",
            "committer_name": "user1",
            "data_version_major": 3,
            "data_version_minor": 1,
        }
    return {
        "id": target.id * 1000 + index,
        "file": f"{origin}/media/{quote(tarball)}",
        "complete_datetime": committed if upload.status == "LOADED" else None,
        "status": upload.status,
        "message": _loader_messages(target, tarball, len(upload.rows), upload.status),
        **common,
    }


def _loader_messages(target: Target, tarball: str, rows: int, status: str) -> list[str]:
    started = [
        f"INFO: Created TargetLoader for '{tarball}' proposal_ref='{target.project.target_access_string}'",
        f"INFO: Decompressing '{tarball}'",
    ]
    if status == "FAILURE":
        return [*started, f"ERROR: Failed to process '{tarball}'"]
    return [
        *started,
        f"INFO: {rows} SiteObservation objects processed, {rows} created, 0 fetched from database",
        f"{tarball} uploaded successfully",
        "SUCCESS",  # the row's own status says LOADING forever
    ]


def observation_row(target: Target, observation: Observation, origin: str, age: Age) -> dict[str, Any]:
    """Return a row of `/api/site_observations/`."""
    long_code = longcode(observation)
    folder = f"{origin}/media/target_loader_data/{quote(_folder(target))}/upload_{observation.upload}/aligned_files"
    stem = f"{folder}/{quote(observation.experiment)}/{quote(long_code)}"
    return {
        "id": observation.id,
        "compound_code": observation.row.compound_code,
        "prefix_tooltip": "first crystal form",
        "ligand_mol_file": mol_block(long_code) if age == "2024" else f"{stem}_ligand.mol",
        "superseded": observation.superseded_by is not None,
        "version": observation.version,
        "code": observation.row.code,
        "longcode": long_code,
        "bound_file": f"{stem}.pdb",
        "apo_solv_file": f"{stem}_apo-solv.pdb",
        "apo_desolv_file": f"{stem}_apo-desolv.pdb",
        "apo_file": f"{stem}_apo.pdb",
        "sigmaa_file": None,
        "diff_file": None,
        "event_file": None,
        "artefacts_file": None,
        "pdb_header_file": f"{origin}/media/currently%20missing",
        "smiles": observation.row.smiles,
        "seq_id": _SEQUENCE_ID,
        "chain_id": observation.chain,
        "ligand_mol": f"{stem}_ligand.mol",
        "ligand_smiles": f"{stem}_ligand.smi",
        "ligand_pdb": f"{stem}_ligand.pdb",
        "experiment": observation.experiment_id,
        "cmpd": observation.compound.id if observation.compound else None,
        "xtalform_site": 1,
        "canon_site_conf": 1,
        "pose": observation.id,
    }


def compound_row(compound: Compound, project: Project) -> dict[str, Any]:
    """Return a row of `/api/compounds/`."""
    return {
        "id": compound.id,
        "inchi": "",
        "smiles": compound.smiles,
        "current_identifier": None,
        "all_identifiers": None,
        "project_id": [project.id],
        "compound_code": compound.code,
        "inspirations": [],
        "description": None,
        "comments": None,
    }


def longcode(observation: Observation) -> str:
    """Return the long name of an observation: crystal, chain, residue, version."""
    return f"{observation.experiment}_{observation.chain}_{_SEQUENCE_ID}_v{observation.version}"


def mol_block(name: str) -> str:
    """Return a MOL block without atoms: the sandbox has no coordinates to show."""
    return f"{name}\n     sandbox\n\n  0  0  0  0  0  0  0  0  0  0999 V2000\nM  END\n"


def timestamp(moment: datetime) -> str:
    """Write a time as the server does."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _folder(target: Target) -> str:
    return f"{target.name}_{target.project.target_access_string}"
