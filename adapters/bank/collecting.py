"""Money in by the bank: deposits that name a virtual reference, and direct debits under mandates."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Final
from zoneinfo import ZoneInfo

import orjson

from adapters.bank.answers import outcome_of_collection, received
from adapters.bank.client import BankClient
from adapters.bank.files import Files
from adapters.bank.mailbox import Mailbox
from adapters.bank.pain008 import Collection, direct_debits
from adapters.bank.sender import Sender
from adapters.bank.settings import BankSettings
from adapters.runtime import errors
from adapters.runtime.port import Order, Outcome
from schemas.collections import NextAction, NextActionKind
from schemas.mandates import MANDATE_PAYEE, SequenceType
from schemas.operations import OperationType
from schemas.rails import PayeeType
from schemas.results import Basis, Verdict

MANDATE: Final = PayeeType(
    pattern=r"[A-Z0-9-]{1,35};[0-9]{4}-[0-9]{2}-[0-9]{2};(FRST|RCUR|FNAL|OOFF);[0-9]{3}-[0-9]{10,15};[^;]{1,70}",
    example="MANDATE-17;2026-01-05;RCUR;004-0123456789;Somchai Jaidee",
    remedy="write mandate id; day of signature; FRST, RCUR, FNAL or OOFF; bank code-account; the debtor's name",
    operations=(OperationType.DIRECT_DEBIT,),
)


class Collecting:
    """Collections of one account. Nothing counts as received before the account shows it booked."""

    def __init__(self, client: BankClient, files: Files, mailbox: Mailbox, settings: BankSettings) -> None:
        self._mailbox, self._settings = mailbox, settings
        self._own, self._calendar = settings.own_account(), settings.calendar()
        self._debits = Sender(client, files, mailbox, self._file, outcome_of_collection, settings.resend_after_s)

    async def collect(self, order: Order) -> Outcome:
        """Hand in a direct debit; a deposit needs nothing of the bank, its reference is what the payer is shown."""
        if order.operation is OperationType.DIRECT_DEBIT:
            _mandate(order)
            answer = (await self._debits.hand_in([order]))[order.reference]
            if isinstance(answer, Exception):
                raise answer
            return answer
        return self._deposit(order)

    async def check(self, order: Order) -> Outcome:
        """Return where a collection stands, as the account and the bank's reports show it."""
        if order.operation is OperationType.DIRECT_DEBIT:
            return await self._debits.status(order)
        await self._mailbox.read()
        return self._deposit(order)

    async def cancel(self, order: Order) -> Outcome:
        """End a collection: a direct debit that is in no file is buried; a deposit is expected no more."""
        if order.operation is OperationType.DIRECT_DEBIT:
            return await self._debits.bury(order)
        found = await self.check(order)
        if found.verdict is not Verdict.AWAITING_PAYMENT:
            return found
        return Outcome(Verdict.CANCELLED, reason="deposit_not_expected", basis=Basis.REFERENCE_STATUS)

    def _deposit(self, order: Order) -> Outcome:
        booked = self._mailbox.paid_in(order.reference)
        if booked:
            # Further payments under the reference are told by the statement, each for itself.
            return received(booked[0])
        if order.expires_at is not None and order.expires_at <= datetime.now(UTC):
            return Outcome(Verdict.EXPIRED, basis=Basis.REFERENCE_STATUS)
        shown = {
            "bank_code": self._own.bank_code,
            "account": self._own.account,
            "name": self._own.name,
            "reference": order.reference,
        }
        action = NextAction(
            kind=NextActionKind.ACCOUNT, payload=orjson.dumps(shown).decode(), expires_at=order.expires_at
        )
        return Outcome(Verdict.AWAITING_PAYMENT, next_action=action, basis=Basis.REFERENCE_STATUS)

    def _file(self, message_id: str, now: datetime, orders: Sequence[Order]) -> bytes:
        [order] = orders
        collection, sequence = _mandate(order)
        return direct_debits(
            message_id,
            self._own,
            [collection],
            sequence=sequence,
            created_at=now.astimezone(ZoneInfo(self._settings.timezone)),
            collect_on=self._calendar.after(self._calendar.value_date(now)),
        )


def _mandate(order: Order) -> tuple[Collection, SequenceType]:
    if order.payee is None or order.payee.type != MANDATE_PAYEE:
        raise errors.Rejected("mandate_missing", "a direct debit is drawn under a mandate")
    mandate_id, signed_on, sequence, account, name = order.payee.value.split(";")
    bank_code, _, number = account.partition("-")
    try:
        signed = date.fromisoformat(signed_on)
    except ValueError as error:
        raise errors.Rejected("mandate_incomplete", "the day of signature is none") from error
    collection = Collection(
        order.reference,
        order.amount_minor,
        order.currency,
        mandate_id,
        signed,
        name,
        bank_code,
        number,
        order.message,
    )
    return collection, SequenceType(sequence)
