"""A job that automation gave up on, on its way into PostgreSQL."""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from schemas.base import Contract

DEAD_LETTER_TYPE = "dead_letter"

UNKNOWN_VERSION = "unknown_version"
"""The error class of an entry that nobody could read yet: it is parked, and no delivery of it counts."""


class DeadLetter(Contract):
    """Why an entry was given up. The body is the entry's own, which carries a masked payee by contract."""

    job_id: UUID | None
    rail: str
    stream: str
    entry_id: Annotated[str, Field(pattern=r"^[0-9]{1,20}-[0-9]{1,20}$")]
    error_class: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,60}$")]
    """A closed code: `poison`, `permit_not_found`, `deliveries_exhausted`, `protocol_violation`, …"""
    fingerprint: Annotated[str, Field(pattern=r"^[!-~]{1,64}$")]
    """Equal for failures of one kind: a hash of class and normalised message."""
    message: Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")]
    """Any text that PostgreSQL can keep."""
    deliveries: Annotated[int, Field(ge=0, le=2**31 - 1)]
    body: str
