"""The published clients, unchanged, against the sandbox: proof that it is faithful where it counts."""

import asyncio
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

import pytest

from watcher.sandbox import Sandbox

pytestmark = [
    pytest.mark.peers,
    # What the clients and their own dependencies warn about is not ours to mend.
    pytest.mark.filterwarnings("ignore"),
]
T = TypeVar("T")
Age = Literal["2024", "2026"]


async def threaded(work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a blocking client beside the servers."""
    return await asyncio.to_thread(work, *args, **kwargs)


def peer(name: str, distribution: str) -> ModuleType:
    """Import a published client, or skip and say why."""
    module: ModuleType = pytest.importorskip(
        name, reason=f"{distribution} is not installed (extra `peers`)", exc_type=ImportError
    )
    return module


@pytest.fixture
def download(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    peer("fragalysis", "xchem-fragalysis")
    module = importlib.import_module("fragalysis.requests.download")
    monkeypatch.setattr(module, "_DOWNLOAD_MIN_SLEEP", 0)
    monkeypatch.setattr(module, "_DOWNLOAD_MAX_SLEEP", 0)
    return module


@pytest.fixture
def common() -> ModuleType:
    peer("fragalysis", "xchem-fragalysis")
    return importlib.import_module("fragalysis.requests.common")


@pytest.mark.parametrize("age", ["2024", "2026"])
async def test_target_list(download: ModuleType, age: Age) -> None:
    async with Sandbox(age=age) as sandbox:
        url, token = sandbox.fragalysis.url, sandbox.fragalysis.session_token
        public = await threaded(download.target_list, stack=url)
        everything = await threaded(download.target_list, stack=url, token=token)
    assert (1, "A71EV2A", "lb32627-66") in public
    assert {each[1:] for each in everything} - {each[1:] for each in public} == {("CHIKV_Mac", "lb27995-1")}
    assert len(public) == 4


async def test_target_uploads(download: ModuleType) -> None:
    async with Sandbox(age="2026") as sandbox:
        found = await threaded(download.target_uploads, stack=sandbox.fragalysis.url)
    a71 = found["A71EV2A", "lb32627-66"]
    assert (a71["target_id"], a71["last_upload_index"]) == (1, 2)
    assert [upload["upload_index"] for upload in a71["uploads"]] == [1, 2]
    assert a71["uploads"][0]["timestamp"] < a71["last_upload_timestamp"]


@pytest.mark.parametrize("age", ["2024", "2026"])
@pytest.mark.parametrize("private", [False, True])
async def test_download_target(download: ModuleType, tmp_path: Path, age: Age, private: bool) -> None:
    async with Sandbox(age=age) as sandbox:
        name, tas = ("CHIKV_Mac", "lb27995-1") if private else ("A71EV2A", "lb32627-66")
        token = sandbox.fragalysis.session_token if private else None
        folder = await threaded(
            download.download_target, name, tas, stack=sandbox.fragalysis.url, token=token, destination=str(tmp_path)
        )
    assert folder == tmp_path / name
    assert (folder / "metadata.csv").read_text().startswith("Code,Long code,Experiment code,Compound code,Smiles")
    assert (folder / f"{name}_combined.sdf").exists()
    assert list((folder / "aligned_files").iterdir())


async def test_site_observations(common: ModuleType) -> None:
    async with Sandbox(age="2024") as sandbox:
        found = await threaded(common.site_observations, target_id=1, stack=sandbox.fragalysis.url)
        requests = list(sandbox.fragalysis.requests)
    assert len(found) == 40
    assert requests[-2:] == [("POST", "/api/site_observations?target=1"), ("GET", "/api/site_observations/?target=1")]


async def test_user_info(common: ModuleType) -> None:
    async with Sandbox(age="2026") as sandbox:
        nobody = await threaded(common.user_info, stack=sandbox.fragalysis.url)
        token = sandbox.fragalysis.session_token
        somebody = await threaded(common.user_info, stack=sandbox.fragalysis.url, token=token)
    assert nobody["user"] == "AnonymousUser"
    assert "lb27995-1" in somebody["target_access"]


@pytest.fixture
def m1wrapper() -> ModuleType:
    return peer("m1wrapper", "m1-api-wrapper")


@pytest.mark.parametrize("level", ["score", "best_path", "all_paths"])
async def test_molecule_one_wrapper(m1wrapper: ModuleType, level: str) -> None:
    paracetamol, bad = "CC(=O)Nc1ccc(O)cc1", "cc"
    async with Sandbox(catalogue=None) as sandbox:
        server = sandbox.molecule_one
        server.vendor.invalid.add(bad)

        def whole_story() -> None:
            client = m1wrapper.MoleculeOneWrapper(server.token, server.url)
            search = client.run_batch_search(
                [paracetamol, bad],
                detail_level=m1wrapper.DetailLevel(level),
                priority=m1wrapper.Priority.HIGH,
                invalid_target_strategy=m1wrapper.InvalidTargetStrategy.PASS,
                name="peer",
            )
            assert [each["name"] for each in client.list_batch_searches()] == ["peer"]
            assert client.get_batch_search(search.search_id).search_id == search.search_id
            assert search.get()["size"] == 2
            search.get_status()  # right after the POST nothing is counted yet
            assert search.get_status() == {"queued": 0, "running": 0, "finished": 1, "error": 1}
            rows = {row["target_smiles"]: row for row in search.get_results()}
            assert (rows[bad]["status"], rows[bad]["result"]) == ("error", -1)
            assert rows[paracetamol]["result"] == 1.407
            assert (rows[paracetamol]["synthesis"] is None) == (level == "score")
            part = search.get_partial_results(precision=2, only=["target_smiles", "result"])
            assert {row["target_smiles"]: row["result"] for row in part}[paracetamol] == "1.40"
            assert all(row.keys() == {"target_smiles", "result"} for row in part)
            assert client.delete_batch_search(search.search_id)
            assert client.list_batch_searches() == []

        await threaded(whole_story)
        assert server.ledger.purchases == {paracetamol: 1, bad: 1}


async def test_molecule_one_wrapper_is_refused(m1wrapper: ModuleType) -> None:
    async with Sandbox(catalogue=None) as sandbox:
        server = sandbox.molecule_one
        server.vendor.invalid.add("cc")

        def order(token: str, targets: list[dict[str, str]]) -> Any:
            client = m1wrapper.MoleculeOneWrapper(token, server.url)
            return client.run_batch_search_with_metadata(targets)

        with pytest.raises(OSError, match="Invalid target: 'cc'"):  # requests' errors are OSErrors
            await threaded(order, server.token, [{"smiles": "cc"}])
        with pytest.raises(OSError, match="Unauthorized"):
            await threaded(order, "other", [{"smiles": "CCO"}])
        await threaded(order, server.token, [{"smiles": "CCO", "name": "ethanol"}])
        assert server.ledger.purchases == {"CCO": 1}
