"""The settings as types: every key, its default and the reason for the default.

Values come from TOML, then the environment (`WATCHER_MOLECULE_ONE__TOKEN`), then secret files (`token_file`); the later
one wins. Reading them is `watcher.settings_source`, printing them `watcher.settings_text`. A field's description is the
comment in `config.example.toml` and the text in the reference.
"""

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from watcher.settings_types import (
    EVENTS,
    STACKS,
    Cron,
    DatabaseUrl,
    Duration,
    Events,
    Listen,
    Names,
    OptionalNumber,
    OptionalPath,
    Origin,
    PositiveDuration,
    Secrets,
    SessionToken,
    Size,
    Stack,
    Table,
    Token,
    UserAgent,
    format_duration,
    format_size,
    is_loopback,
    parse_duration,
    parse_size,
)

__all__ = [
    "STACKS",
    "DaemonSettings",
    "DatabaseSettings",
    "DownloadSettings",
    "FragalysisSettings",
    "HttpSettings",
    "LimitsSettings",
    "LogSettings",
    "MoleculeOneSettings",
    "NotifySettings",
    "Section",
    "ServerSettings",
    "Settings",
    "format_duration",
    "format_size",
    "parse_duration",
    "parse_size",
]


class Section(BaseModel):
    """One table of the settings file."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """Pydantic reads true as 1, which nobody means."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("must not be true or false")
        return value


class FragalysisSettings(Section):
    """Where uploads come from."""

    stack: Stack = "production"
    """`production`, `staging`, or the URL of another stack."""
    token: SessionToken = SecretStr("")
    """Session token (the `sessionid` cookie of a signed-in browser); empty: public targets only."""
    token_file: OptionalPath = None
    """File that holds the token; wins over `token`."""
    targets: Names = ("*",)
    """Targets to follow: globs on NAME or NAME@TAS."""
    exclude: Names = ()
    """Targets to leave out, in the same form; wins over `targets`."""
    scan_interval: PositiveDuration = timedelta(minutes=15)
    """Time between two scans. Uploads come a few times a day at most."""
    scan_cron: Cron = ""
    """Cron expression of five fields (UTC) that takes the place of `scan_interval`."""
    settle: Duration = timedelta(minutes=10)
    """An upload is read once more after this time, because rows can appear a little after the upload does."""
    first_seen: Literal["process", "baseline"] = "process"
    """What a target already holds when first seen: `process` scores it, `baseline` records it without buying."""
    user_agent: UserAgent = "Mozilla/5.0 (X11; Linux x86_64) FragalysisWatcher"
    """The stacks' staff advise a browser-like User-Agent; others may be turned away."""
    requests_per_second: float = Field(default=2.0, gt=0, le=100)
    """Upper limit of requests to the stack."""
    max_concurrent_downloads: int = Field(default=1, ge=1, le=16)
    """Archives built and fetched at a time. Building loads the stack heavily, so the polite number is 1."""
    build_timeout: PositiveDuration = timedelta(hours=6)
    """Longest wait for a build, and for the transfer of its file; after that it is requested again later."""

    @property
    def url(self) -> str:
        """The origin of the stack, without a trailing slash."""
        return STACKS.get(self.stack, self.stack)


class DownloadSettings(Section):
    """What is kept of an upload on disk. The twelve contents are the options of the published `download_target`."""

    enabled: bool = True
    """Keep the archive of each upload; false: scores only."""
    directory: Path = Path("downloads")
    """Where archives and unpacked files are kept."""
    max_archive_size: Size = 20 * 10**9
    """Largest archive that is fetched. Archives with maps reach several GB."""
    max_unpacked_size: Size = 100 * 10**9
    """Largest total that is unpacked from one archive; a guard against archive bombs."""
    max_members: int = Field(default=500_000, gt=0)
    """Most files and folders that one archive may hold."""
    extract: bool = True
    """Unpack the archive beside itself."""
    keep_uploads: int = Field(default=2, ge=0)
    """Archives kept of each target: the current one, then the newest; 0: all. Older ones are removed for good."""
    metadata_file: bool = True
    """`metadata.csv`."""
    combined_sdf: bool = True
    """One SDF with all ligands."""
    compound_set_sdfs: bool = True
    """SDFs of computed ligands (right-hand side)."""
    soakdb_files: bool = True
    """SoakDB CSV and SQLite files."""
    unaligned_pdbs: bool = False
    """Coordinates before alignment."""
    ligand_cifs: bool = False
    """Ligand definitions and geometry restraints."""
    event_maps: bool = False
    """PanDDA event maps."""
    inspection_maps: bool = False
    """Conventional inspection maps (2FoFc)."""
    residual_maps: bool = False
    """Conventional residual maps (FoFc)."""
    real_space_maps: bool = False
    """Real-space map files; very big."""
    transformation_files: bool = False
    """Transformations applied for the alignment."""
    reflections_files: bool = False
    """Reflections and map coefficients (MTZ)."""


