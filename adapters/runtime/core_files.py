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
    ReferenceBuried,
    ReferenceToBury,
)


@dataclass(frozen=True, slots=True)
class CoreFiles:
    """Speaks to the core. Every method raises CoreUnavailableError or CoreRefusedError."""

    core: CoreClient

    async def place(self, file_id: UUID, message_id: str, body: bytes, members: Sequence[FileMember]) -> bool:
        """Store a file; False, and nothing stored, where one of its members is in a live file or buried."""
        asked = FileToStore(id=file_id, message_id=message_id, body=body.decode(), members=list(members))
        answer = await self.core.ask("/internal/v1/files", asked.model_dump_json().encode())
        return FileStored.model_validate_json(answer).stored

    async def holding(self, references: Sequence[str]) -> Mapping[str, FileHeld]:
        """Return the live file of each reference that is in one."""
        asked = FilesAsked(references=list(references))
        answer = await self.core.ask("/internal/v1/files/holding", asked.model_dump_json().encode())
        return {each.reference: each for each in FilesHolding.model_validate_json(answer).files}

    async def bury(self, job_id: UUID, reference: str) -> bool:
        """See to it that no file ever holds a reference; False where one does."""
        asked = ReferenceToBury(job_id=job_id, reference=reference)
        answer = await self.core.ask("/internal/v1/files/bury", asked.model_dump_json().encode())
        return ReferenceBuried.model_validate_json(answer).buried

    async def again(self, file_id: UUID) -> bytes | None:
        """Return the bytes to hand in again; None where a member was decided against, or the file was given up."""
        answer = await self.core.ask(f"/internal/v1/files/{file_id}/again", b"{}")
        body = FileAgain.model_validate_json(answer).body
        return None if body is None else body.encode()

    async def give_up(self, file_id: UUID) -> bool:
        """Let the members go: the file never left. False where it was handed in again meanwhile."""
        answer = await self.core.ask(f"/internal/v1/files/{file_id}/give-up", b"{}")
        return FileGivenUp.model_validate_json(answer).given_up

    async def close(self) -> None:
        """Let go of the connections to the core."""
        await self.core.close()
