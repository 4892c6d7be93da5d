"""Files that pay, as the core keeps them for an adapter: stored before a byte leaves, handed in unchanged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from adapters.runtime.core_client import CoreClient
from schemas.files import (
    FileAgain,
    FileGivenUp,
    FileHeld,
    FileMember,
    FilesAsked,
    FilesHolding,
    FileStored,
    FileToStore,
)


@dataclass(frozen=True, slots=True)
class CoreFiles:
    """Speaks to the core. Every method raises CoreUnavailableError or CoreRefusedError."""

    core: CoreClient

    async def place(self, message_id: str, body: bytes, members: Sequence[FileMember]) -> UUID | None:
        """Store a file; None, and nothing stored, where one of its members is in a live file already."""
        asked = FileToStore(message_id=message_id, body=body.decode(), members=list(members))
        answer = await self.core.ask("/internal/v1/files", asked.model_dump_json().encode())
        return FileStored.model_validate_json(answer).id

    async def holding(self, references: Sequence[str]) -> Mapping[str, FileHeld]:
        """Return the live file of each reference that is in one."""
        asked = FilesAsked(references=list(references))
        answer = await self.core.ask("/internal/v1/files/holding", asked.model_dump_json().encode())
        return {each.reference: each for each in FilesHolding.model_validate_json(answer).files}

    async def again(self, file_id: UUID) -> bytes | None:
        """Return the bytes to hand in again; None where a member was decided against, or the file was given up."""
        answer = await self.core.ask(f"/internal/v1/files/{file_id}/again", b"{}")
        body = FileAgain.model_validate_json(answer).body
        return None if body is None else body.encode()

    async def give_up(self, file_id: UUID) -> bool:
        """Let the members go: the file never left. False where it was handed in again meanwhile."""
        answer = await self.core.ask(f"/internal/v1/files/{file_id}/give-up", b"{}")
        return FileGivenUp.model_validate_json(answer).given_up
