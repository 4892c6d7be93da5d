"""Files that pay, in memory, under the rules that the core's tables keep: for a rail's tests without a core."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from schemas.files import FileHeld, FileMember
from schemas.ids import mint_id


@dataclass(slots=True)
class KeptFile:
    """A file as the core keeps it."""

    id: UUID
    message_id: str
    body: bytes
    members: Sequence[FileMember]
    live: bool = True
    resends: int = 0
    age_s: float = 0


@dataclass(slots=True)
class FilesInMemory:
    """The port of files under the rules that the core's tables keep; the tables have tests of their own."""

    files: dict[UUID, KeptFile] = field(default_factory=dict)

    async def place(self, file_id: UUID, message_id: str, body: bytes, members: Sequence[FileMember]) -> bool:
        """Store a file; False where a member is in a live one, or is buried."""
        if await self.holding([each.reference for each in members]):
            return False
        self.files[file_id] = KeptFile(file_id, message_id, body, members)
        return True

    async def holding(self, references: Sequence[str]) -> Mapping[str, FileHeld]:
        """Return the live file of each reference."""
        return {
            member.reference: FileHeld(
                reference=member.reference,
                id=file.id,
                message_id=file.message_id,
                age_s=file.age_s,
                job_id=member.job_id,
                buried=not file.body,
            )
            for file in self.files.values()
            for member in file.members
            if file.live and member.reference in references
        }

    async def bury(self, job_id: UUID, reference: str) -> bool:
        """Take the place of a live file; False where there is one."""
        held = (await self.holding([reference])).get(reference)
        if held is not None:
            return held.buried
        await self.place(
            mint_id(time.time_ns() // 1_000_000), "", b"", [FileMember(job_id=job_id, reference=reference)]
        )
        return True

    async def again(self, file_id: UUID) -> bytes | None:
        """Return the bytes of a live file and count it."""
        file = self.files[file_id]
        file.resends += file.live
        return file.body if file.live else None

    async def give_up(self, file_id: UUID) -> bool:
        """Free the members of a file that nobody handed in again."""
        file = self.files[file_id]
        file.live = file.live and file.resends > 0
        return not file.live

    async def close(self) -> None:
        """Nothing is open."""
