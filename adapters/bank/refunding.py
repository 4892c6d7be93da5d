"""Paying back what was collected: a credit transfer to the account that the payment came from, by a file of its own."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from adapters.bank.answers import outcome_of
from adapters.bank.client import BankClient
from adapters.bank.files import Files
from adapters.bank.mailbox import Mailbox
from adapters.bank.pain001 import Transfer, credit_transfers
from adapters.bank.sender import Sender
from adapters.bank.settings import BankSettings
from adapters.runtime import errors
from adapters.runtime.port import Order, Outcome


class Refunding:
    """Refunds out of one account. Whom to pay is what the account's own entry says, and nobody's word else.

    A bank does not add refunds up: the core does, under the payment's lock. What the account shows as paid back by this
    process is looked at once more; a refund that was refused, came back or was never booked is none of that.
    """

    def __init__(self, client: BankClient, files: Files, mailbox: Mailbox, settings: BankSettings) -> None:
        self._mailbox, self._settings = mailbox, settings
        self._own, self._calendar = settings.own_account(), settings.calendar()
        self._refunds_of: dict[str, set[str]] = defaultdict(set)
        self._sender = Sender(client, files, mailbox, self._file, outcome_of, settings.resend_after_s)

    async def refund(self, order: Order) -> Outcome:
        """Hand in the transfer; a reference that is in a file already hands that very file in again."""
        await self._mailbox.read()
        if self._mailbox.known(order.reference) is None:
            self._transfer(order)
        answer = (await self._sender.hand_in([order]))[order.reference]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def status(self, order: Order) -> Outcome:
        """Return what the bank has reported of the refund."""
        return await self._sender.status(order)

    def _file(self, message_id: str, now: datetime, orders: Sequence[Order]) -> bytes:
        return credit_transfers(
            message_id,
            self._own,
            [self._transfer(order) for order in orders],
            created_at=now.astimezone(ZoneInfo(self._settings.timezone)),
            execute_on=self._calendar.value_date(now),
        )

    def _transfer(self, order: Order) -> Transfer:
        """Raises Rejected where nobody can be paid, or less is left of the payment than is to be paid back."""
        paid = self._mailbox.credit(order.payee.value) if order.payee is not None else None
        if paid is None or paid.currency != order.currency:
            raise errors.Rejected("payment_not_found", "the account shows no such payment in")
        if self._mailbox.is_shared(paid.bank_reference):
            raise errors.Rejected("payment_not_unique", "the bank calls two payments by this name")
        if not paid.debtor_account or not (paid.debtor_account[:2].isalpha() or paid.debtor_bank):
            raise errors.Rejected("payer_account_unknown", "the bank does not say which account it came from")
        refunds = self._refunds_of[paid.bank_reference]
        back_minor = sum(self._booked_minor(reference) for reference in refunds - {order.reference})
        if back_minor + order.amount_minor > paid.amount_minor:
            raise errors.Rejected("refund_exceeds_payment", "less is left of the payment")
        refunds.add(order.reference)
        bank_code = "" if paid.debtor_account[:2].isalpha() else paid.debtor_bank
        text = f"REFUND OF {paid.bank_reference}"
        return Transfer(order.reference, order.amount_minor, order.currency, bank_code, paid.debtor_account, text)

    def _booked_minor(self, reference: str) -> int:
        known = self._mailbox.known(reference)
        if known is None:
            return 0
        left_minor = sum(entry.amount_minor for entry in known.debits.values())
        return left_minor - sum(entry.amount_minor for entry in known.returned.values())
