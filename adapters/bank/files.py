"""Where the files that pay live before their first byte leaves: with the core, since an adapter keeps nothing.

The rules that this port keeps, whoever calls it and however often:

- a reference is in one live file at most, so that no payment is in two;
- a file's bytes never change: handing it in again is the same bytes under the same MsgId;
- a file gives its members up only while it is proven that it never left.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

from schemas.files import FileHeld, FileMember


class Files(Protocol):
    """Raises CoreUnavailableError or CoreRefusedError; nothing was learned then."""

    async def place(self, message_id: str, body: bytes, members: Sequence[FileMember]) -> UUID | None:
        """Store a file; None, and nothing stored, where one of its members is in a live file already."""
        ...

    async def holding(self, references: Sequence[str]) -> Mapping[str, FileHeld]:
        """Return the live file of each reference that is in one."""
        ...

    async def again(self, file_id: UUID) -> bytes | None:
        """Return the bytes to hand in again; None where a member of it was decided against, or it was given up."""
        ...

    async def give_up(self, file_id: UUID) -> bool:
        """Let the members go: the file never left. False where it was handed in again meanwhile."""
        ...
