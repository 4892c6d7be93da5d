"""Where the files that pay live before their first byte leaves: with the core, since an adapter keeps nothing.

The rules that this port keeps, whoever calls it and however often:

- a reference is in one live file at most, so that no payment is in two; one that is buried is in none, ever;
- a file's bytes never change: handing it in again is the same bytes under the same MsgId;
- a file gives its members up only while it is proven that it never left.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

from schemas.files import FileHeld, FileMember


class Files(Protocol):
    """Raises CoreUnavailableError or CoreRefusedError; nothing was learned then."""

    async def place(self, file_id: UUID, message_id: str, body: bytes, members: Sequence[FileMember]) -> bool:
        """Store a file; False, and nothing stored, where one of its members is in a live file or buried."""
        ...

    async def holding(self, references: Sequence[str]) -> Mapping[str, FileHeld]:
        """Return the live file of each reference that is in one."""
        ...

    async def bury(self, job_id: UUID, reference: str) -> bool:
        """See to it that no file ever holds a reference; False where one does."""
        ...

    async def again(self, file_id: UUID) -> bytes | None:
        """Return the bytes to hand in again; None where a member of it was decided against, or it was given up."""
        ...

    async def give_up(self, file_id: UUID) -> bool:
        """Let the members go: the file never left. False where it was handed in again meanwhile."""
        ...

    async def close(self) -> None:
        """Let go of the connections."""
        ...
