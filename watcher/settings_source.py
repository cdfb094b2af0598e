"""Reads the settings: TOML, then the environment, then secret files; the later one wins.

Everything that is wrong comes out at once in one SettingsError, a line each: where, which key, what it was unless that
is a secret, and what is allowed.
"""

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Any, cast
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from watcher.errors import SettingsError
from watcher.redaction import SHORTEST
from watcher.settings import Settings
from watcher.settings_files import find_config, read_secret
from watcher.settings_keys import Key, keys, nearest
from watcher.settings_types import is_loopback

_PREFIX = "WATCHER_"
_NOT_OURS = re.compile(r"WATCHER_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")
"""What Kubernetes gives every pod beside a service named `watcher`."""

Tables = dict[str, Any]


class _Sources(Settings, BaseSettings):
    """Tells the library's sources which names there are; never filled."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        enable_decoding=False,  # lists and tables are read by their own types, which explain themselves
    )


class _Environment(EnvSettingsSource):
    """The library's source on any mapping, without what is refused."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(_Sources)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._environ.items()}


def load(path: Path | None = None, *, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings in force. Raises SettingsError that names everything that is wrong."""
    config = find_config(path, environ)
    problems: list[str] = []
    variables = _known_variables(environ, problems)
    tables = _merged(_read_toml(config) if config else {}, _Environment(variables)())
    _read_secret_files(tables, problems)
    settings = None
    try:
        settings = Settings.model_validate(tables)
    except ValidationError as error:
        problems += [_problem(detail, config, variables) for detail in error.errors(include_url=False)]
    if settings is not None and (ca_file := settings.http.ca_file) and (reason := _unreadable(ca_file)):
        problems.append(f"http.ca_file: cannot read {ca_file}: {reason}")
    if settings is None or problems:
        raise SettingsError("\n".join(problems)) from None
    return settings


def secrets_of(settings: Settings) -> list[str]:
    """Return every secret value in force, for `watcher.log.configure`: tokens, notify URLs, the database's password."""
    found: list[str] = []
    for key in keys():
        if not key.is_secret:
            continue
        value = getattr(getattr(settings, key.section), key.name)
        texts = [secret.get_secret_value() for secret in (value if isinstance(value, tuple) else (value,))]
        found += [part for text in texts for part in _passwords(text)] if key.name == "url" else texts
    return list(dict.fromkeys(filter(None, found)))


def warnings_of(settings: Settings, *, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return what works but should be known at start-up, a sentence each."""
    found = []
    services = (("fragalysis", settings.fragalysis.url), ("molecule_one", settings.molecule_one.base_url))
    for section, url in services:
        if getattr(settings, section).token.get_secret_value() and url.startswith("http:") and not _is_local(url):
            found.append(f"{section}.token is sent to {url} without encryption; use https")
    if not settings.fragalysis.targets:
        found.append("fragalysis.targets is empty: no target is followed")
    if settings.molecule_one.api_version == "v1" and settings.molecule_one.invalid_target_strategy != "pass":
        found.append('molecule_one.invalid_target_strategy has no effect with api_version = "v1"')
    if any(len(secret) < SHORTEST for secret in secrets_of(settings)):
        found.append(f"a token or password has fewer than {SHORTEST} characters: too short to be kept out of the logs")
    return found + list(_open_secret_files(settings, environ))


def _open_secret_files(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    # What a container or systemd hands over lies where nobody else looks, whatever its mode: Docker's is 0444, and an
    # access list shows as the rights of a group.
    guarded = ("/run/secrets", environ.get("CREDENTIALS_DIRECTORY") or "/run/secrets")
    for key in keys():
        path = getattr(getattr(settings, key.section), f"{key.name}_file", None) if key.is_secret else None
        if path is None or any(path.is_relative_to(place) for place in guarded):
            continue
        with suppress(OSError):
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                who = "every user" if mode & 0o007 else "its group"
                yield f"{key.section}.{key.name}_file: {path} is open to {who} (mode {mode:04o}); `chmod 600` it"


def _is_local(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")


def _passwords(url: str) -> list[str]:
    """Return the password of a database URL, as it is written and as it is meant."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    written = re.findall(r"://[^:/@]*:(.*)@", url) + re.findall(r"[?&]password=([^&#]*)", url)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return written
    meant = [parsed.password, parsed.query.get("password")]
    return [*written, *(str(password) for password in meant if password)]


def _unreadable(path: Path) -> str:
    """Say why a file cannot be read; empty when it can."""
    try:
        with path.open("rb"):
            return ""
    except (OSError, ValueError) as error:
        return _reason(error)


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or type(error).__name__).lower() if isinstance(error, OSError) else "not a usable path"


def _read_toml(path: Path) -> Tables:
    if reason := _unreadable(path):
        raise SettingsError(f"cannot read the settings file {path}: {reason}")
    try:
        return TomlConfigSettingsSource(_Sources, path).toml_data
    except TOMLDecodeError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not valid TOML: the file is not UTF-8 text") from None
    except (RecursionError, ValueError):  # the library has no words of its own for either
        raise SettingsError(f"{path}: not valid TOML: a value is nested too deep, or has too many digits") from None
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {_reason(error)}") from None


def _known_variables(environ: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    """Return our variables; those that no setting has are reported, because the library would pass over them."""
    known = {key.variable for key in keys()}
    found = {}
    for name, value in environ.items():
        upper = name.upper()
        if upper in known:
            found[upper] = value
        elif upper.startswith(_PREFIX) and upper != "WATCHER_CONFIG" and not _NOT_OURS.fullmatch(upper):
            problems.append(f"unknown setting `{name}` in the environment{nearest(name)}")
    return found


def _merged(under: Tables, over: Tables) -> Tables:
    """Lay one set of tables over another, key by key."""
    merged = dict(under)
    for section, values in over.items():
        below = merged.get(section, {})
        merged[section] = {**below, **values} if isinstance(below, dict) else below
    return merged


def _read_secret_files(tables: Tables, problems: list[str]) -> None:
    """Put the content of every `*_file` where the secret itself belongs."""
    for key in keys():
        table = tables.get(key.section)
        if not key.is_secret or not isinstance(table, dict):
            continue
        file_key = f"{key.name}_file"
        named = table.get(file_key)
        if not isinstance(named, str) or not named:
            continue
        try:
            content = read_secret(Path(named))
        except (OSError, ValueError) as error:
            reason = str(error) if type(error) is ValueError else _reason(error)
            problems.append(f"{key.section}.{file_key}: cannot read {named}: {reason}")
            tables[key.section] = {name: value for name, value in table.items() if name != key.name}
        else:
            tables[key.section] = {**table, key.name: list(_lines(content)) if tuple in key.types else content}


def _lines(text: str) -> Iterator[str]:
    return (line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def _problem(detail: ErrorDetails, config: Path | None, variables: Mapping[str, str]) -> str:
    """Say one refusal of pydantic in our words."""
    name = ".".join(str(part) for part in detail["loc"][:2])
    key = next((key for key in keys() if str(key) == name), None)
    where = f"{config}: " if config else ""
    if key is None:
        if detail["type"] == "extra_forbidden":
            return f"{where}unknown setting `{name}`{nearest(name)}"
        return f"{where}{name}: must be a table, as in [{name}]"
    if key.variable in variables:
        where = f"{key.variable}: "
    allowed = f"must be {key.allowed}"
    if detail["type"] == "value_error":
        allowed = str(cast("dict[str, object]", detail["ctx"])["error"])
    return f"{where}{name}{_shown(key, detail['input'])}: {allowed}"


def _shown(key: Key, value: object) -> str:
    """Show a refused value, shortened; nothing of secrets and of tables, which may hold some."""
    if key.is_secret or isinstance(value, SecretStr) or dict in key.types:
        return ""
    text = json.dumps(value, default=str)
    text = re.sub(r"//[^\s\"]*@", "//***@", text)
    return f" = {text if len(text) <= 80 else text[:77] + '...'}"
