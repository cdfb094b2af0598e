"""What the demo tells: the scores by rank, what was spared, what was set aside and why, and what it would have cost."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from watcher.bands import BANDS, band
from watcher.cli.demo_folder import CONFIG, DOWNLOADS, LOG, PRICE, RECORD, SCORES
from watcher.cli.export import Format, write_table
from watcher.cli.output import counted, in_words, money, say, table
from watcher.molecule_one import profile_of
from watcher.store.export import Row, rows

if TYPE_CHECKING:
    from watcher.sandbox import Sandbox
    from watcher.settings import Settings
    from watcher.store.engine import Store

_EASIEST, _HARDEST = 12, 3
_LONGEST = 60


class Story:
    """Tells one demo; keeps what the first pass found, to say what the second one added."""

    def __init__(self, place: Path, settings: "Settings", sandbox: "Sandbox") -> None:
        self._place = place
        self._settings = settings
        self._ledger = sandbox.molecule_one.ledger
        self._before: list[Row] = []
        self._bought_before = 0

    def begin(self) -> None:
        """Say what is going to happen."""
        say("Fragalysis Watcher demo", bold=True)
        say(f"  stand-in Fragalysis    {self._settings.fragalysis.url}")
        say(f"  stand-in Molecule.one  {self._settings.molecule_one.base_url}")
        say("  Nothing else is contacted, nothing is paid.")
        say()
        say("1. Every target is new: archive the uploads, score the compounds", bold=True)

    async def first_pass(self, store: "Store") -> None:
        """Tell the first pass."""
        self._before = found = await self._rows(store)
        self._bought_before = self._ledger.total
        targets = Counter(f"{row.target}@{row.target_access_string}, upload {row.upload_index}" for row in found)
        say()
        say(f"New: {len(targets)} targets with {len(found)} observations", bold=True)
        for name, number in targets.items():
            say(f"  {name}: {counted(number, 'observation')}")
        say()
        _ranking(found)
        say()
        compounds = {row.smiles for row in found if row.smiles}
        valid = sum(row.smiles is not None for row in found)
        say("Spared", bold=True)
        say(f"  {valid} observations hold {len(compounds)} compounds: {valid - len(compounds)} purchases spared.")
        _set_aside(found)
        say()
        self._cost("What it would have cost")

    def one_more_upload(self, target: str, tas: str) -> None:
        """Say that Fragalysis has something new."""
        say()
        say(f"2. Fragalysis publishes one more upload of {target}@{tas}", bold=True)

    async def second_pass(self, store: "Store", target: str, tas: str) -> None:
        """Tell the second pass: only what is new was bought."""
        found = await self._rows(store)
        known = {row.smiles for row in self._before}
        mine = [row for row in found if (row.target, row.target_access_string) == (target, tas)]
        compounds = {row.smiles for row in mine if row.smiles}
        bought = self._ledger.total - self._bought_before
        say()
        say(f"  Upload {mine[0].upload_index} holds {len(mine)} observations of {len(compounds)} compounds.")
        say(f"  Carried over, not bought again: {counted(len(compounds & known), 'compound')}.")
        say(f"  Bought: {counted(bought, 'compound')}, the new ones alone.")
        say()
        _ranking([row for row in mine if row.smiles not in known], title="New scores, easiest first")
        say()
        self._cost("Cost after both passes")

    async def end(self) -> None:
        """Write the scores, and say where everything lies."""
        await write_table(self._settings, Format.CSV, None, self._place / SCORES)
        config = self._place / CONFIG
        say()
        say("Where everything lies", bold=True)
        for name, what in (
            (RECORD, "the record: every upload, compound, purchase and score"),
            (DOWNLOADS, "the archives, unpacked; `current` points at the newest upload of each target"),
            (SCORES, "what `watcher export` writes"),
            (LOG, "the log, one JSON object a line"),
            (CONFIG, "the settings of this demo"),
        ):
            say(f"  {self._place / name}  {what}")
        say()
        say("What to try next", bold=True)
        say(f"  watcher --config {config} status")
        say(f"  watcher --config {config} export --target Mpro@lb18145-1")
        say("  watcher sandbox          the two stand-ins in the foreground, for trying your own settings")
        say("  watcher config init      your own settings, then `watcher check`, `watcher plan`, `watcher run`")

    def _cost(self, title: str) -> None:
        twice = sum(number > 1 for number in self._ledger.purchases.values())
        total = self._ledger.total
        say(title, bold=True)
        batches = counted(len(self._ledger.batches), "batch", "batches")
        say(f"  Molecule.one's books: {counted(total, 'compound')} in {batches}, {twice or 'none'} bought twice.")
        say(f"  At an example price of {money(PRICE)} for a compound: {money(total * PRICE)}.")

    async def _rows(self, store: "Store") -> list[Row]:
        key = profile_of(self._settings.molecule_one).key
        async with store.read() as session:
            return [row async for row in rows(session, profile_key=key)]


def _ranking(found: Sequence[Row], *, title: str = "Scores, easiest first") -> None:
    """Print the scored compounds by score, each once, with the observations that hold it."""
    best: dict[str, Row] = {}
    codes: dict[str, list[str]] = {}
    for row in found:
        if row.smiles and row.score is not None:
            best.setdefault(row.smiles, row)
            codes.setdefault(row.smiles, []).append(f"{row.target} {row.code}")
    ranked = sorted(best.values(), key=lambda row: (row.score or 0.0, row.smiles or ""))
    bands = Counter(band(row.score or 0.0) for row in ranked)
    numbered = list(enumerate(ranked, start=1))
    left_out = numbered[_EASIEST:-_HARDEST]
    shown = numbered if len(left_out) < _HARDEST else [*numbered[:_EASIEST], None, *numbered[-_HARDEST:]]
    table(("rank", "score", "band", "seen in", "compound"), _lines(shown, codes), title=title, numbers=(0, 1))
    say(f"  {len(ranked)} scored: {in_words({name: bands[name] for _, name in BANDS})}")


def _lines(ranked: Iterable[tuple[int, Row] | None], codes: dict[str, list[str]]) -> Iterable[tuple[object, ...]]:
    for place in ranked:
        if place is None:
            yield ("...", "", "", "", "")
            continue
        rank, row = place
        first, *more = codes[row.smiles or ""]
        seen = first + (f" and {len(more)} more" if more else "")
        yield rank, f"{row.score:.2f}", band(row.score or 0.0), seen, _shortened(row.smiles or "")


def _shortened(smiles: str) -> str:
    return smiles if len(smiles) <= _LONGEST else f"{smiles[: _LONGEST - 3]}..."


def _set_aside(found: Sequence[Row]) -> None:
    """Print what has no score, and why."""
    say()
    say("Without a score", bold=True)
    for row in found:
        if row.disposition in ("rejected", "failed"):
            say(f"  {row.target} {row.code}: {row.disposition}, {row.reason} ({row.smiles or row.smiles_input!r})")
    waiting = Counter(row.reason or "" for row in found if row.disposition == "pending")
    for reason, number in waiting.items():
        say(f"  {counted(number, 'observation')} pending, {reason}")
