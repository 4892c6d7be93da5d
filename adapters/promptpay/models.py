"""The payloads of IPPS (PPXC). No public documentation exists: the contract is a design, modelled on SCB's.

Amounts are decimal text of baht; references are ours; `status` counts, never the code beside it.
"""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Payload(BaseModel):
    """A provider's message: fields that we do not know are ignored, those that we need are checked."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TransferStatus(StrEnum):
    """Every status that the contract names."""

    LOOKED_UP = "LOOKED_UP"
    PROCESSING = "PROCESSING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    REFUNDED = "REFUNDED"


class LookupRequest(Payload):
    """Who is behind a proxy, and what would it cost?"""

    client_ref: str
    channel: str
    proxy_type: str
    proxy: str
    amount: str


class LookupAnswer(Payload):
    """The payee, masked, the fee, and until when a transfer may be bound to this."""

    lookup_id: str
    payee_name: str
    fee: str
    expires_at: datetime


class TransferRequest(Payload):
    """Pay what was looked up. `client_ref` is the idempotency key."""

    client_ref: str
    lookup_id: str
    amount: str


class TransferAnswer(Payload):
    """A transfer as the provider sees it. The status is text: one that we do not know must not break the reading."""

    client_ref: str
    status: str
    psp_txid: str | None = None
    amount: str | None = None
    reason: str = ""


class ErrorAnswer(Payload):
    """A refusal; `status` stands beside it where the reference already has one."""

    code: str
    message: str = ""
    status: str | None = None
