"""Messages of a bank, as the core keeps them for adapters, which keep nothing."""

from enum import StrEnum
from typing import Annotated

from pydantic import Base64Bytes, Field

from schemas.base import Contract

_Name = Annotated[str, Field(min_length=1, max_length=64)]
_Number = Annotated[int, Field(strict=True, ge=1, le=2**63 - 1)]


class MessageToKeep(Contract):
    """The body of `POST /internal/v1/messages`: one message, under the number that the bank gave it."""

    provider_account: _Name
    environment: _Name
    number: _Number
    body: Base64Bytes


class MessageFate(StrEnum):
    """What became of a message that was to be kept."""

    STORED = "STORED"
    SAME = "SAME"
    """The very same is kept under its number already."""
    OTHER = "OTHER"
    """Another was kept under its number: the bank numbers anew, and what was kept of the account counts no more."""


class MessageStored(Contract):
    """The answer: `stored` is false where the very same was kept before."""

    stored: bool
    fate: MessageFate = MessageFate.STORED
    """Left out by a core that compares nothing."""


class MessagesAsked(Contract):
    """The body of `POST /internal/v1/messages/kept`: what is kept from this number on?"""

    provider_account: _Name
    environment: _Name
    first: _Number


class KeptMessage(Contract):
    """One message."""

    number: int
    body: Base64Bytes


class MessagesKept(Contract):
    """The answer: the first of them, in the order of their numbers; none where there are no more."""

    items: list[KeptMessage]
