"""Takes a register that came as a file: its lines, and the file itself, sealed, in one transaction."""

import asyncio
import hashlib
import io
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import date
from itertools import islice
from typing import IO, Any, Final, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.register_files import RefusedLine, read_register
from core.domain.register_records import COLUMNS, Record
from core.domain.registers import SYSTEM_TENANT
from core.services.on_call.audit import Act
from core.services.problems import Refusal
from core.services.recon.registers import RegisterPorts, Registers, close_register
from core.services.vault_port import Vault
from schemas.register_mapping import RegisterMapping
from schemas.registers import RefusedLineView, RegisterClosed, RegisterOpened, RegisterReading

REFUSED_MAX: Final = 1000
"""How many wrong lines are told."""
_PIECE_BYTES: Final = 1 << 20
_BATCH: Final = 1_000
"""Lines that are read in a thread at once: requests beside it wait for no more than these."""
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


class Reading:
    """What a file says as a whole, and which of its lines are refused, while it is read."""

    def __init__(self, mapping: RegisterMapping) -> None:
        self._mapping = mapping
        self._lines = 0
        self._days = set[date]()
        self._sums = Counter[tuple[str, str]]()
        self.refused = list[RefusedLineView]()

    def add(self, lines: Iterable[Record | RefusedLine]) -> list[Record]:
        """Count lines; return those that are records."""
        records, sums, days = list[Record](), self._sums, self._days
        for each in lines:
            if not isinstance(each, RefusedLine):
                records.append(each)
                days.add(each[_AT].date())
                sums[each[_DIRECTION], each[_CURRENCY]] += each[_AMOUNT]
            elif len(self.refused) < REFUSED_MAX:
                self.refused.append(RefusedLineView(line=each.number, why=each.reason))
        self._lines += len(records)
        return records

    def view(self) -> RegisterReading:
        """Return what was read until now."""
        return RegisterReading(
            rail=self._mapping.rail,
            provider_account=self._mapping.provider_account,
            section=self._mapping.section,
            lines=self._lines,
            days=sorted(self._days),
            sums_minor={f"{direction.lower()}_{currency}": sum_ for (direction, currency), sum_ in self._sums.items()},
            refused=self.refused,
        )


def read_through(mapping: RegisterMapping, file: IO[bytes]) -> RegisterReading:
    """Return what a file says; nothing is kept, and the memory is a batch's. Raises FileRefusedError, UnicodeError."""
    reading, lines = Reading(mapping), lines_of(mapping, file)
    while batch := list(islice(lines, _BATCH)):
        reading.add(batch)
    return reading.view()


def lines_of(mapping: RegisterMapping, file: IO[bytes]) -> Iterator[Record | RefusedLine]:
    """Yield the lines of a file from its beginning. Raises FileRefusedError, UnicodeError."""
    file.seek(0)
    text = io.TextIOWrapper(file, mapping.encoding, newline="")
    try:
        yield from read_register(mapping, text)
    finally:
        text.detach()


def day_of(day: date | None, reading: RegisterReading) -> date:
    """Return the business day that a file is of. Raises Refusal `day_missing` where nobody said it and lines differ."""
    if day is not None:
        return day
    if len(reading.days) != 1:
        told = ", ".join(map(str, reading.days[:10])) or "no day"
        raise Refusal("day_missing", f"the lines speak of {told}: say which business day it is", field="business_day")
    return reading.days[0]


class _LinesRefusedError(Exception):
    """Lines of the file are wrong: what came of the others goes with the transaction."""


async def import_register(
    ports: ImportPorts,
    context: Context,
    mapping: RegisterMapping,
    day: date,
    name: str,
    file: IO[bytes],
    *,
    agrees: bool = False,
) -> RegisterReading:
    """Keep a file and its lines as the register of a day, or nothing where a line is refused.

    The file is read once for its lines and once for its bytes, and the memory is a piece's; the same file again is the
    same register. Of a day that was fetched it counts only once a second person, who `agrees`, brings it too: until
    then what is kept is SUPERSEDED. Raises FileRefusedError, UnicodeError.
    """
    reading = Reading(mapping)
    asked = RegisterOpened(
        provider_account=mapping.provider_account,
        environment=mapping.environment,
        business_day=day,
        section=mapping.section,
        name=name,
    )
    try:
        async with ports.unit_of_work(context) as uow:
            file_id = await ports.registers.open(uow, mapping.rail, asked, "IMPORTED")
            taken = await ports.registers.take(uow, file_id, _records(reading, lines_of(mapping, file)))
            _require_right(reading)
            closed = RegisterClosed(lines=taken, file_hash=await _keep_bytes(uow, ports, file_id, file))
            kept = await close_register(uow, ports, mapping.rail, file_id, closed, agrees=agrees)
    except _LinesRefusedError:
        return reading.view()
    return reading.view().model_copy(update={"kept": kept})


def _require_right(reading: Reading) -> None:
    if reading.refused:
        raise _LinesRefusedError


async def _keep_bytes(uow: Any, ports: ImportPorts, file_id: UUID, file: IO[bytes]) -> str:
    """Keep the file as it came, sealed in pieces; return its SHA-256."""
    digest, place = hashlib.sha256(), 0
    file.seek(0)
    while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
        digest.update(piece)
        packed = await asyncio.to_thread(zlib.compress, piece)
        await ports.registers.keep_piece(uow, ports.vault, file_id, place, packed)
        place += 1
    return digest.hexdigest()


async def _records(reading: Reading, lines: Iterator[Record | RefusedLine]) -> AsyncIterator[Record]:
    """Yield the records of a file, read in a thread some at a time; after a refused line none, but it is read on."""

    def some() -> Sequence[Record] | None:
        batch = list(islice(lines, _BATCH))
        return reading.add(batch) if batch else None

    while (records := await asyncio.to_thread(some)) is not None:
        if not reading.refused:
            for each in records:
                yield each


async def original_of(ports: ImportPorts, context: Context, file_id: UUID) -> bytes:
    """Return an imported file as it came; empty for a register that was fetched. Who took it is journalled."""
    async with ports.unit_of_work(context) as uow:
        pieces = await ports.registers.pieces(uow, ports.vault, file_id)
        if pieces:
            act = Act(SYSTEM_TENANT, context.actor, "register_original_read", f"register:{file_id}", {})
            await ports.journal.append(uow, [act])
    return b"".join(zlib.decompress(piece) for piece in pieces)
