"""The rail's own settings; the prefix is PROMPTPAY_."""

from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from wire.environment import EnvironmentSettings, HttpUrl, LimitMinor


class PromptPaySettings(EnvironmentSettings):
    """Where IPPS is, who we are there, and what the contract promises. Durations are seconds."""

    model_config = SettingsConfigDict(env_prefix="PROMPTPAY_", extra="ignore", frozen=True)

    base_url: HttpUrl
    key_id: str = "sandbox"
    secret: SecretStr
    provider_account: str = "ipps-1"
    environment: str = "sandbox"
    settlement_s: Annotated[float, Field(gt=0)] = 60
    """The contract's latest settlement after acceptance, clock skew included: H = S + T_psp + I's rest + this."""
    dedup_window_s: Annotated[float, Field(gt=0)] = 86_400
    max_amount_minor: LimitMinor = 200_000_000
    """2,000,000 THB, as SCB documents; it differs by provider."""
    qr_lives_s: Annotated[float, Field(gt=0)] = 600
    """How long a payer may take for a code: ten minutes, as KBank documents."""
    static_qr_lives_s: Annotated[float, Field(gt=0)] = 86_400
    """How long the first payment of a static code is waited for; the code itself never ends."""
    qr_max_amount_minor: LimitMinor = 70_000_000
    """700,000 THB; it differs by provider."""
    connect_s: Annotated[float, Field(gt=0)] = 2
    max_connections: Annotated[int, Field(ge=1)] = 200
