"""Everything that the bank has reported, read once and in order, and asked by reference.

Nothing here is the only copy: the bank keeps its messages, and a new process takes them again from the first, those
that an earlier one has read by way of the core (`adapters/bank/kept.py`). Those are compared with the bank's at the
ends of each page and are void where it numbers anew: what an answer is built from is the bank's own word.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from adapters.bank import metrics
from adapters.bank.answers import DUPLICATES, Known
from adapters.bank.metrics import GapKind
from adapters.bank.names import Names
from adapters.bank.references import virtual_reference
from adapters.bank.reports import (
    Balanced,
    Entry,
    Fact,
    FileStatus,
    PaymentStatus,
    RefusedEntry,
    ReturnNotice,
    read_report,
)
from adapters.bank.xml import XmlRefusedError

log = logging.getLogger(__name__)

_RANK: Final = ("", "RCVD", "ACTC", "PDNG", "ACCP", "ACWC", "ACSP")
"""Reports may come in any order: an earlier stage never hides a later one."""


class Messages(Protocol):
    """Where the bank keeps what it has sent, numbered from 1."""

    async def message(self, number: int) -> bytes | None:
        """Return one message, None where there is none yet. Raises the runtime's errors."""
        ...


@dataclass(frozen=True, slots=True)
class Gap:
    """A statement that does not follow from the one before, or that its own entries do not explain."""

    kind: GapKind
    statement_id: str