class MoleculeOneSettings(Section):
    """Where scores are bought."""

    base_url: Origin = "https://app.molecule.one"
    """Origin of the service, without `/api`."""
    api_version: Literal["v1", "v2"] = "v1"
    """Version of the batch API. v2 names each batch, so doubtful purchases are found again more often."""
    token: Token = SecretStr("")
    """API token; empty: nothing is bought."""
    token_file: OptionalPath = None
    """File that holds the token; wins over `token`."""
    batch_size: int = Field(default=250, ge=1, le=100_000)
    """Most compounds in one batch. Smaller: more requests; larger: more is held up by one doubtful purchase."""
    poll_interval: PositiveDuration = timedelta(seconds=30)
    """First wait between two polls of a batch; it grows while nothing changes."""
    detail_level: Literal["score", "synthesis", "best_path", "all_paths"] = "score"
    """How much comes back: `score`, or routes too (`synthesis`; in newer v2 `best_path`, `all_paths`)."""
    exploratory_search: bool = False
    """v1 only: search longer."""
    priority: int = Field(default=5, ge=1, le=10)
    """1 (lowest) to 10 (highest); does not change a result."""
    preset: str = ""
    """v2 only: name of a preset of the service."""
    invalid_target_strategy: Literal["pass", "reject"] = "pass"
    """v2 only: with an invalid compound, `pass` lets the others go on, `reject` refuses the whole batch."""
    parameters: Table = Field(default_factory=dict)
    """Table [molecule_one.parameters], passed through to the service as it is."""
    on_unconfirmed: Literal["hold", "resubmit"] = "hold"
    """A purchase whose fate stays unknown: `hold` waits for a person, `resubmit` buys again and may pay twice."""
    unconfirmed_window: PositiveDuration = timedelta(minutes=30)
    """How long a doubtful purchase is searched for before `on_unconfirmed` applies. With v2, also how long sending
    waits at a start for a complete list of batches."""
    delete_after_collect: bool = False
    """Delete the batch at the service once its results are stored."""
    price_per_compound: OptionalNumber = Field(default=None, ge=0)
    """Price of one compound, for `plan` and `status`; it limits nothing. Empty: unknown."""
    requests_per_second: float = Field(default=2.0, gt=0, le=100)
    """Upper limit of requests to the service; none is published."""
    max_concurrent_requests: int = Field(default=4, ge=1, le=32)
    """Batches polled at the same time."""
    submit_timeout: PositiveDuration = timedelta(seconds=60)
    """How long the answer to a purchase is waited for before it counts as unknown."""

    @field_validator("detail_level", "exploratory_search", "preset")
    @classmethod
    def _known_to_the_version(cls, value: str | bool, info: ValidationInfo) -> str | bool:
        """Refuse what the chosen version would ignore: it changes what is bought."""
        version, key = info.data.get("api_version"), info.field_name
        if version == "v1" and key == "detail_level" and value not in ("score", "synthesis"):
            raise ValueError('must be "score" or "synthesis" with api_version = "v1"')
        if version == "v1" and key == "preset" and value:
            raise ValueError('works with api_version = "v2" only; must be empty with "v1"')
        if version == "v2" and key == "exploratory_search" and value:
            raise ValueError('works with api_version = "v1" only; with "v2", see molecule_one.parameters')
        return value


class LimitsSettings(Section):
    """Guards on money and privacy. What they hold back is `withheld` and shown with its reason."""

    compounds_per_day: int = Field(default=5000, ge=0)
    """Most compounds sent in any 24 hours; 0: no limit."""
    new_compounds_per_scan: int = Field(default=2000, ge=0)
    """Most compounds that one scan may add without `watcher approve`; 0: no limit."""
    submit_private: bool = False
    """Send compounds seen in private targets only. Private: the project is not open to the public."""
    max_heavy_atoms: int = Field(default=1000, ge=1)
    """Larger molecules are rejected as `too_large`; those recorded under a higher number are `withheld`."""


