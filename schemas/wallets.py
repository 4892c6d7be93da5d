"""Wallets beside their money: the states they are in, what changed them, and who owns them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from schemas.base import Contract

ExternalId = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")]


class EntrySign(StrEnum):
    """Whether an entry brought money or took it."""

    CREDIT = "credit"
    DEBIT = "debit"


class WalletStatus(StrEnum):
    """FROZEN gives nothing and takes what comes; CLOSED is final and does neither."""

    ACTIVE = "ACTIVE"
    FROZEN = "FROZEN"
    CLOSED = "CLOSED"


class WalletEventType(StrEnum):
    """What may happen to a wallet beside its money."""

    FROZEN = "frozen"
    UNFROZEN = "unfrozen"
    CLOSED = "closed"
    EXTERNAL_ID_SET = "external_id_set"


class WalletChangeRequest(Contract):
    """Why a wallet is frozen, unfrozen or closed."""

    reason: Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]


class ExternalIdRequest(Contract):
    """The client's own id of a wallet, unique in the tenant; null takes it away."""

    external_id: ExternalId | None
    reason: Annotated[str, Field(max_length=200)] = ""


class WalletBalanceAt(Contract):
    """What a wallet owned, what of it was held and what it could have given, in minor units, just before `at`."""

    wallet_id: UUID
    currency: str
    at: datetime
    posted_minor: int
    held_minor: int
    available_minor: int


class WalletEvent(Contract):
    """One change of a wallet: who, why, when."""

    seq: int
    type: WalletEventType
    actor: str
    reason: str
    data: dict[str, Any]
    at: datetime


class WalletEventList(Contract):
    """Every change of a wallet, oldest first."""

    items: list[WalletEvent]
