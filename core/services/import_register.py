"""Takes a register that came as a file: its lines, and the file itself, sealed, in one transaction."""

import hashlib
import zlib
from collections.abc import Iterable
from datetime import date
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.register_files import RegisterMapping
from core.services.registers import RegisterPorts, Registers, close_register
from core.services.vault_port import Vault
from schemas.registers import RegisterClosed, RegisterFileView, RegisterOpened

PIECE_BYTES: Final = 1 << 20


class KeepsPieces(Registers, Protocol):
    """Where the bytes of files are kept beside their lines."""

    async def keep_piece(self, uow: Any, vault: Vault, file_id: UUID, place: int, piece: bytes) -> None: ...
    async def pieces(self, uow: Any, vault: Vault, file_id: UUID) -> list[bytes]: ...


class ImportPorts(RegisterPorts, Protocol):
    """What an import works with, under the worker role."""

    @property
    def registers(self) -> KeepsPieces: ...
    @property
    def vault(self) -> Vault: ...


async def import_register(
    ports: ImportPorts,
    context: Context,
    mapping: RegisterMapping,
    day: date,
    name: str,
    records: Iterable[tuple[Any, ...]],
    pieces: Iterable[bytes],
) -> RegisterFileView:
    """Keep a file and its lines as the register of a day; the same file again is the same register.

    `records` are its lines as the store takes them, `pieces` its bytes, at most PIECE_BYTES each; both are read once,
    and the memory is a piece's.
    """
    digest = hashlib.sha256()
    async with ports.unit_of_work(context) as uow:
        asked = RegisterOpened(
            provider_account=mapping.provider_account,
            environment=mapping.environment,
            business_day=day,
            section=mapping.section,
            name=name,
        )
        file_id = await ports.registers.open(uow, mapping.rail, asked, "IMPORTED")
        taken = await ports.registers.take(uow, file_id, records)
        for place, piece in enumerate(pieces):
            digest.update(piece)
            await ports.registers.keep_piece(uow, ports.vault, file_id, place, zlib.compress(piece))
        closed = RegisterClosed(lines=taken, file_hash=digest.hexdigest())
        return await close_register(uow, ports, mapping.rail, file_id, closed)


async def original_of(ports: ImportPorts, context: Context, file_id: UUID) -> bytes:
    """Return an imported file as it came; empty for a register that was fetched."""
    async with ports.unit_of_work(context) as uow:
        return b"".join(zlib.decompress(piece) for piece in await ports.registers.pieces(uow, ports.vault, file_id))
