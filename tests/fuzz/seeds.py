"""What fuzzing begins with: captured answers, made-up results, small archives good and bad; and words worth trying."""

import gzip
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.hostile import Entry, tar_gz, zip_

CAPTURES = Path(__file__).parents[1] / "data" / "fragalysis"
_LARGEST = 8192
"""Bytes of a capture that are kept: long ones only slow a fuzzer down."""

_RESULTS = (
    [{"targetSmiles": "CCO", "status": "ok", "result": 7.5, "certainty": 0.5, "price": 5232.5, "reactionCount": 5,
      "timedOut": False, "synthesis": {"targetId": "1", "reactions": {}}}],
    [{"target_smiles": "CCO", "status": "error", "result": "-1", "reaction_count": "0", "timed_out": "true"}],
    [{"targetSmiles": "CCN", "status": "running"}, {"targetSmiles": "CCC", "status": "ok", "result": 10}],
    {"queued": 1, "running": 0, "finished": 2, "error": 1},
    {"id": "617853b3-fc8b", "name": "watcher/a/b", "size": 2},
    {"data": [{"id": 1, "name": "x", "size": 3}, {"id": 2}], "total": 2, "next": None},
    {"message": "Invalid target: 'CC'", "errors": {"targets.0": ["no SMILES"]}},
)  # fmt: skip


def archives() -> list[bytes]:
    """Archives of both formats: packed ones, and a tar without its gzip, so that its checksum hides nothing."""
    noise = random.Random(1).randbytes(700)
    groups: tuple[list[Entry], ...] = (
        [],
        [Entry("d/", kind="folder"), Entry("d/a.pdb", b"ATOM" * 50), Entry("metadata.csv", b"Code\n")],
        [Entry("../evil", b"1")],
        [Entry("/etc/evil", b"1"), Entry("x" * 300, b"2")],
        [Entry("l", kind="symlink", link="/etc"), Entry("l/x", b"1")],
        [Entry("h", kind="hardlink", link="a"), Entry("f", kind="fifo")],
        [Entry("x" * 120 + "/\u00e9", noise), Entry("zeros", bytes(20_000))],
    )
    tars = [tar_gz(entries) for entries in groups]
    return [
        *(b"\0" + zip_(entries) for entries in groups),
        *(b"\0" + zip_(entries, 0) for entries in groups),
        *(b"\0" + packed for packed in tars),
        *(b"\1" + gzip.decompress(packed).rstrip(b"\0") + bytes(1024) for packed in tars),
    ]


def fragalysis() -> list[bytes]:
    """Every captured answer, its long lists cut."""
    links = (b"/code/media/downloads/94374cc1/A71EV2A.zip", b"/viewer/task_status/94374cc1-1/", b"120",
             b"Sun, 01 Mar 2026 12:01:00 GMT")  # fmt: skip
    return [*links, *(_cut(path.read_bytes()) for path in sorted(CAPTURES.rglob("*.json")))]


def _cut(capture: bytes) -> bytes:
    """Keep the first rows of a captured listing, with a count that fits them."""
    document = json.loads(capture)
    if isinstance(document, dict) and isinstance(rows := document.get("results"), list):
        document |= {"results": rows[:2], "count": len(rows[:2]), "next": None}
    return json.dumps(document).encode()[:_LARGEST]


def molecule_one() -> list[bytes]:
    """Results, counts, batches and refusals, each as the answer of some status."""
    bodies = [json.dumps(one).encode() for one in _RESULTS]
    bodies += [b'[{"targetSmiles":"C","result":NaN}]', b'[{"targetSmiles":"\\ud800","result":1e999}]', b"<html>", b""]
    bodies += [b'{"message":' + b"[" * depth + b"]" * depth + b"}" for depth in (40, 600)]
    return [bytes([number % 10]) + body for number, body in enumerate(bodies * 10)]


SEEDS: Mapping[str, Callable[[], list[bytes]]] = {
    "archives": archives,
    "fragalysis": fragalysis,
    "molecule_one": molecule_one,
}
WORDS: Mapping[str, tuple[bytes, ...]] = {
    "archives": (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"\x1f\x8b\x08", b"ustar",
                 b"../", b"././@LongLink", b"path=", b"linkpath=", b"GNU.sparse.", b"size="),
    "fragalysis": (b'"id"', b'"title"', b'"project"', b'"target"', b'"upload_version"', b'"commit_datetime"', b'"code"',
                   b'"smiles"', b'"superseded"', b'"results"', b'"count"', b'"next"', b'"status"', b'"message"',
                   b'"finished"', b'"target_access_string"', b'"open_to_public"', b"null", b"true", b"-1", b"1e400",
                   b"\\ud800", b"T00:00:00+14:00", b"9223372036854775808"),
    "molecule_one": (b'"targetSmiles"', b'"target_smiles"', b'"status"', b'"result"', b'"certainty"', b'"price"',
                     b'"reactionCount"', b'"timedOut"', b'"synthesis"', b'"id"', b'"name"', b'"size"', b'"data"',
                     b'"total"', b'"next"', b'"finished"', b'"queued"', b'"message"', b'"errors"', b"NaN", b"Infinity",
                     b"-1", b"1e400", b"\\ud800", b"null", b"<html"),
}  # fmt: skip
"""Words of the formats, for a fuzzer's dictionary."""
