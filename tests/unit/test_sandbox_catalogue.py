"""The bundled catalogue: true molecules, and every awkwardness that a scan has to live through."""

from collections import Counter

import pytest

from watcher.sandbox.catalogue import Catalogue, load
from watcher.sandbox.vendor import Vendor


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load()


def test_every_molecule_is_what_rdkit_says_it_is(catalogue: Catalogue) -> None:
    chem = pytest.importorskip("rdkit.Chem")
    assert len(catalogue.names) > 140
    for canonical, name in catalogue.names.items():
        assert chem.MolFromSmiles(canonical) is not None, name
    assert all(1 <= score <= 10 for score in catalogue.vendor.scores.values())


def test_titles_collide_and_one_project_is_private(catalogue: Catalogue) -> None:
    assert Counter(target.name for target in catalogue.targets)["Mpro"] == 2
    assert [target.name for target in catalogue.targets if not target.public] == ["CHIKV_Mac"]
    assert all(target.published < len(target.uploads) for target in catalogue.targets), "one is left to publish"


def test_awkward_rows_are_there(catalogue: Catalogue) -> None:
    rows = [row for target in catalogue.targets for upload in target.uploads for row in upload]
    smiles = {row.smiles for row in rows}
    assert "" in smiles
    assert any(text.endswith(".Cl") for text in smiles), "a salt"
    assert any("|" in text for text in smiles), "a CXSMILES block"
    assert any("*" in text for text in smiles), "a covalent wildcard"
    assert any(not text.isascii() for text in smiles), "a Cyrillic look-alike"
    assert "Z1270393711" in smiles, "a compound code in the place of a SMILES"
    assert {"CS(=O)(=O)NCCC=1C=CC=CC1", "CS(=O)(=O)NCCc1ccccc1"} <= smiles, "one molecule, two spellings"
    assert any(row.compound_code is None for row in rows)
    assert max(Counter(row.smiles for row in rows).values()) > 2, "one molecule in several targets"
    first = catalogue.targets[0].uploads[0]
    assert max(Counter(row.code for row in first).values()) == 2, "a code that comes twice"


def test_vendor_has_its_ways(catalogue: Catalogue) -> None:
    vendor = Vendor(catalogue.vendor)
    by_name = {name: canonical for canonical, name in catalogue.names.items()}
    assert vendor.verdict(by_name["paracetamol"]).result == 1.407
    none = vendor.verdict(by_name["paclitaxel"])
    assert (none.status, none.result, none.price, none.certainty) == ("ok", 10, None, None)
    error = vendor.verdict(by_name["colchicine"])
    assert (error.status, error.result) == ("error", -1)
    assert vendor.verdict(by_name["artemisinin"]).timed_out
    assert vendor.verdict("CCO") == vendor.verdict("CCO")
    assert 1 <= vendor.verdict("CCO").result <= 10
    assert vendor.is_invalid("")
    assert vendor.is_invalid("*CC")
    assert not vendor.is_invalid("CCO")
    vendor.invalid.add("cc")
    assert vendor.is_invalid("cc")


@pytest.mark.parametrize("camel", [True, False])
def test_routes_lead_from_the_target_to_things_to_buy(catalogue: Catalogue, camel: bool) -> None:
    vendor = Vendor(catalogue.vendor)
    smiles = next(canonical for canonical, name in catalogue.names.items() if name == "imatinib")
    route = vendor.route(smiles, camel=camel)
    assert route is not None
    made_by, used_by, product, substrates, root = (
        ("productOf", "substrateOf", "productId", "substratesIds", "targetId")
        if camel
        else ("product_of", "substrate_of", "product_id", "substrates_ids", "target_id")
    )
    assert route["compounds"][route[root]]["smiles"] == smiles
    assert len(route["reactions"]) == vendor.verdict(smiles).reactions
    for name, reaction in route["reactions"].items():
        assert route["compounds"][reaction[product]][made_by] == name
        assert all(route["compounds"][each][used_by] == name for each in reaction[substrates])
    no_route = next(canonical for canonical, name in catalogue.names.items() if name == "paclitaxel")
    assert vendor.route(no_route, camel=camel) is None
