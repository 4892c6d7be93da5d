"""What every adapter is told by its environment. A rail's own settings have a prefix of their own."""

import socket
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from adapters.runtime.breaker import BreakerSettings
from adapters.runtime.rate import RateSettings
from schemas.rails import Timing
from schemas.streams import SHARDS_MAX, Part, parts_of
from wire.environment import EnvironmentSettings, HttpUrl, RedisUrl, SettingsError


def networks_of(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return the networks in a list with commas. Raises ValueError."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


class RuntimeSettings(EnvironmentSettings):
    """The environment of one adapter process; durations are seconds."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True)

    redis_url: RedisUrl = Field(alias="REDIS_URL")
    core_internal_url: HttpUrl = Field(alias="CORE_INTERNAL_URL")
    core_key_id: str = Field(alias="CORE_KEY_ID")
    core_key_secret: SecretStr = Field(alias="CORE_KEY_SECRET")
    consumer_name: str = Field(default_factory=socket.gethostname, alias="CONSUMER_NAME")
    """Stable over restarts and unique among the rail's adapters: the host or the pod."""
    shards: int = Field(1, ge=1, le=SHARDS_MAX, alias="FLEET_SHARDS")
    """Into how many parts the core spreads the rail's jobs (its FLEET_RAIL_SHARDS)."""
    read_shards: str = Field("", pattern=r"^( *[0-9]* *(,|$))*$", alias="FLEET_READ_SHARDS")
    """Which parts this instance reads, such as `0,2`; empty for all."""
    send_by_s: float = Field(5.0, gt=0, alias="FLEET_SEND_BY_S")
    call_total_s: float = Field(10.0, gt=0, alias="FLEET_CALL_TOTAL_S")
    claim_idle_s: float = Field(60.0, gt=0, alias="FLEET_CLAIM_IDLE_S")
    batch: int = Field(200, gt=0, alias="FLEET_BATCH")
    concurrency: int = Field(100, gt=0, alias="FLEET_CONCURRENCY")
    control_concurrency: int = Field(20, gt=0, alias="FLEET_CONTROL_CONCURRENCY")
    least_concurrency: int = Field(4, gt=0, alias="FLEET_LEAST_CONCURRENCY")
    """Under strain fewer calls run at once, down to this many."""
    rate_per_s: float = Field(0.0, ge=0, alias="FLEET_RATE_PER_S")
    """Calls a second that the provider allows, of all instances together; 0 is no limit."""
    rate_burst: int = Field(10, ge=1, alias="FLEET_RATE_BURST")
    breaker_window_s: float = Field(10.0, gt=0, alias="FLEET_BREAKER_WINDOW_S")
    breaker_least_calls: int = Field(10, ge=1, alias="FLEET_BREAKER_LEAST_CALLS")
    breaker_failed_percent: int = Field(50, ge=1, le=100, alias="FLEET_BREAKER_FAILED_PERCENT")
    breaker_open_s: float = Field(2.0, gt=0, alias="FLEET_BREAKER_OPEN_S")
    breaker_open_most_s: float = Field(60.0, gt=0, alias="FLEET_BREAKER_OPEN_MOST_S")
    drain_s: float = Field(20.0, gt=0, alias="FLEET_DRAIN_S")
    evidence_waiting_most: int = Field(5_000, gt=0, alias="FLEET_EVIDENCE_WAITING_MOST")
    """So many pieces of evidence wait for a core that does not take them; what comes then is given up and counted."""
    health_port: int = Field(0, ge=0, alias="FLEET_HEALTH_PORT")
    """0 turns the health and metrics listener off."""
    health_host: str = Field("127.0.0.1", alias="FLEET_HEALTH_HOST")
    registers_every_s: float = Field(60, gt=0, alias="FLEET_REGISTERS_EVERY_S")
    """How often the core is asked which registers of the provider it wants."""
    callback_port: int = Field(0, ge=0, alias="FLEET_CALLBACK_PORT")
    """Where the provider calls back; 0 turns that listener off."""
    callback_host: str = Field("127.0.0.1", alias="FLEET_CALLBACK_HOST")
    callback_allowed: str = Field("", alias="FLEET_CALLBACK_ALLOWED")
    """Networks that callbacks may come from, such as `203.0.113.0/24,2001:db8::/32`; empty for everywhere."""
    callback_proxies: str = Field("", alias="FLEET_CALLBACK_PROXIES")
    """Networks of reverse proxies whose X-Forwarded-For is believed; empty for none."""
    callback_window_s: int = Field(300, gt=0, alias="FLEET_CALLBACK_WINDOW_S")
    callback_max_body_bytes: int = Field(64 * 1024, gt=0, le=1024 * 1024, alias="FLEET_CALLBACK_MAX_BODY_BYTES")

    @field_validator("callback_allowed", "callback_proxies")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        networks_of(value)
        return value

    @model_validator(mode="after")
    def _reads_parts(self) -> Self:
        if not self.parts:
            raise ValueError("FLEET_READ_SHARDS names no part below FLEET_SHARDS")
        return self

    @property
    def parts(self) -> list[Part]:
        """Return the parts that this instance reads."""
        wanted = {int(each) for each in self.read_shards.split(",") if each.strip()}
        return [part for part in parts_of(self.shards) if not wanted or part.number in wanted]

    def enough_for_calls(self, variable: str, connections: int) -> int:
        """Return how many connections a rail has whose every call takes one.

        Raises SettingsError where they are fewer than the calls that run at once: one that gets none within the time
        for a connection counts as a provider that cannot be reached, and the breaker opens.
        """
        calls = self.concurrency + self.control_concurrency
        if connections < calls:
            raise SettingsError(
                f"{variable} is {connections}, and {calls} calls run at once (FLEET_CONCURRENCY and"
                f" FLEET_CONTROL_CONCURRENCY together): raise it to {calls}, or lower those"
            )
        return connections

    def timing(self) -> Timing:
        """Return the timing that the rail's registration declares."""
        return Timing(send_by_s=self.send_by_s, call_total_s=self.call_total_s, claim_idle_s=self.claim_idle_s)

    def breaker(self) -> BreakerSettings:
        """Return when calls of an operation stop being begun."""
        return BreakerSettings(
            window_s=self.breaker_window_s,
            least_calls=self.breaker_least_calls,
            failed_percent=self.breaker_failed_percent,
            open_s=self.breaker_open_s,
            open_most_s=self.breaker_open_most_s,
        )

    def rate(self) -> RateSettings:
        """Return how often the provider may be called."""
        return RateSettings(self.rate_per_s, self.rate_burst)
