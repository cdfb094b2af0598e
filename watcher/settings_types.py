"""The values that settings are made of: durations, sizes, origins, tokens, lists. Each knows how it is written.

Every check raises ValueError with what is allowed and never repeats the value: that is left to whoever reports it,
who knows whether it is a secret.
"""

import json
import re
from datetime import timedelta
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from watcher.cron import cron_trigger

STACKS = {
    "production": "https://fragalysis.diamond.ac.uk",
    "staging": "https://fragalysis.xchem.diamond.ac.uk",
}
"""Short names of the two public stacks (published client `xchem-fragalysis` 1.4.13, `urls.py`)."""

EVENTS = ("settled", "attention", "recovered")
"""What people can be told of."""

DURATION_FORM = 'a duration such as "90s", "15m", "6h", "2d" or "1h30m"'
SIZE_FORM = 'a size such as "200MB", "1.5GB" or "2GiB"'
ORIGIN_FORM = 'a base URL such as "https://host" or "http://127.0.0.1:8080"'

_LONGEST = timedelta(days=3650)
_DURATION_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,9})?"


def parse_duration(value: object) -> timedelta:
    """Read `90s`, `15m`, `6h`, `2d`, or several of them in a row (`1h30m`); a timedelta is returned as it is.

    Raises ValueError with what is allowed.
    """
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not re.fullmatch(rf"\s*(?:{_NUMBER}[smhd])+\s*", value):
        raise ValueError(f"must be {DURATION_FORM}")
    seconds = sum(Decimal(number) * _DURATION_UNITS[unit] for number, unit in re.findall(rf"({_NUMBER})(\D)", value))
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"must be {DURATION_FORM}, ten years at most")
    return timedelta(microseconds=int(seconds * 10**6))


def format_duration(value: timedelta) -> str:
    """Write a duration the way it is written in the settings, with the largest unit that divides it."""
    microseconds = value // timedelta(microseconds=1)
    for unit, seconds in _DURATION_UNITS.items():
        if microseconds and microseconds % (seconds * 10**6) == 0:
            return f"{microseconds // (seconds * 10**6)}{unit}"
    return f"{Decimal(microseconds) / 10**6:f}s"


def parse_size(value: object) -> int:
    """Read `200MB`, `1.5GiB` or a plain number of bytes; returns bytes. Raises ValueError with what is allowed."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(rf"\s*({_NUMBER})\s*([A-Za-z]*)\s*", value) if isinstance(value, str) else None
    if match is None or match[2] not in _SIZE_UNITS:
        raise ValueError(f"must be {SIZE_FORM}")
    return int(Decimal(match[1]) * _SIZE_UNITS[match[2]])


def format_size(value: int) -> str:
    """Write a size of so many bytes the way it is written in the settings."""
    for unit in ("TB", "GB", "MB", "kB"):
        if value and value % _SIZE_UNITS[unit] == 0:
            return f"{value // _SIZE_UNITS[unit]}{unit}"
    return f"{value}B"


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches a host, by its address or as `localhost`. Other names may lead anywhere."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta():
        raise ValueError("must be greater than zero")
    return value


def _origin(value: str) -> str:
    """Accept scheme, host and port only: a path, query or user name in the URL would end up in logs."""
    try:
        port_fits = re.fullmatch(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]+)?/?", value) is not None
        urlsplit(value).port  # noqa: B018 - raises ValueError when it is above 65535
    except ValueError:
        port_fits = False
    if not port_fits:
        raise ValueError(f"must be {ORIGIN_FORM}, without user name and path")
    return value.rstrip("/")


def _stack(value: str) -> str:
    if value in STACKS:
        return value
    try:
        return _origin(value)
    except ValueError:
        raise ValueError(f'must be "production", "staging", or {ORIGIN_FORM}') from None


def _cron(value: str) -> str:
    if value:
        try:
            cron_trigger(value)
        except ValueError as error:
            raise ValueError(f'must be a cron expression of five fields such as "*/15 * * * *" ({error})') from None
    return value


def _listen(value: str) -> str:
    host, _, port = value.rpartition(":")
    if value and not (re.fullmatch(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+", host) and re.fullmatch(r"[0-9]{1,5}", port)):
        raise ValueError('must be HOST:PORT such as "127.0.0.1:9464" or "[::1]:9464", or empty')
    if value and int(port) > 65535:
        raise ValueError("must have a port of 65535 at most")
    return value


def _user_agent(value: str) -> str:
    if not re.fullmatch(r"[\x20-\x7e]*[\x21-\x7e][\x20-\x7e]*", value):
        raise ValueError("must be printable ASCII text")
    return value


def _token(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x21-\x7e]*", value.get_secret_value()):
        raise ValueError("must be the token alone: printable ASCII without white space")
    return value


def _cookie(value: SecretStr) -> SecretStr:
    if re.search(r'[;,"\\]|^sessionid=', value.get_secret_value()):
        raise ValueError("must be the value of the `sessionid` cookie alone, without its name and other cookies")
    return value


def _database_url(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(("sqlite+aiosqlite://", "postgresql+asyncpg://")):
        raise ValueError('must start with "sqlite+aiosqlite://" or "postgresql+asyncpg://"')
    return value


def _list(value: object) -> object:
    """Read a list from text, as the environment gives it: a JSON list, or one element without a comma."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # a glob can start with a bracket
    if "," in text or '"' in text:
        raise ValueError('must be a list such as ["A", "B"]')
    return [text] if text else []


def _events(value: tuple[str, ...]) -> tuple[str, ...]:
    if not set(value) <= set(EVENTS):
        raise ValueError('must be a list of "settled", "attention" and "recovered", or some of them')
    return value


def _table(value: object) -> object:
    """Read a table from text, as the environment gives it: a JSON object. Whatever it holds must fit into JSON."""
    try:
        if isinstance(value, str):
            value = json.loads(value) if value.strip() else {}
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise ValueError("must hold only what JSON knows: text, numbers, true, false, lists, tables") from None
    return value


def _nothing_if_empty(value: object) -> object:
    return None if value == "" else value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
Origin = Annotated[str, AfterValidator(_origin)]
Stack = Annotated[str, AfterValidator(_stack)]
Cron = Annotated[str, AfterValidator(_cron)]
Listen = Annotated[str, AfterValidator(_listen)]
UserAgent = Annotated[str, AfterValidator(_user_agent)]
Token = Annotated[SecretStr, AfterValidator(_token)]
SessionToken = Annotated[Token, AfterValidator(_cookie)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_list)]
Events = Annotated[Names, AfterValidator(_events)]
Secrets = Annotated[tuple[Annotated[SecretStr, Field(min_length=1)], ...], BeforeValidator(_list)]
Table = Annotated[dict[str, Any], BeforeValidator(_table)]
OptionalPath = Annotated[Path | None, BeforeValidator(_nothing_if_empty)]
OptionalNumber = Annotated[float | None, BeforeValidator(_nothing_if_empty)]
