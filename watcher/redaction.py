"""Takes secrets out of whatever is about to be written: known values in every form, and what looks like a secret."""

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from urllib.parse import quote, quote_plus

HIDDEN = "***"
SHORTEST = 4
"""Shorter secrets are not looked for: they would blank out half of every line."""

_DEEPEST = 12
_TELLTALE = re.compile(r"authori[sz]ation|cookie|sessionid|csrftoken|apitoken|bearer|basic|://", re.IGNORECASE)
_WORD = r"""[^\s,;'"]+"""
_SHAPES = (
    # a header: as text, in the repr of a mapping, in a pair
    re.compile(
        rf"""((?:authori[sz]ation|cookie)b?['"]?\s*[:=,]\s*)(?:b?"[^"\n]*"?|b?'[^'\n]*'?|{_WORD}(?:[ \t]+{_WORD})?)""",
        re.IGNORECASE,
    ),
    re.compile(r"""((?:sessionid|csrftoken)b?['"]?\s*[:=,]\s*b?['"]?)[^\s;,'"&]+""", re.IGNORECASE),
    re.compile(rf"""(ApiToken-v\d+(?:\s|%20|\+)+){_WORD}""", re.IGNORECASE),
    re.compile(r"""((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}""", re.IGNORECASE),
    re.compile(r"""([?&](?:password|token)=)[^\s&'"<>]+""", re.IGNORECASE),
    re.compile(r"""(://[^\s/:@'"]*:)[^\s'"<>]*(?=@)"""),
)
_SECRET_KEYS = frozenset(
    ("authorization", "proxy-authorization", "cookie", "set-cookie", "sessionid", "csrftoken", "password")
)


def redactor(secrets: Iterable[str]) -> Callable[[object], object]:
    """Return a pure function that turns any value into plain data (what JSON knows) without secrets.

    Each of `secrets` is replaced as it is, URL-quoted, in base64, in hexadecimal and as it stands in a repr or in JSON;
    text of any origin loses what looks like an `Authorization` header, a session cookie, an API token or the password
    of a URL. Secrets of fewer than four characters are only found by their shape.
    """
    scrub = _scrubber(secrets)

    def plain(value: object, depth: int = 0) -> object:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, (int, float)):
            return _number(value, scrub)
        if depth > _DEEPEST:
            return "..."
        if isinstance(value, Mapping):
            return {
                scrub(_text(key)): HIDDEN if item and _text(key).lower() in _SECRET_KEYS else plain(item, depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple, set, frozenset)):
            return [plain(item, depth + 1) for item in value]
        return scrub(_text(value))

    return plain


def blotter(secrets: Iterable[str]) -> Callable[[bytes], bytes]:
    """Return a function that blots these secrets, in every form, out of a body.

    What merely looks like a secret stays: it may be data.
    """
    forms = [form.encode("utf-8", "surrogatepass") for form in _all_forms(secrets)]

    def blot(body: bytes) -> bytes:
        for form in forms:  # one by one: ten times faster over megabytes than one pattern
            body = body.replace(form, HIDDEN.encode())
        return body

    return blot


def _all_forms(secrets: Iterable[str]) -> list[str]:
    return sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True)


def _scrubber(secrets: Iterable[str]) -> Callable[[str], str]:
    forms = _all_forms(secrets)
    known = re.compile("|".join(map(re.escape, forms)) or r"(?!)")

    def without_known(text: str) -> str:
        # Again until nothing is found: a replacement may complete a secret that holds asterisks. Each makes it shorter.
        while (shorter := known.sub(HIDDEN, text)) != text:
            text = shorter
        return text

    def scrub(text: str) -> str:
        text = without_known(text)
        if _TELLTALE.search(text):
            for shape in _SHAPES:
                text = shape.sub(rf"\1{HIDDEN}", text)
            text = without_known(text)
        return text

    return scrub


def _number(value: float, scrub: Callable[[str], str]) -> object:
    """Return a number as it is, or as text when it reads like a secret or JSON cannot hold it."""
    text = _text(value)
    scrubbed = scrub(text)
    return value if scrubbed == text and -1e300 < value < 1e300 else scrubbed


def _text(value: object) -> str:
    try:
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value).decode("utf-8", "backslashreplace")
        if isinstance(value, date):
            return value.isoformat()
        return f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else str(value)
    except Exception as error:  # noqa: BLE001 - a value that cannot be written must not stop the line
        return f"<{type(value).__name__} that cannot be written: {type(error).__name__}>"


def _forms(secret: str) -> set[str]:
    """Return a secret in every form it may travel in; empty when it is too short to be looked for."""
    if len(secret) < SHORTEST:
        return set()
    raw = secret.encode("utf-8", "surrogatepass")
    quoted = {quote(raw, safe=""), quote(raw), quote_plus(raw)}
    quoted |= {re.sub("%..", lambda match: match[0].lower(), text) for text in quoted}
    in_repr = repr("'\"" + secret)[4:-1]  # with both kinds of quotes around, the single ones are escaped
    escaped = {
        in_repr,
        in_repr.replace("\\'", "'"),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    }
    in_bytes = {raw.hex(), raw.hex().upper(), repr(raw)[2:-1], raw.decode("utf-8", "backslashreplace")}
    return {form for form in {secret, *quoted, *escaped, *in_bytes, *_in_base64(raw)} if len(form) >= SHORTEST}


def _in_base64(raw: bytes) -> set[str]:
    """Return the base64 of a secret within a longer text, at each of the three alignments."""
    found = set()
    for before in range(3):
        whole = base64.b64encode(bytes(before) + raw).decode()
        # characters that the neighbours have a share in are left out
        found.add(whole[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6])
    return found | {text.replace("+", "-").replace("/", "_") for text in found}
