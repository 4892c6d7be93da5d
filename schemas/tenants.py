"""Tenants: made at run time, unaware of each other."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field, field_validator

from schemas.base import Contract
from schemas.limits import known_timezone

TenantName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^\S(.*\S)?$")]


class ReturnsTo(StrEnum):
    """Where the money goes that a provider gives back of a settled payment."""

    WALLET = "WALLET"
    SUSPENSE = "SUSPENSE"


class TenantRequest(Contract):
    """A new tenant, with its first service key. The name is its own among all tenants."""

    name: TenantName
    business_timezone: Annotated[str, Field(max_length=64, pattern=r"^[A-Z][A-Za-z]+(/[A-Za-z0-9_+-]+)*$")] = "UTC"
    """Where the days and months of its limits and fees begin."""
    returns_to: ReturnsTo = ReturnsTo.WALLET
    operations: Annotated[tuple[str, ...], Field(min_length=1, max_length=40)] = ("*",)
    """What its first key carries; never TENANTS, which only an operator of the installation gives."""

    @field_validator("business_timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        return known_timezone(value)


class TenantView(Contract):
    """A tenant as it is stored."""

    id: UUID
    name: str
    business_timezone: str
    returns_to: ReturnsTo
    created_at: datetime
    created_by: str


class TenantMade(Contract):
    """A tenant that was just made. The secret of its key is shown this once."""

    tenant: TenantView
    key_id: str
    secret: str


class TenantList(Contract):
    """Every tenant, oldest first."""

    items: list[TenantView]
