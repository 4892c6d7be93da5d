"""What people on call do with registers and comparisons: look, bring a file, ask for one, compare now, report.

A register speaks of every tenant of a provider account, and so does whatever is made of it: the system's own keys and
people alone work with it. Breaks are each tenant's own, and are in `core.services.recon.recon`.
"""

import asyncio
import base64
import binascii
import io
from datetime import UTC, date, datetime, timedelta
from typing import IO, Final, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.register_files import FileRefusedError
from core.domain.registers import SYSTEM_TENANT
from core.services.access.keys import RECONCILIATION_SCOPE, REDRIVE_APPROVAL_SCOPE, Caller
from core.services.cursors import decode_cursor, encode_cursor, id_of
from core.services.on_call.audit import Act
from core.services.on_call.redrives import background_context, reach
from core.services.problems import Refusal
from core.services.recon.import_register import (
    ImportPorts,
    day_of,
    import_register,
    original_of,
    read_through,
)
from core.services.recon.recon import ReconPorts, after_of, reconcile_intents, reconcile_ledger
from core.services.recon.recon_report import report_of, week_days
from core.services.recon.registers import DayBusyError, RegisterPorts, accounts_of_rail, compare_day, require_known
from schemas.recon import BooksCompared, ReconReport
from schemas.recon_report import ReconPeriod
from schemas.register_mapping import RegisterImport, RegisterMapping
from schemas.registers import (
    RegisterFileList,
    RegisterFileShown,
    RegisterReading,
    RegisterRun,
    RegisterRunList,
    RegisterRunView,
)

_DAYS_MOST: Final = 92


class DeskPorts(ImportPorts, ReconPorts, Protocol):
    """What the desk works with, under the worker role."""


def require_everywhere(caller: Caller) -> Context:
    """Return the context of whoever may see registers. Raises Refusal `operation_not_permitted`."""
    caller.require_operation(RECONCILIATION_SCOPE)
    if reach(caller) is not None:
        text = "registers speak of every tenant: the system's own keys and people work with them"
        raise Refusal("operation_not_permitted", text, field="operation")
    return background_context(caller)


async def list_registers(
    ports: RegisterPorts,
    caller: Caller,
    *,
    rail: str | None = None,
    day: date | None = None,
    cursor: str | None = None,
    limit: int = 100,
) -> RegisterFileList:
    """Return a page of the registers that came, the newest first, and which have not come. Raises Refusal."""
    context = require_everywhere(caller)
    before = None if cursor is None else id_of(decode_cursor(cursor, 1)[0])
    async with ports.unit_of_work(context) as uow:
        await require_known(uow, ports.registers, rail)
        found = await ports.registers.files(uow, rail, day, limit + 1, before)
        awaited = await ports.registers.awaited(uow, rail, day)
    following = encode_cursor(str(found[limit - 1].id)) if len(found) > limit else None
    return RegisterFileList(items=found[:limit], next_cursor=following, awaited=awaited)


async def show_register(ports: RegisterPorts, caller: Caller, file_id: UUID) -> RegisterFileShown:
    """Return one register with what is in it. Raises Refusal: operation_not_permitted, not_found."""
    context = require_everywhere(caller)
    async with ports.unit_of_work(context) as uow:
        found = await ports.registers.find(uow, file_id)
        if found is None:
            raise Refusal("not_found", "there is no such register")
        return RegisterFileShown(register_file=found, counts=await ports.registers.counts(uow, file_id))


async def original_for(ports: ImportPorts, caller: Caller, file_id: UUID) -> bytes:
    """Return an imported file as it came, and journal who took it. Raises Refusal `not_found`, also where it was
    fetched and there is no file.
    """
    content = await original_of(ports, require_everywhere(caller), file_id)
    if not content:
        raise Refusal("not_found", "no imported register has this id; what was fetched has no file")
    return content


async def take_file(ports: ImportPorts, caller: Caller, asked: RegisterImport) -> RegisterReading:
    """Take the file in a body as `take_upload` does, with its refusals."""
    try:
        file = io.BytesIO(base64.b64decode(asked.content, validate=True))
    except binascii.Error as error:
        raise Refusal("file_refused", str(error)[:300], field="content") from error
    return await take_upload(ports, caller, asked.mapping, file, asked.name, asked.business_day, apply=asked.apply)


