"""The bank's camt.053 statements as registers: what was booked on our account, by booking day."""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime, time
from typing import Final
from zoneinfo import ZoneInfo

from adapters.bank.mailbox import Mailbox
from adapters.bank.names import visible
from adapters.bank.references import virtual_reference
from adapters.bank.reports import Entry, Fact
from adapters.bank.settings import BankSettings
from adapters.runtime.registers import RegisterAbsent
from schemas.registers import RegisterDirection, RegisterLine, RegisterOperation, RegisterStatus

_STATEMENT: Final = "camt.053"
_PAGE: Final = 1000


class Statements:
    """Keeps the entries of statements as the mailbox reads them; a notice or a report of the day is none."""

    def __init__(self, mailbox: Mailbox, settings: BankSettings) -> None:
        self._mailbox, self._settings = mailbox, settings
        self._entries: dict[str, list[Entry]] = defaultdict(list)
        mailbox.listeners.append(self._note)

    async def register(self, day: date) -> AsyncIterator[Sequence[RegisterLine]]:
        """Yield the entries that were booked on a day. Raises RegisterAbsent where no statement has any."""
        await self._mailbox.read()
        entries = self._entries.get(day.isoformat(), [])
        if not entries:
            raise RegisterAbsent
        for at in range(0, len(entries), _PAGE):
            yield [self._line(at + place, each, day) for place, each in enumerate(entries[at : at + _PAGE], start=1)]

    def _note(self, fact: Fact) -> None:
        if isinstance(fact, Entry) and fact.account == self._settings.account and fact.source.startswith(_STATEMENT):
            self._entries[fact.booked_on].append(fact)

    def _line(self, number: int, entry: Entry, day: date) -> RegisterLine:
        paid_in = ""
        if entry.is_return and not entry.is_credit:
            # Under the name of what was paid in, which is what is taken back.
            known = self._mailbox.known(entry.end_to_end_id)
            paid_in = next(iter(known.credits), "") if known is not None else ""
        ours = entry.end_to_end_id
        if entry.is_credit and not entry.is_return:
            ours = virtual_reference(entry) or ours
        return RegisterLine(
            line=number,
            provider_ref=visible(paid_in or entry.bank_reference),
            our_ref=visible(ours),
            operation=RegisterOperation.RETURN if entry.is_return else RegisterOperation.PAYMENT,
            direction=RegisterDirection.IN if entry.is_credit else RegisterDirection.OUT,
            amount_minor=entry.amount_minor,
            currency=entry.currency,
            status=RegisterStatus.SETTLED if entry.is_booked else RegisterStatus.PENDING,
            at=datetime.combine(day, time(), ZoneInfo(self._settings.timezone)),
        )