class Mailbox:
    """Follows the bank's messages about one account. Safe with many askers: each sees what came before it asked."""

    def __init__(self, messages: Messages, account: str, *, first: int = 1) -> None:
        self._messages, self._account = messages, account
        self._next = first
        self._reading = asyncio.Lock()
        self._rounds_begun = self._last_read = 0
        self._known: dict[str, Known] = {}
        self._files: dict[str, FileStatus] = {}
        self._paid_in: dict[str, dict[str, Entry]] = {}
        self._credits: dict[str, Entry] = {}
        self._shared: set[str] = set()
        self._broken_down: set[str] = set()
        self._statements: dict[int, Balanced] = {}
        self._shown: set[str] = set()
        self._bodies: set[bytes] = set()
        self._names = Names()
        self.gaps: list[Gap] = []
        self.listeners: list[Callable[[Fact], None]] = []
        """Told of each fact, once, in the bank's order."""

    async def read(self) -> None:
        """Take in what the bank has sent until now. Raises the errors of `Messages`; what was read before stays."""
        wanted = self._rounds_begun + 1
        async with self._reading:
            if self._last_read >= wanted:
                return  # a round that began after we asked has seen all that we could
            self._rounds_begun = this = self._rounds_begun + 1
            while (body := await self._messages.message(self._next)) is not None:
                self._take(body)
                self._next += 1
            self._last_read = this

    def known(self, reference: str) -> Known | None:
        """Return what was reported about an EndToEndId."""
        return self._known.get(reference)

    def file(self, message_id: str) -> FileStatus | None:
        """Return what was reported about a file of ours as a whole."""
        return self._files.get(message_id)

    def paid_in(self, virtual: str) -> list[Entry]:
        """Return the booked credits that name a virtual reference, in the bank's order."""
        return list(self._paid_in.get(virtual, {}).values())

    def credit(self, bank_reference: str) -> Entry | None:
        """Return a booked payment in by the bank's own reference."""
        return self._credits.get(bank_reference)

    def is_shared(self, bank_reference: str) -> bool:
        """Whether the account shows two different payments in under this one reference."""
        return bank_reference in self._shared

    def is_total(self, entry: Entry) -> bool:
        """Whether this is the sum of payments in that the bank has told one by one: no payment of its own."""
        return entry.is_credit and not entry.is_return and entry.bank_reference in self._broken_down

    def _take(self, body: bytes) -> None:
        digest = hashlib.sha256(body).digest()
        if digest in self._bodies:
            # A file that comes again is the same file, whatever number it comes under.
            metrics.MESSAGES.labels("duplicate").inc()
            return
        try:
            facts = read_report(body, self._names)
        except Exception as error:  # noqa: BLE001 - one unreadable message must not hide those behind it
            # What it was about stays open. No text but ours is logged: any other may quote the message.
            metrics.MESSAGES.labels("refused").inc()
            why = error if isinstance(error, XmlRefusedError) else type(error).__name__
            log.error("message %d of the bank is not read: %s", self._next, why)  # noqa: TRY400
            facts = []
        else:
            metrics.MESSAGES.labels("read").inc()
        for fact in facts:
            for take in (self._learn, *self.listeners):
                self._give(take, fact)
        self._bodies.add(digest)

    def _give(self, take: Callable[[Fact], None], fact: Fact) -> None:
        try:
            take(fact)
        except Exception as error:  # noqa: BLE001 - money that stands beside what is odd is told
            metrics.ENTRIES_REFUSED.inc()
            log.error("a fact in message %d of the bank is not taken: %s", self._next, type(error).__name__)  # noqa: TRY400

    def _learn(self, fact: Fact) -> None:
        match fact:
            case FileStatus():
                self._learn_file(fact)
            case PaymentStatus() if fact.end_to_end_id:
                self._learn_status(fact)
            case Entry() if fact.account == self._account:
                self._learn_entry(fact)
            case Balanced() if fact.account == self._account:
                self._check(fact)
            case RefusedEntry():
                metrics.ENTRIES_REFUSED.inc()
                log.error("an entry in message %d of the bank is not read: %s", self._next, fact.why)
            case ReturnNotice() if fact.end_to_end_id and fact.is_about(self._account):
                self._known.setdefault(fact.end_to_end_id, Known()).announced[fact.name] = fact

    def _learn_file(self, fact: FileStatus) -> None:
        before = self._files.get(fact.message_id)
        # "Had it before" says nothing about the first one; what was said of that one stays.
        if before is None or before.reason in DUPLICATES or fact.reason not in DUPLICATES:
            self._files[fact.message_id] = fact

    def _learn_status(self, fact: PaymentStatus) -> None:
        known = self._known.setdefault(fact.end_to_end_id, Known())
        before = known.status
        if before is None or _rank(fact.status) >= _rank(before.status):
            known.status = fact

    def _learn_entry(self, fact: Entry) -> None:
        # `BOOK` alone is money that moved: an expected or a future entry is neither.
        if not fact.is_booked or self.is_total(fact):
            return
        if fact.is_credit and not fact.is_return:
            self._learn_credit(fact)
        virtual = virtual_reference(fact)
        if virtual and fact.is_credit and not fact.is_return:
            self._paid_in.setdefault(virtual, {})[fact.bank_reference] = fact
        if not fact.end_to_end_id:
            return
        reference = fact.bank_reference
        known = self._known.setdefault(fact.end_to_end_id, Known())
        if fact.is_credit:
            (known.returned if fact.is_return else known.credits)[reference] = fact
        else:
            # Shown alone by one message and with others by another, it is one debit of its EndToEndId.
            (known.taken_back if fact.is_return else known.debits)[fact.part_of or reference] = fact

    def _learn_credit(self, fact: Entry) -> None:
        reference = fact.bank_reference
        if fact.part_of:
            self._broken_down.add(fact.part_of)
        first = self._credits.setdefault(reference, fact)
        if reference not in self._shared and _differ(first, fact):
            self._shared.add(reference)
            log.error("two payments in have the bank's one reference %s: none of them is paid back", reference)

    def _check(self, statement: Balanced) -> None:
        if statement.statement_id in self._shown:
            return
        self._shown.add(statement.statement_id)
        opening, closing, number = statement.opening_minor, statement.closing_minor, statement.sequence
        if opening is not None and closing is not None and opening + statement.entries_minor != closing:
            self._gap(GapKind.ENTRIES, statement)
        if number is None:
            return
        before = self._statements.get(number - 1)
        if self._statements and before is None and number > min(self._statements):
            self._gap(GapKind.MISSING, statement)
        elif before is not None and before.closing_minor != opening:
            self._gap(GapKind.OPENING, statement)
        self._statements[number] = replace(statement, entries_minor=0)

    def _gap(self, kind: GapKind, statement: Balanced) -> None:
        metrics.STATEMENT_GAPS.labels(kind.value).inc()
        self.gaps.append(Gap(kind, statement.statement_id))
        log.error("statement %s has a gap: %s", statement.statement_id, kind)


def _rank(status: str) -> int:
    return _RANK.index(status) if status in _RANK else len(_RANK)


def _differ(one: Entry, other: Entry) -> bool:
    """Whether two credits of one name are two payments; what a message leaves out is no difference."""
    if (one.amount_minor, one.currency) != (other.amount_minor, other.currency):
        return True
    told = ((one.debtor_account, other.debtor_account), (one.end_to_end_id, other.end_to_end_id))
    return any(first and second and first != second for first, second in told)
