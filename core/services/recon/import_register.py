"""Takes a register that came as a file: its lines, and the file itself, sealed, in one transaction."""

import hashlib
import zlib
from collections import Counter
from collections.abc import AsyncIterable, Iterable
from datetime import date
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.register_files import RefusedLine
from core.domain.register_records import COLUMNS, Record
from core.domain.registers import SYSTEM_TENANT
from core.services.on_call.audit import Act
from core.services.problems import Refusal
from core.services.recon.registers import RegisterPorts, Registers, close_register
from core.services.vault_port import Vault
from schemas.register_mapping import RegisterMapping
from schemas.registers import RefusedLineView, RegisterClosed, RegisterFileView, RegisterOpened, RegisterReading

PIECE_BYTES: Final = 1 << 20
REFUSED_MAX: Final = 1000
"""How many wrong lines are told."""
_AMOUNT, _CURRENCY, _DIRECTION, _AT = map(COLUMNS.index, ("amount_minor", "currency", "direction", "at"))


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


def read_through(mapping: RegisterMapping, lines: Iterable[Record | RefusedLine]) -> RegisterReading:
    """Return what a file says as a whole, and which of its lines are refused; nothing is kept."""
    count, days, refused, sums = 0, set[date](), list[RefusedLineView](), Counter[str]()
    for each in lines:
        if isinstance(each, RefusedLine):
            if len(refused) < REFUSED_MAX:
                refused.append(RefusedLineView(line=each.number, why=each.reason))
            continue
        count += 1
        days.add(each[_AT].date())
        sums[f"{each[_DIRECTION].lower()}_{each[_CURRENCY]}"] += each[_AMOUNT]
    return RegisterReading(
        rail=mapping.rail,
        provider_account=mapping.provider_account,
        section=mapping.section,
        lines=count,
        days=sorted(days),
        sums_minor=dict(sums),
        refused=refused,
    )


def day_of(day: date | None, reading: RegisterReading) -> date:
    """Return the business day that a file is of. Raises Refusal `day_missing` where nobody said it and lines differ."""
    if day is not None:
        return day
    if len(reading.days) != 1:
        told = ", ".join(map(str, reading.days[:10])) or "no day"
        raise Refusal("day_missing", f"the lines speak of {told}: say which business day it is", field="business_day")
    return reading.days[0]


async def import_register(
    ports: ImportPorts,
    context: Context,
    mapping: RegisterMapping,
    day: date,
    name: str,
    records: Iterable[Record] | AsyncIterable[Record],
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
    """Return an imported file as it came; empty for a register that was fetched. Who took it is journalled."""
    async with ports.unit_of_work(context) as uow:
        pieces = await ports.registers.pieces(uow, ports.vault, file_id)
        if pieces:
            act = Act(SYSTEM_TENANT, context.actor, "register_original_read", f"register:{file_id}", {})
            await ports.journal.append(uow, [act])
    return b"".join(zlib.decompress(piece) for piece in pieces)
