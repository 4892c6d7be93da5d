"""Files that pay: what an adapter stores with the core before the first byte of a file leaves."""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from schemas.base import Contract

Reference = Annotated[str, Field(min_length=1, max_length=40)]
FILE_MEMBERS_MAX = 1_000


class FileMember(Contract):
    """One payment of a file: its job and the reference that the file names it by."""

    job_id: UUID
    reference: Reference


class FileToStore(Contract):
    """The body of `POST /internal/v1/files`. Its bytes and its members never change."""

    id: UUID
    message_id: Annotated[str, Field(pattern=r"^[A-Z0-9-]{1,35}$")]
    body: Annotated[str, Field(min_length=1, max_length=3_000_000)]
    members: Annotated[list[FileMember], Field(min_length=1, max_length=FILE_MEMBERS_MAX)]


class FileStored(Contract):
    """The answer: false, and nothing stored, where a member is in a live file already or is buried."""

    stored: bool


class FilesAsked(Contract):
    """The body of `POST /internal/v1/files/holding`: in which live file is each of these references?"""

    references: Annotated[list[Reference], Field(min_length=1, max_length=FILE_MEMBERS_MAX)]


class FileHeld(Contract):
    """A live file and the reference that it was asked by; `age_s` is seconds since it was stored."""

    reference: str
    id: UUID
    message_id: str
    age_s: float
    job_id: UUID
    buried: bool = False
    """No file: the reference was buried, and is never paid."""


class FilesHolding(Contract):
    """The answer; a reference that is in no live file is absent."""

    files: list[FileHeld]


class ReferenceToBury(Contract):
    """The body of `POST /internal/v1/files/bury`; the job is the one that asks for it."""

    job_id: UUID
    reference: Reference


class ReferenceBuried(Contract):
    """The answer: false where the reference is in a live file, which may have left."""

    buried: bool


class FileAgain(Contract):
    """The answer of `POST /internal/v1/files/{id}/again`: the bytes, or none where it may not be handed in again."""

    body: str | None


class FileGivenUp(Contract):
    """The answer of `POST /internal/v1/files/{id}/give-up`: false where it may have left."""

    given_up: bool
