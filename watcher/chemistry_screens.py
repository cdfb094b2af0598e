"""What a raw string shows without being parsed: the SMILES in it, or why there can be none.

What changes a verdict here raises `chemistry.RULES`.
"""

import re
import unicodedata

from watcher.chemistry_records import Reason, Rejection

MAX_CHARACTERS = 20_000  # far above any real compound; a longer string is not given to the parser at all
_INVISIBLE = "\ufeff\u200b\u2060" + "".join(c for c in map(chr, range(0x3001)) if c.isspace())
_MISSING = re.compile(
    r"#?n\.?/?a\.?|<na>|nan|nat|nd|none|null|nil|undefined|unknown|missing|tbd|[-.?]{1,3}", re.IGNORECASE
)
_SCREENS: tuple[tuple[Reason, str, re.Pattern[str]], ...] = (
    ("not_smiles", "an InChI, not a SMILES", re.compile(r"^InChI=", re.IGNORECASE)),
    ("not_smiles", "an InChIKey, not a SMILES", re.compile(r"^[A-Z]{14}-[A-Z]{10}-[A-Z]$")),
    ("not_smiles", "quotation marks: a table cell that was not unpacked?", re.compile(r"[\"'`]")),
    ("reaction", "a reaction, not a molecule", re.compile(r"(?<!-)>")),  # -> is a dative bond
    (
        "query",
        "a query (SMARTS) for many molecules, not a molecule",
        re.compile(r"[~!&]|\[[^\]]*[;,$^]|\[\d*#\d|\[[^\]]*[A-Za-z][DRXvx]\d|\[[DXrvx]\d|\[a\]"),
    ),
    ("not_smiles", "several molecules in one cell, separated by ';' or ','", re.compile(r"[;,]")),
    ("wildcard", "a wildcard or R-group: one atom is left open", re.compile(r"\*|\[\d*(?:R#?\d*|[AGLMQXZ])\]")),
)
_CODE = re.compile(r"(?=.*\d)(?:(?=.*[^\WBCNOPSFIbcnopslr\d_])[\w-]+|[\w-]*\d{4}[\w-]*)")  # a letter that is no atom
_WORD = re.compile(r"[A-Z]?(?=[a-z]*[^\Wbcnopslr\d_])[a-z]{3,}")


def smiles_in(raw: str) -> tuple[str, str | None] | Rejection:
    """Return the SMILES in a raw string, without atom maps, and its CXSMILES block; or why there is no SMILES."""
    text = raw.strip(_INVISIBLE)
    if rejection := _unfit(text):
        return rejection
    words = text.split(None, 1)
    block = re.match(r"\|[^|]*\|?", text if text.startswith("|") else words[1] if len(words) > 1 else "")
    cxsmiles = block.group() if block else None
    smiles = "" if text.startswith("|") else without_maps(words[0])
    if not smiles:
        return Rejection("empty", "a CXSMILES block without a SMILES before it", cxsmiles)
    for reason, detail, pattern in _SCREENS:
        if pattern.search(smiles):
            return Rejection(reason, detail, cxsmiles)
    return smiles, cxsmiles


def without_maps(smiles: str) -> str:
    """Return a SMILES without the numbers that map its atoms to those of a reaction."""
    return re.sub(r":\d+(?=\])", "", smiles)


def looks_like_a_name(text: str) -> bool:
    """Say whether what no parser reads is the name or the code of a compound."""
    return bool(_CODE.fullmatch(text) or _WORD.fullmatch(text))


def _unfit(text: str) -> Rejection | None:
    if not text:
        return Rejection("empty", "nothing there")
    if len(text) > MAX_CHARACTERS:
        return Rejection("too_large", f"{len(text)} characters; more than {MAX_CHARACTERS} are not read")
    for place, character in enumerate(text, 1):
        if character > "\x7e" or (character < " " and character != "\t"):
            name = unicodedata.name(character, "a control character" if character <= "\x7f" else "no character")
            reason: Reason = "not_smiles" if character.isascii() else "not_ascii"
            return Rejection(reason, f"character {place} is U+{ord(character):04X}, {name}")
    if _MISSING.fullmatch(text):
        return Rejection("not_smiles", f"'{text}' stands for a missing value")
    return None
