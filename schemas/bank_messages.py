"""Messages of a bank, as the core keeps them for adapters, which keep nothing."""

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


class MessageStored(Contract):
    """The answer: false where one of this number is kept already."""

    stored: bool


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
