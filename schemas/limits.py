"""Limits: what may be paid, by whom, in which time, as it is set and shown. Amounts are integers of minor units."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Self
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from schemas.base import Contract, Flag
from schemas.jobs import CurrencyCode
from schemas.operations import OperationType

LimitName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Tier = Annotated[str, Field(max_length=32, pattern=r"^[A-Za-z0-9._-]*$")]
"""A tier of wallets, such as a KYC level; empty is that of wallets to which none was given."""
Count = Annotated[int, Field(strict=True, ge=0, le=10**9)]


class LimitKind(StrEnum):
    """Over what a limit counts; the order is the precedence in which refusals name them."""

    TRANSACTION = "TRANSACTION"
    MONTH = "MONTH"
    DAY = "DAY"
    QUOTA = "QUOTA"
    """Objects that exist at a time, such as wallets."""


class LimitSubject(StrEnum):
    """Whose payments are counted together."""

    WALLET = "WALLET"
    OWNER = "OWNER"
    TENANT = "TENANT"


class QuotaObject(StrEnum):
    """What a quota counts."""

    WALLETS = "WALLETS"
    KEYS = "KEYS"
    """Service keys that are not revoked."""
    WEBHOOK_ENDPOINTS = "WEBHOOK_ENDPOINTS"
    """Those that are not deleted."""
    FEE_RULES = "FEE_RULES"
    """By name, those that are enabled."""
    LIMITS = "LIMITS"
    """By name, those that are enabled; quotas, and this one, are limits too."""
    ROUTES = "ROUTES"
    """Versions that are enabled and have not ended."""


_OF_THE_HOST: Final = frozenset({"localtime", "posixrules"})
"""What these files say depends on the host that reads them: a day of theirs may end at two moments."""


def known_timezone(name: str) -> str:
    """Return the name. Raises ValueError where no calendar knows it, or every host has another under it."""
    told = "no such timezone: use a name of the IANA database, such as Asia/Bangkok"
    if name in _OF_THE_HOST:
        raise ValueError(told)
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(told) from error
    return name


class LimitRequest(Contract):
    """A limit; setting one of a name that exists adds a version, and what was counted stays counted."""

    name: LimitName
    kind: LimitKind
    subject: LimitSubject = LimitSubject.WALLET
    currency: CurrencyCode | None = None
    """Of the payments that it counts; left out for a quota alone."""
    operation: OperationType | None = None
    """Left out: every operation of clients, but no refund and no manual adjustment."""
    tier: Tier | None = None
    """Left out: wallets of every tier."""
    max_amount_minor: Annotated[int, Field(strict=True, ge=0, le=10**15)] | None = None
    max_count: Count | None = None
    object: QuotaObject | None = None
    timezone: Annotated[str, Field(max_length=64)] | None = None
    """Where days and months begin. Left out: where those of the limit's earlier versions did; of a new one, the zone
    of the rails that carry its operation where they agree, else the tenant's."""
    refund_gives_back: Flag = False
    """Whether what is refunded may be paid again in the same period."""

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str | None) -> str | None:
        return None if name is None else known_timezone(name)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.kind is LimitKind.QUOTA:
            self._check_quota()
        elif self.object is not None:
            raise ValueError("only a QUOTA names an object")
        elif self.currency is None:
            raise ValueError("name the currency that is counted")
        elif self.max_amount_minor is None and self.max_count is None:
            raise ValueError("give max_amount_minor, max_count, or both")
        elif self.kind is LimitKind.TRANSACTION and (self.max_count is not None or self.max_amount_minor is None):
            raise ValueError("a limit per TRANSACTION has max_amount_minor alone")
        return self

    def _check_quota(self) -> None:
        if self.object is None or self.max_count is None:
            raise ValueError("a QUOTA names its object and max_count")
        foreign = (self.currency, self.operation, self.tier, self.max_amount_minor, self.timezone)
        if any(each is not None for each in foreign) or self.subject is not LimitSubject.TENANT:
            raise ValueError("a QUOTA has subject TENANT, object and max_count, and nothing of payments")


class LimitView(Contract):
    """One version of a limit; `limit` is the request that made it."""

    id: UUID
    version: int
    name: str
    enabled: bool
    created_at: datetime
    created_by: str
    timezone: str | None
    """Where its days and months begin, decided when it was first set; None of a quota."""
    limit: dict[str, Any]


class LimitList(Contract):
    """Limits, or versions of one."""

    items: list[LimitView]


class WalletLimitView(Contract):
    """A limit as it stands for one wallet now; what is left is None where that is not limited."""

    id: UUID
    version: int
    name: str
    kind: LimitKind
    subject: LimitSubject
    operation: OperationType | None
    max_amount_minor: int | None
    max_count: int | None
    used_minor: int
    held_minor: int
    left_minor: int | None
    used_count: int
    held_count: int
    left_count: int | None
    renews_at: datetime | None
    """When the period ends; None for a limit per transaction."""
    timezone: str
    """Where days and months of the limit begin."""


class WalletLimits(Contract):
    """Every limit of payments that is in force for a wallet."""

    wallet_id: UUID
    tier: str
    items: list[WalletLimitView]


class TierRequest(Contract):
    """The tier that a wallet gets."""

    tier: Tier


class LimitExceeded(Contract):
    """Which limit stood in the way, what was left of it, and when it renews."""

    limit_id: UUID
    limit: str
    remaining_minor: int | None = None
    remaining_count: int | None = None
    renews_at: datetime | None = None
