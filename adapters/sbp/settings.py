"""The rail's own settings; the prefix is SBP_."""

from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from wire.environment import EnvironmentSettings, HttpUrl, LimitMinor


class SbpSettings(EnvironmentSettings):
    """Where QP is, who we are there, and what the contract promises. Durations are seconds."""

    model_config = SettingsConfigDict(env_prefix="SBP_", extra="ignore", frozen=True)

    base_url: HttpUrl
    secret: SecretStr
    """The API's key; callbacks are signed with it too."""
    account: str = "40700000000000000000"
    """Our account at the provider that payouts are taken from."""
    provider_account: str = "qp-1"
    environment: str = "sandbox"
    two_stage: bool = False
    """Whether the contract has payouts made as drafts that are confirmed: nothing is paid between the two."""
    settlement_s: Annotated[float, Field(gt=0)] = 60
    """The contract's latest settlement after acceptance, clock skew included: H = I + this."""
    dedup_window_s: Annotated[float, Field(gt=0)] = 86_400
    max_amount_minor: LimitMinor = 100_000_000
    """1,000,000 RUB an operation, as cbr.ru says; providers set lower ones."""
    banks_fresh_s: Annotated[float, Field(gt=0)] = 3_600
    """How old the list of banks may get before it is asked for again."""
    banks_retry_s: Annotated[float, Field(gt=0)] = 10
    """How soon the list is asked for again where that failed, or where it lacks a bank."""
    qr_lives_s: Annotated[float, Field(gt=0)] = 900
    """How long a payer may take with the code of a top-up."""
    static_qr_lives_s: Annotated[float, Field(gt=0)] = 86_400
    """How long a deposit waits for its first payment; what comes by its code later rests in suspense."""
    connect_s: Annotated[float, Field(gt=0)] = 2
    max_connections: Annotated[int, Field(ge=1)] = 200