class DatabaseSettings(Section):
    """The record."""

    url: DatabaseUrl = SecretStr("sqlite+aiosqlite:///watcher.db")
    """SQLAlchemy URL: `sqlite+aiosqlite:///FILE` or `postgresql+asyncpg://USER@HOST/NAME`."""
    url_file: OptionalPath = None
    """File that holds the URL, for one with a password; wins over `url`."""
    timeout: PositiveDuration = timedelta(seconds=30)
    """Deadline of one transaction."""
    backup_keep: int = Field(default=7, ge=0)
    """Daily copies of a SQLite record that are kept, the newest; 0: none is made. Use pg_dump for PostgreSQL."""
    backup_directory: OptionalPath = None
    """Folder of the daily copies; empty: `backups` beside the record. Another disk is better."""
    keep_transitions: Duration = timedelta(days=365)
    """How long changes of state, conditions that are over and messages that were sent are kept; 0s: forever."""


class HttpSettings(Section):
    """How both services are reached."""

    ca_file: OptionalPath = None
    """CA bundle (PEM) that takes the place of the system's."""
    trust_env: bool = True
    """Use the proxies of HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""
    connect_timeout: PositiveDuration = timedelta(seconds=15)
    """Longest wait for a connection."""
    read_timeout: PositiveDuration = timedelta(seconds=60)
    """Longest silence within an answer."""
    total_timeout: PositiveDuration = timedelta(minutes=5)
    """Longest time for one answer; downloads are exempt."""
    max_response_size: Size = 64 * 10**6
    """Largest answer that is read; downloads have their own limit. 5000 observations are 2.7 MB. A hostile answer can
    take twelve times its size in memory. Short answers are limited to 1 MB."""


class ServerSettings(Section):
    """What is asked of the daemon over HTTP: `/livez`, `/readyz`, `/metrics`."""

    listen: Listen = "127.0.0.1:9464"
    """HOST:PORT to listen on; empty: no server."""
    token: Token = SecretStr("")
    """Bearer token that everything but `/livez` asks for; empty: none."""
    token_file: OptionalPath = None
    """File that holds the token; wins over `token`."""
    public: bool = False
    """Let other machines in without a token: `listen` may then be an address that they reach."""

    @field_validator("public")
    @classmethod
    def _guarded(cls, value: bool, info: ValidationInfo) -> bool:
        """Refuse to show names of unpublished targets to the network by mistake."""
        listen, token = info.data.get("listen", ""), info.data.get("token")
        guarded = value or token is None or token.get_secret_value() or info.data.get("token_file")
        if listen and not guarded and not is_loopback(listen.rpartition(":")[0]):
            raise ValueError(
                f"server.listen = {listen!r} lets other machines in, and there is no token; set server.token or "
                "server.token_file, listen on 127.0.0.1, or set server.public = true"
            )
        return value


class NotifySettings(Section):
    """Messages to people."""

    urls: Secrets = ()
    """Apprise URLs that messages are sent to, such as `mailtos://USER:PASSWORD@HOST`; empty: none is sent."""
    urls_file: OptionalPath = None
    """File with one URL a line; wins over `urls`."""
    events: Events = EVENTS
    """What is told: an upload is `settled`, something needs `attention`, it has `recovered`."""
    patience: Duration = timedelta(minutes=15)
    """Trouble that may heal by itself, such as a service that does not answer, is told once it has lasted so long."""
    include_structures: bool = False
    """Put SMILES into messages, also those of private targets. They pass through whatever service the URLs name."""


class LogSettings(Section):
    """What is logged, and how."""

    format: Literal["auto", "json", "console"] = "auto"
    """`json`: one object a line; `console`: for reading; `auto`: console on a terminal, else json."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged."""


class DaemonSettings(Section):
    """The process."""

    shutdown_timeout: PositiveDuration = timedelta(seconds=8)
    """Time to finish what is under way after SIGTERM; below the ten seconds that containers are given by default."""

    @field_validator("shutdown_timeout")
    @classmethod
    def _bounded(cls, value: timedelta) -> timedelta:
        if value > timedelta(minutes=10):
            raise ValueError("must be ten minutes at most: the service manager would not wait that long")
        return value


class Settings(Section):
    """All settings, frozen."""

    fragalysis: FragalysisSettings = FragalysisSettings()
    download: DownloadSettings = DownloadSettings()
    molecule_one: MoleculeOneSettings = MoleculeOneSettings()
    limits: LimitsSettings = LimitsSettings()
    database: DatabaseSettings = DatabaseSettings()
    http: HttpSettings = HttpSettings()
    server: ServerSettings = ServerSettings()
    notify: NotifySettings = NotifySettings()
    log: LogSettings = LogSettings()
    daemon: DaemonSettings = DaemonSettings()

    def replace(self, section: str, **values: object) -> Self:
        """Return a copy with some values of one section changed, checked again. Raises pydantic's ValidationError."""
        old = getattr(self, section)
        new = type(old)(**{**{name: getattr(old, name) for name in type(old).model_fields}, **values})
        return self.model_copy(update={section: new})