async def take_upload(
    ports: ImportPorts,
    caller: Caller,
    mapping: RegisterMapping,
    file: IO[bytes],
    name: str,
    business_day: date | None,
    *,
    apply: bool,
) -> RegisterReading:
    """Read a provider's file, and keep it where that is asked for and no line is refused; memory does not grow by it.

    Against what the provider itself told, a file counts when a second person who may approve brings it too: one alone
    could end breaks by it. `kept` says SUPERSEDED until then.

    Raises Refusal: operation_not_permitted, file_refused, day_missing.
    """
    context = require_everywhere(caller)
    try:
        if not apply or business_day is None:
            reading = await asyncio.to_thread(read_through, mapping, file)
            if reading.refused or not apply:
                return reading
            business_day = day_of(None, reading)
        agrees = REDRIVE_APPROVAL_SCOPE in caller.operations
        return await import_register(ports, context, mapping, business_day, name, file, agrees=agrees)
    except (UnicodeError, FileRefusedError) as error:
        raise Refusal("file_refused", str(error)[:300], field="content") from error


async def want_again(ports: RegisterPorts, caller: Caller, rail: str, day: date) -> int:
    """Ask a rail's adapter to fetch a day anew; return for how many accounts. Raises Refusal: not_found."""
    context = require_everywhere(caller)
    async with ports.unit_of_work(context) as uow:
        accounts = await accounts_of_rail(uow, ports.registers, rail)
        for account in accounts:
            await ports.registers.want(uow, account, [day], again=True)
        act = Act(SYSTEM_TENANT, context.actor, "register_wanted", f"rail:{rail}", {"day": day.isoformat()})
        await ports.journal.append(uow, [act])
    return len(accounts)


async def list_runs(
    ports: RegisterPorts, caller: Caller, first: date | None, last: date | None, rail: str | None
) -> RegisterRunList:
    """Return the newest comparison of each day and account, of the last week where no days are named.

    Raises Refusal: operation_not_permitted, invalid_request, not_found (no such rail).
    """
    context = require_everywhere(caller)
    last = last or datetime.now(UTC).date()
    first = first or last - timedelta(days=6)
    if not 0 <= (last - first).days < _DAYS_MOST:
        raise Refusal("invalid_request", f"first_day to last_day are 1 to {_DAYS_MOST} days", field="last_day")
    async with ports.unit_of_work(context) as uow:
        await require_known(uow, ports.registers, rail)
        return RegisterRunList(items=await ports.registers.runs(uow, first, last, rail))


async def show_run(
    ports: RegisterPorts, caller: Caller, run_id: UUID, cursor: str | None = None, limit: int = 100
) -> RegisterRunView:
    """Return one comparison and a page of what it carried over. Raises Refusal: not_found, cursor_malformed."""
    context, after = require_everywhere(caller), None if cursor is None else after_of(cursor)
    async with ports.unit_of_work(context) as uow:
        run = await ports.registers.run(uow, run_id)
        if run is None:
            raise Refusal("not_found", "there is no such comparison")
        found = await ports.registers.carried(uow, run_id, limit + 1, after)
    last = found[limit - 1] if len(found) > limit else None
    following = None if last is None else encode_cursor(last.booked_at.isoformat(), str(last.subject_id))
    return RegisterRunView(run=run, carried=found[:limit], next_cursor=following)


async def compare_now(ports: RegisterPorts, caller: Caller, rail: str, day: date) -> list[RegisterRun]:
    """Compare a day of every account of a rail; it takes as long as it takes. Raises Refusal: not_found, day_busy."""
    context = require_everywhere(caller)
    async with ports.unit_of_work(context) as uow:
        accounts = await accounts_of_rail(uow, ports.registers, rail)
    try:
        return [await compare_day(ports, context, account, day) for account in accounts]
    except DayBusyError as busy:
        raise Refusal("day_busy", "somebody compares this day at this moment: look at its run, or try again") from busy


async def compare_books(
    ports: ReconPorts, caller: Caller, what: BooksCompared, since: datetime | None = None
) -> ReconReport:
    """Compare the books with themselves, or with every payment or those made since. Raises Refusal."""
    context = require_everywhere(caller)
    if what is BooksCompared.INTENTS:
        return await reconcile_intents(ports, context, since)
    if since is not None:
        raise Refusal("invalid_request", "the ledger is compared as a whole", field="since")
    return await reconcile_ledger(ports, context)


async def report(ports: DeskPorts, caller: Caller, day: date | None, week: str) -> ReconPeriod:
    """Return the report of a day or an ISO week; of today where neither is named. Raises Refusal `invalid_request`."""
    context, now = require_everywhere(caller), datetime.now(UTC)
    if day is not None and week:
        raise Refusal("invalid_request", "give day or week", field="week")
    try:
        first, last = week_days(week) if week else (day or now.date(),) * 2
    except ValueError as error:
        raise Refusal("invalid_request", str(error), field="week") from error
    async with ports.unit_of_work(context) as uow:
        return await report_of(uow, ports.registers, ports.recon, first, last, now)
