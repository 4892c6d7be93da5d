"""The core's settings, from the environment. Nothing reads the environment anywhere else, nor at import time."""

import base64
import binascii
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from schemas.streams import RAIL_PATTERN, SHARDS_MAX, Part, parts_of
from wire.environment import EnvironmentSettings, HttpUrlOrNone, PostgresUrl, RedisUrl

Seconds = Annotated[int | float, Field(gt=0)]


class Settings(EnvironmentSettings):
    """Every duration is in seconds; every bound is a count unless its name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="FLEET_", extra="ignore", frozen=True)

    database_url: Annotated[PostgresUrl, Field(validation_alias="DATABASE_URL")]
    """Application role: confined to one tenant per transaction."""
    database_worker_url: Annotated[PostgresUrl, Field(validation_alias="DATABASE_WORKER_URL")]
    """Worker role: background work and the internal API, for every tenant."""
    database_direct_url: Annotated[
        PostgresUrl | None, Field(validation_alias=AliasChoices("DATABASE_DIRECT_URL"), default=None)
    ]
    """Worker role without a pooler between: LISTEN and session locks. Default: the worker's."""
    database_read_url: Annotated[PostgresUrl | None, Field(validation_alias="DATABASE_READ_URL", default=None)]
    """Application role on a standby, for lists, histories and statements: a little old. Default: the primary."""
    read_behind_max_s: Annotated[int | float, Field(gt=0, le=30)] = 10
    """A standby whose replay is further behind is not read."""
    redis_url: Annotated[RedisUrl, Field(validation_alias="REDIS_URL")]
    """The core's own user (`wire.acl.core_rules`): it alone creates groups and loads functions."""
    master_key: SecretStr
    """Base64 of 32 bytes; wraps the keys of subjects and encrypts secrets."""

    host: str = "127.0.0.1"
    public_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    internal_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Where a process without the API shows its counters; 0: nowhere. With the API they are on the internal port."""
    console_port: Annotated[int, Field(ge=0, le=65535)] = 8082
    console_url: HttpUrlOrNone = ""
    """The console's address as browsers write it, such as https://console.example.org: cookies are bound to it, and
    to TLS where it is https. Empty: http on loopback."""
    trace_url: Annotated[str, Field(pattern=r"^(https?://[^\s{}]+\{trace_id\}[^\s{}]*)?$")] = ""
    """Where people look at traces, with `{trace_id}` in it; empty: a trace is told by its number alone."""
    console_idle_s: Seconds = 1800
    """A session ends when nobody used it for so long."""
    console_session_s: Seconds = 43_200
    """A session ends after this long, whoever uses it."""
    oidc_issuer: HttpUrlOrNone = ""
    """The identity provider's address; empty: local passwords alone."""
    oidc_client_id: str = ""
    oidc_client_secret: SecretStr = SecretStr("")
    oidc_api_audience: str = ""
    """The audience of bearer tokens for the API; empty: none are taken."""
    oidc_name_claim: str = "preferred_username"
    oidc_role_claim: str = "groups"
    oidc_roles: Annotated[str, Field(pattern=r"^(\s*[^=,]+=\s*(viewer|operator|approver|admin)\s*(,|$))*$")] = ""
    """Which values of the role claim are which role, such as `payments-admins=admin,payments-oncall=operator`; of
    several, the highest counts. Who has none is not let in."""
    oidc_tenant_claim: str = ""
    """The claim that names a person's tenant by id; empty: all are the system's and see every tenant."""
    db_statement_cache: Annotated[int, Field(ge=0)] = 256
    """0 behind a transaction pooler."""
    db_pool_size: Annotated[int, Field(ge=1, le=100)] = 8

    slow_query_s: Annotated[int | float, Field(ge=0)] = 0.5
    """A statement that takes longer is logged, without its values; 0: none is."""

    instance: str = ""
    """Stable name of this process in consumer groups; default: host and process id."""
    rails: str = "promptpay"
    """Comma-separated rails whose streams this core serves."""
    rail_shards: str = ""
    """Rails whose jobs are spread over several streams, such as `promptpay=4,sbp=2`; one each by default."""

    accept_batch: Annotated[int, Field(ge=1, le=1000)] = 500
    accept_in_flight: Annotated[int, Field(ge=1, le=16)] = 3
    """With two the process was idle a third of the time: both waited for the database, one for the other's accounts."""
    relay_batch: Annotated[int, Field(ge=1, le=5000)] = 1000
    relay_poll_s: Seconds = 1
    results_batch: Annotated[int, Field(ge=1, le=5000)] = 500
    results_claim_idle_s: Seconds = 15
    """After so long without a sign of life what a settler held is another's: handled by both, it counts once."""
    backlog_high: Annotated[int, Field(ge=1)] = 8000
    backlog_low: Annotated[int, Field(ge=0)] = 6000
    unread_high: Annotated[int, Field(ge=1)] = 1000
    """So many entries of a stream wait for adapters at most; the others in PostgreSQL, where tenants take turns."""
    stream_length_max: Annotated[int, Field(ge=1)] = 200_000
    redis_memory_max_bytes: Annotated[int, Field(ge=1)] = 2_000_000_000
    results_high: Annotated[int, Field(ge=1)] = 20_000
    healer_every_s: Seconds = 1
    sweeper_every_s: Seconds = 5
    sweeper_age_s: Seconds = 30
    """A job queued for longer than this is looked up in its stream."""
    janitor_every_s: Seconds = 30
    resolver_every_s: Seconds = 1
    observe_every_s: Seconds = 5
    """How often a resolver reads what waits, for /metrics."""
    balance_every_s: Seconds = 60
    """How often a resolver sums every ledger up: its debits equal its credits, or somebody is woken."""
    inquiry_first_s: Seconds = 5
    """The first inquiry after a doubt; each next one waits longer, up to inquiry_longest_s."""
    inquiry_longest_s: Seconds = 2700
    confirm_within_s: Seconds = 600
    review_within_s: Seconds = 86_400
    """How long an intent waits in REVIEW, held, before it expires."""
    purge_every_s: Annotated[int, Field(ge=0)] = 86_400
    """How often a resolver loses what need not be kept any longer (docs/retention.md); 0: never by itself."""
    keep: Annotated[str, Field(pattern=r"^([a-z_]+=[0-9]{1,5}( +|$))*$")] = ""
    """Other ages than the usual, in days: `evidence=2555 webhooks=60`."""
    voids_per_minute: Annotated[int, Field(ge=1)] = 600
    """Automatic voids stop, with an alert, above this rate."""
    break_approval_above_minor: Annotated[int, Field(ge=0)] = 100_000
    """A reconciliation break of more minor units than this is put right by two people."""
    recon_every_s: Seconds = 3600
    """How often the intents of the last two days are compared with the books, and new registers with both."""
    recon_round_s: Annotated[int, Field(ge=3600)] = 2_592_000
    """Within so long every older intent is compared again, a slice each time."""
    books_every_s: Seconds = 86_400
    """How often a resolver proves the whole ledger from its transfers; the first time soon after its start."""
    books_longest_s: Annotated[int, Field(ge=1)] = 1800
    """A proof that takes longer is given up, and tried again the next time."""
    register_file_max_bytes: Annotated[int, Field(ge=1)] = 268_435_456
    """The largest file of a register that is taken over the API or in the console; it waits on disk, not in memory."""
    register_days_back: Annotated[int, Field(ge=1, le=31)] = 3
    """For how many days that have ended a register is asked for, and compared when it comes."""
    register_edge_s: Seconds = 7200
    """What is booked this shortly before a day's end may be in the next day's register."""
    register_ready_after_s: Annotated[int | float, Field(ge=0)] = 1800
    """How long after a day's end its register is asked for."""
    redrive_approval_above: Annotated[int, Field(ge=0)] = 100
    """A redrive of more letters than this waits for a second person."""
    deliveries_max: Annotated[int, Field(ge=1)] = 3
    drain_s: Seconds = 20
    completer_every_s: Seconds = 5
    """After a start the completer walks through the recent past at once; then a page each time."""
    completer_page: Annotated[int, Field(ge=1, le=10_000)] = 1000
    completer_lookback_days: Annotated[int, Field(ge=1)] = 45
    completer_grace_s: Annotated[int, Field(ge=0)] = 60
    """What changed within this time is left to whoever is at it."""
    webhooks_to_private: bool = False
    """For a developer's machine: webhooks also by http and to addresses that are not of the public internet."""
    webhook_first_retry_s: Annotated[int, Field(ge=1)] = 5
    """Each wait is four times the one before, up to webhook_longest_retry_s: 14 attempts take four days."""
    webhook_longest_retry_s: Annotated[int, Field(ge=1)] = 43_200
    webhook_attempts_max: Annotated[int, Field(ge=1, le=100)] = 14
    webhook_call_s: Annotated[int, Field(ge=1, le=20)] = 15
    event_streams_max: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Open streams of events of one process; one more is refused."""
    event_stream_alive_s: Seconds = 15
    """A sign of life in a stream in which nothing happens."""
    event_stream_longest_s: Seconds = 900
    """A stream ends after this long, and its client signs anew: a revoked key follows no longer."""

    @field_validator("console_url")
    @classmethod
    def _has_no_path(cls, value: str) -> str:
        if urlsplit(value).path not in ("", "/"):
            raise ValueError("has a path: write the address alone, such as https://console.example.org")
        return value

    @field_validator("master_key")
    @classmethod
    def _is_32_bytes(cls, value: SecretStr) -> SecretStr:
        try:
            raw = base64.b64decode(value.get_secret_value(), validate=True)
        except binascii.Error as error:
            raise ValueError("is not base64: openssl rand -base64 32") from error
        if len(raw) != 32:
            raise ValueError("is not 32 bytes in base64: openssl rand -base64 32")
        return value

    @model_validator(mode="after")
    def _goes_on_below_where_it_stops(self) -> Self:
        if self.backlog_low >= self.backlog_high:
            raise ValueError(f"FLEET_BACKLOG_LOW has to be less than FLEET_BACKLOG_HIGH, which is {self.backlog_high}")
        return self

    @property
    def direct_url(self) -> str:
        """Return the URL for LISTEN, migrations and session locks."""
        return (self.database_direct_url or self.database_worker_url).get_secret_value()

    @field_validator("rails")
    @classmethod
    def _are_rails(cls, value: str) -> str:
        if not all(map(RAIL_PATTERN.fullmatch, _parts(value))):
            raise ValueError("names a rail that cannot be: separate them by commas, such as promptpay,sbp")
        return value

    @field_validator("rail_shards")
    @classmethod
    def _counts_shards(cls, value: str) -> str:
        shard_counts(value)
        return value

    @property
    def rail_parts(self) -> list[tuple[str, Part]]:
        """Return every part of every rail."""
        counts = shard_counts(self.rail_shards)
        return [(rail, part) for rail in self.rail_names for part in parts_of(counts.get(rail, 1))]

    @property
    def rail_names(self) -> tuple[str, ...]:
        """Return the rails as names."""
        return tuple(_parts(self.rails))


def shard_counts(text: str) -> dict[str, int]:
    """Return over how many streams each named rail is spread. Raises ValueError for what is no such list."""
    counts = {}
    for each in _parts(text):
        rail, _, count = each.partition("=")
        if not (count.isascii() and count.isdigit() and 1 <= int(count) <= SHARDS_MAX):
            raise ValueError(f"FLEET_RAIL_SHARDS takes rail=count, 1 to {SHARDS_MAX}: promptpay=4")
        counts[rail.strip()] = int(count)
    return counts


def _parts(text: str) -> list[str]:
    """Return what stands between the commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
