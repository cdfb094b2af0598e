"""Reading settings: where values come from, who wins, and what is said when something is wrong."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from watcher.errors import SettingsError
from watcher.settings import Settings
from watcher.settings_files import find_config
from watcher.settings_keys import keys
from watcher.settings_source import load, secrets_of, warnings_of

SECRET = "s3cr3t-opensesame"


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def config(text: str, name: str = "config.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def refused(text: str = "", **environ: str) -> str:
    """Return what is said about settings that must not load."""
    with pytest.raises(SettingsError) as caught:
        load(config(text), environ=environ)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None or SECRET not in repr(caught.value.__cause__)
    return str(caught.value)


def test_nothing_said_gives_the_defaults() -> None:
    assert load(environ={}) == Settings()


def test_where_the_file_is_looked_for(tmp_path: Path) -> None:
    assert find_config(None, {}, tmp_path) in (None, Path("/etc/watcher/config.toml"))
    config("")
    assert find_config(None, {}, tmp_path) == tmp_path / "config.toml"
    assert find_config(None, {}) == Path("config.toml")
    assert find_config(None, {"WATCHER_CONFIG": "other.toml"}) == Path("other.toml")
    assert find_config(None, {"WATCHER_CONFIG": ""}) == Path("config.toml")
    assert find_config(Path("a.toml"), {"WATCHER_CONFIG": "b.toml"}) == Path("a.toml")


@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_named_file_that_is_missing_stops(how: str) -> None:
    config("")  # the usual place does not make up for it
    with pytest.raises(SettingsError, match=r"other\.toml: no such file"):
        load(Path("other.toml") if how == "option" else None, environ={"WATCHER_CONFIG": "other.toml"})


def test_a_directory_in_the_usual_place_stops() -> None:
    Path("config.toml").mkdir()  # what Docker makes of a missing file
    with pytest.raises(SettingsError, match=r"config\.toml: is a directory"):
        load(environ={})


def test_bad_toml_is_told_with_its_line() -> None:
    said = refused(f'[molecule_one]\ntoken = "{SECRET}\n')
    assert "config.toml" in said
    assert "line 2" in said
    Path("config.toml").write_bytes(b"# \xff")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load(environ={})


def test_the_environment_wins_over_the_file_and_a_secret_file_over_both() -> None:
    config('[molecule_one]\nbatch_size = 7\npriority = 3\ntoken = "from-toml"')
    environ = {"WATCHER_MOLECULE_ONE__BATCH_SIZE": "9", "WATCHER_MOLECULE_ONE__TOKEN": "from-environment"}
    settings = load(environ=environ)
    assert (settings.molecule_one.batch_size, settings.molecule_one.priority) == (9, 3)
    assert settings.molecule_one.token.get_secret_value() == "from-environment"
    Path("token").write_text("from-file\r\n")
    settings = load(environ={**environ, "WATCHER_MOLECULE_ONE__TOKEN_FILE": "token"})
    assert settings.molecule_one.token.get_secret_value() == "from-file"
    assert settings.molecule_one.token_file == Path("token")


def test_only_the_given_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHER_LOG__LEVEL", "debug")
    assert load(environ={}).log.level == "info"
    assert load(environ=os.environ).log.level == "debug"


def test_every_setting_can_be_set_by_its_variable() -> None:
    for key in keys():
        load(environ={key.variable: ""} if key.default in ("", None, (), {}) else {})
    environ = {
        "WATCHER_FRAGALYSIS__SCAN_INTERVAL": "1h",
        "WATCHER_DOWNLOAD__ENABLED": "false",
        "WATCHER_DOWNLOAD__MAX_ARCHIVE_SIZE": "1000000",
        "watcher_limits__submit_private": "true",
        "WATCHER_MOLECULE_ONE__PARAMETERS": '{"modelName": "a", "n": 3}',
        "WATCHER_MOLECULE_ONE__PRICE_PER_COMPOUND": "0.25",
    }
    settings = load(environ=environ)
    assert settings.fragalysis.scan_interval == timedelta(hours=1)
    assert settings.download.enabled is False
    assert settings.download.max_archive_size == 10**6
    assert settings.limits.submit_private is True
    assert settings.molecule_one.parameters == {"modelName": "a", "n": 3}
    assert settings.molecule_one.price_per_compound == 0.25


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ('["A71EV2A", "D68*"]', ("A71EV2A", "D68*")),
        ("A71EV2A", ("A71EV2A",)),
        ("[AB]71*", ("[AB]71*",)),
        ("", ()),
    ],
)
def test_lists_in_the_environment(text: str, targets: tuple[str, ...]) -> None:
    assert load(environ={"WATCHER_FRAGALYSIS__TARGETS": text}).fragalysis.targets == targets


@pytest.mark.parametrize("text", ["A,B", '["A", "B"', '["A"', "[1]", '[""]', '["a", ["b"]]'])
def test_no_lists_in_the_environment(text: str) -> None:
    assert "fragalysis.targets" in (said := refused(WATCHER_FRAGALYSIS__TARGETS=text))
    assert 'such as ["A", "B"]' in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[molecule_one]\ntokn = 1", "`molecule_one.tokn`; did you mean `molecule_one.token`?"),
        ("[molecule-one]\ntoken = 1", "`molecule-one`; did you mean `molecule_one`?"),
        ("tokn = 1", "did you mean `fragalysis.token` or `molecule_one.token` or `server.token`?"),
        ("[molecule_one]\ncompounds_per_day = 1", "did you mean `limits.compounds_per_day`?"),
        ("[notify.urls]\na = 1", "notify.urls: must be a list"),
        ("molecule_one = 1", "molecule_one: must be a table, as in [molecule_one]"),
        ("[[molecule_one]]\nbatch_size = 1", "molecule_one: must be a table"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest(text: str, said: str) -> None:
    assert said in refused(text)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("WATCHER_MOLECULE_ONE_TOKEN", "did you mean `WATCHER_MOLECULE_ONE__TOKEN`?"),
        ("WATCHER_MOLECULE_ONE__TOKN", "did you mean `WATCHER_MOLECULE_ONE__TOKEN`?"),
        ("WATCHER_MOLECULE_ONE__PARAMETERS__LENGTH", "did you mean `WATCHER_MOLECULE_ONE__PARAMETERS`?"),
        ("WATCHER_MOLECULE_ONE", "unknown setting `WATCHER_MOLECULE_ONE`"),
        ("WATCHER_XYZZY", "unknown setting `WATCHER_XYZZY` in the environment"),
    ],
)
def test_unknown_variables_are_refused_with_the_nearest(name: str, said: str) -> None:
    assert said in refused(**{name: SECRET})


def test_variables_of_kubernetes_are_left_alone() -> None:
    names = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_9464_TCP", "PORT_9464_TCP_ADDR")
    assert load(environ={f"WATCHER_{name}": "10.0.0.1" for name in names}) == Settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('api_version = "v3"', 'molecule_one.api_version = "v3": must be "v1" or "v2"'),
        ("batch_size = 0", "molecule_one.batch_size = 0: must be a whole number of 1 or more, 100000 at most"),
        ("batch_size = true", "molecule_one.batch_size = true: must not be true or false"),
        ("poll_interval = 30", 'molecule_one.poll_interval = 30: must be a duration such as "90s"'),
        ('poll_interval = "0s"', "must be greater than zero"),
        ("price_per_compound = nan", "molecule_one.price_per_compound = NaN: must be a number of 0 or more"),
        ('delete_after_collect = "maybe"', "must be true or false"),
        ("parameters = { day = 2026-01-01 }", "molecule_one.parameters: must hold only what JSON knows"),
        ('base_url = "https://me:s3cr3t-opensesame@host"', '"https://***@host": must be a base URL'),
        (f'token = "{SECRET} "', "molecule_one.token: must be the token alone"),
        (f'token = ["{SECRET}"]', "molecule_one.token: must be text"),
        ('preset = "fast"', 'works with api_version = "v2" only'),
    ],
)
def test_bad_values_are_told_with_what_is_allowed(text: str, said: str) -> None:
    assert said in refused(f"[molecule_one]\n{text}")


def test_the_cookie_alone_is_a_session_token() -> None:
    for text in (f"sessionid={SECRET}", f"{SECRET};csrftoken=1"):
        assert "value of the `sessionid` cookie alone" in refused(f'[fragalysis]\ntoken = "{text}"')


def test_an_unreasonable_drain_is_refused() -> None:
    assert "ten minutes at most" in refused('[daemon]\nshutdown_timeout = "11m"')


def test_all_problems_come_at_once_each_with_its_place() -> None:
    said = refused(
        '[limits]\nmax_heavy_atoms = 0\nxyzzy = 1\n[molecule_one]\ntoken_file = "nope"', WATCHER_LOG__LEVEL="loud"
    )
    assert said.splitlines() == [
        "molecule_one.token_file: cannot read nope: no such file or directory",
        "config.toml: limits.max_heavy_atoms = 0: must be a whole number of 1 or more",
        "config.toml: unknown setting `limits.xyzzy`",
        'WATCHER_LOG__LEVEL: log.level = "loud": must be "debug" or "info" or "warning" or "error"',
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file or directory"),
        ("directory", "is a directory"),
        (b"", "the file is empty"),
        (b"\n", "the file is empty"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"a" * 70_000, "larger than 64 KiB"),
    ],
)
@pytest.mark.parametrize("key", ["molecule_one.token", "database.url", "notify.urls"])
def test_secret_files_that_cannot_be_read(key: str, content: bytes | str | None, reason: str) -> None:
    section, name = key.split(".")
    place = Path("secret")
    if content == "directory":
        place.mkdir()
    elif isinstance(content, bytes):
        place.write_bytes(content)
    said = refused(f'[{section}]\n{name}_file = "secret"')
    assert said == f"{key}_file: cannot read secret: {reason}"


def test_a_bad_token_in_a_file_is_not_shown() -> None:
    Path("secret").write_text(f"{SECRET} \n")
    assert "server.token: must be the token alone" in refused('[server]\ntoken_file = "secret"')


def test_secret_files_of_other_kinds() -> None:
    Path("url").write_text("postgresql+asyncpg://me:pass@db/watcher\n")
    Path("urls").write_text("# people\nmailto://a\n\n  slack://b  \n")
    settings = load(config('[database]\nurl_file = "url"\n[notify]\nurls_file = "urls"'), environ={})
    assert settings.database.url.get_secret_value() == "postgresql+asyncpg://me:pass@db/watcher"
    assert [url.get_secret_value() for url in settings.notify.urls] == ["mailto://a", "slack://b"]


def test_a_missing_certificate_file_stops() -> None:
    assert refused('[http]\nca_file = "ca.pem"') == "http.ca_file: cannot read ca.pem: no such file or directory"


def test_all_secrets_in_force_are_known() -> None:
    settings = load(
        config(
            '[fragalysis]\ntoken = "aaaa"\n[molecule_one]\ntoken = "bbbb"\n[server]\ntoken = "cccc"\n'
            '[database]\nurl = "postgresql+asyncpg://me:p%40ss@db/watcher"\n[notify]\nurls = ["slack://d", "slack://e"]'
        ),
        environ={},
    )
    assert secrets_of(settings) == ["aaaa", "bbbb", "p%40ss", "p@ss", "cccc", "slack://d", "slack://e"]
    assert secrets_of(Settings()) == []
    in_query = Settings().replace("database", url="postgresql+asyncpg://db/watcher?user=me&password=opensesame")
    assert secrets_of(in_query) == ["opensesame"]
    unreadable = Settings().replace("database", url="postgresql+asyncpg://me:pass@db:x/watcher")
    assert "pass" in secrets_of(unreadable)


def test_warnings() -> None:
    assert warnings_of(Settings()) == []
    Path("token").write_text("c" * 20)
    Path("token").chmod(0o644)
    settings = load(
        config(
            '[fragalysis]\nstack = "http://stack.example"\ntoken = "aaaa"\ntargets = []\n'
            '[molecule_one]\nbase_url = "http://127.0.0.1:8080"\ntoken = "bbb"\ninvalid_target_strategy = "reject"\n'
            '[server]\nlisten = "0.0.0.0:9464"\ntoken_file = "token"\n[notify]\nurls = "slack://d"'
        ),
        environ={},
    )
    assert warnings_of(settings) == [
        "fragalysis.token is sent to http://stack.example without encryption; use https",
        "fragalysis.targets is empty: no target is followed",
        'molecule_one.invalid_target_strategy has no effect with api_version = "v1"',
        "a token or password has fewer than 4 characters: too short to be kept out of the logs",
        "server.token_file: token is open to every user (mode 0644); `chmod 600` it",
    ]


@pytest.mark.parametrize(("mode", "who"), [(0o600, ""), (0o400, ""), (0o640, "its group"), (0o604, "every user")])
def test_a_secret_file_that_others_may_read_is_told(tmp_path: Path, mode: int, who: str) -> None:
    token = tmp_path / "token"
    token.write_text("c" * 20)
    token.chmod(mode)
    settings = load(environ={"WATCHER_MOLECULE_ONE__TOKEN_FILE": str(token)})
    expected = [f"molecule_one.token_file: {token} is open to {who} (mode {mode:04o}); `chmod 600` it"] if who else []
    assert warnings_of(settings, environ={}) == expected
    assert warnings_of(settings, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}) == []  # systemd guards it


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "10.1.2.3:1", "watcher.example:1", "[::ffff:10.0.0.1]:1"])
def test_a_server_that_others_reach_needs_a_token_or_a_word(listen: str, tmp_path: Path) -> None:
    said = refused(f'[server]\nlisten = "{listen}"')
    assert f"server.listen = '{listen}'" in said
    assert "set server.token" in said
    assert "server.public = true" in said
    (tmp_path / "token").write_text("c" * 20)
    for guard in ("public = true", 'token = "opensesame"', 'token_file = "token"'):
        assert load(config(f'[server]\nlisten = "{listen}"\n{guard}'), environ={}).server.listen == listen
    # an unreadable token is told as that, and the server stays shut
    assert "server.public" not in (said := refused(f'[server]\nlisten = "{listen}"\ntoken_file = "no-such-file"'))
    assert "no-such-file: no such file" in said


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.8.0.1:1", "[::1]:1", "localhost:1", "a.localhost:1", ""])
def test_a_server_on_loopback_needs_nothing(listen: str) -> None:
    assert warnings_of(load(config(f'[server]\nlisten = "{listen}"'), environ={}), environ={}) == []
