"""The rail's own settings; the prefix is BANK_."""

from datetime import date, time
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from adapters.bank.calendar import BankCalendar
from adapters.bank.pain001 import OwnAccount
from schemas.limits import known_timezone
from wire.environment import EnvironmentSettings, HttpUrl, LimitMinor


class BankSettings(EnvironmentSettings):
    """Where the bank is, which account is ours, and what the contract promises. Durations are seconds."""

    model_config = SettingsConfigDict(env_prefix="BANK_", extra="ignore", frozen=True)

    base_url: HttpUrl
    user: str = ""
    password: SecretStr = SecretStr("")
    provider: str = "bank"
    provider_account: str = "bank-1"
    environment: str = "sandbox"
    account_name: Annotated[str, Field(min_length=1, max_length=70)] = "psp-fleet"
    account: Annotated[str, Field(pattern=r"^([A-Z]{2}[0-9]{2}[A-Z0-9]{1,30}|[0-9]{10,15})$")]
    """Ours, as an IBAN or as the bank's own number."""
    bank_code: Annotated[str, Field(pattern=r"^[0-9]{3}$")] = "014"
    timezone: Annotated[str, AfterValidator(known_timezone)] = "Asia/Bangkok"
    cut_off: time = time(15, 30)
    holidays: frozenset[date] = frozenset()
    """Days without settlement beside weekends, as a JSON list of dates."""
    settlement_s: Annotated[float, Field(gt=0)] = 6 * 86_400
    """From a file to its entry on the statement, at the longest: a weekend, and holidays beside it."""
    resend_after_s: Annotated[float, Field(gt=0)] = 900
    """How long a file may stay unanswered before the same bytes are handed in again."""
    dedup_window_s: Annotated[float, Field(gt=0)] = 30 * 86_400
    """How long the bank knows a MsgId again."""
    max_amount_minor: LimitMinor = 200_000_000
    first_message: Annotated[int, Field(ge=1)] = 1
    """Where reading the bank's messages begins after a start."""
    watch_every_s: Annotated[float, Field(gt=0)] = 5
    """How often the mailbox is read without anybody asking."""
    deposit_lives_s: Annotated[float, Field(gt=0)] = 3 * 86_400
    """How long a deposit is expected after its reference was shown."""
    connect_s: Annotated[float, Field(gt=0)] = 2
    max_connections: Annotated[int, Field(ge=1)] = 20

    def calendar(self) -> BankCalendar:
        """Return when the bank works."""
        return BankCalendar(self.timezone, self.cut_off, self.holidays)

    def own_account(self) -> OwnAccount:
        """Return our account as files name it."""
        return OwnAccount(self.account_name, self.account, self.bank_code)
