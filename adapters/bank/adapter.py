"""The bank: a batch of orders becomes one file, and what the bank reports becomes outcomes."""

from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime
from typing import Final
from zoneinfo import ZoneInfo

from adapters.bank.answers import outcome_of
from adapters.bank.client import BankClient
from adapters.bank.collecting import MANDATE, Collecting
from adapters.bank.files import Files
from adapters.bank.mailbox import Mailbox, Messages
from adapters.bank.pain001 import Transfer, credit_transfers
from adapters.bank.references import LENGTH
from adapters.bank.refunding import Refunding
from adapters.bank.sender import Sender
from adapters.bank.settings import BankSettings
from adapters.bank.statements import Statements
from adapters.bank.watcher import Watcher
from adapters.runtime import errors
from adapters.runtime.port import Listener, Order, Outcome
from schemas.mandates import MANDATE_PAYEE
from schemas.operations import OperationType
from schemas.rails import Capabilities, PayeeType, RailRegistration, Timing
from schemas.registers import RegisterLine

RAIL: Final = "bank"
REFERENCE_LENGTH: Final = 30

PAYEE_TYPES: Final = {
    "bank_account": PayeeType(
        pattern=r"[0-9]{3}-[0-9]{10,15}",
        example="004-0123456789",
        remedy="write the bank's 3-digit code, a hyphen and the account's 10 to 15 digits, without a name",
        operations=(OperationType.PAYOUT, OperationType.WITHDRAWAL),
    ),
    "iban": PayeeType(
        pattern=r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}",
        example="NL41MOCK0000000001",
        remedy="write an account abroad as an IBAN, in capitals and without blanks",
    ),
}


class BankRail:
    """The rail. It pays many at once, by file, and inquires by reading what the bank reports."""

    def __init__(
        self,
        client: BankClient,
        files: Files,
        settings: BankSettings,
        timing: Timing,
        messages: Messages | None = None,
    ) -> None:
        self._client, self._files, self._settings, self._timing = client, files, settings, timing
        self._calendar, self._own = settings.calendar(), settings.own_account()
        self.mailbox = Mailbox(messages or client, settings.account, first=settings.first_message)
        self._refunding = Refunding(client, files, self.mailbox, settings)
        self._collecting = Collecting(client, files, self.mailbox, settings)
        self._statements = Statements(self.mailbox, settings)
        self._watcher = Watcher(RAIL, self.mailbox, files, settings)
        self._payouts = Sender(client, files, self.mailbox, self._file, outcome_of, settings.resend_after_s)

    def registration(self) -> RailRegistration:
        """Return what the bank can do. A reference is deduplicated by its file: the same bytes, the same MsgId."""
        settings = self._settings
        capabilities = Capabilities(
            inquiry=True,
            deduplicates_reference=True,
            dedup_window_s=settings.dedup_window_s,
            cancel_by_reference=True,
            negative_is_final_for_reference=True,
            returns_in_all=True,
            not_found_horizon_s=self._timing.claim_idle_s + settings.settlement_s,
            max_amount_minor=settings.max_amount_minor,
            currencies=["THB"],
            reference_length=REFERENCE_LENGTH,
            business_timezone=settings.timezone,
            cut_off=settings.cut_off,
        )
        collects = capabilities.model_copy(
            update={"collection_lives_s": settings.deposit_lives_s, "reference_length": LENGTH, "refunds": "parts"}
        )
        # What a payer transfers cannot be refused: a deposit that is not expected any more rests in suspense.
        deposit = collects.model_copy(update={"cancel_by_reference": False, "collection_reusable": True})
        return RailRegistration(
            rail=RAIL,
            provider=settings.provider,
            provider_account=settings.provider_account,
            environment=settings.environment,
            operations={
                OperationType.PAYOUT: capabilities,
                OperationType.WITHDRAWAL: capabilities,
                OperationType.DEPOSIT: deposit,
                OperationType.DIRECT_DEBIT: collects,
                OperationType.REFUND: capabilities.model_copy(update={"cancel_by_reference": False}),
            },
            payee_types={**PAYEE_TYPES, MANDATE_PAYEE: MANDATE},
            timing=self._timing,
        )

    async def close(self) -> None:
        """Close the connections, those to the core's files too."""
        await self._client.aclose()
        await self._files.close()

    async def pay(self, order: Order) -> Outcome:
        """Pay one order as a file of its own."""
        [answer] = await self.pay_many([order])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def pay_many(self, orders: Sequence[Order]) -> list[Outcome | Exception]:
        """Hand in one file for all that are in none yet; those that are in one hand that very file in again."""
        answers: dict[str, Outcome | Exception] = {}
        for order in orders:
            try:
                _transfer(order)
            except errors.Rejected as refused:
                answers[order.reference] = refused
        sent = [order for order in orders if order.reference not in answers]
        if sent:
            answers |= await self._payouts.hand_in(sent)
        return [answers[order.reference] for order in orders]

    async def inquire(self, order: Order) -> Outcome:
        """Read what the bank has reported of the reference. A file that was never answered is handed in again."""
        return await self._payouts.status(order)

    async def cancel(self, order: Order) -> Outcome:
        """Bury a reference that is in no file; of one that is, return the status."""
        return await self._payouts.bury(order)

    async def collect(self, order: Order) -> Outcome:
        """Show a payer where to transfer to, or draw a direct debit."""
        return await self._collecting.collect(order)

    async def check_collection(self, order: Order) -> Outcome:
        """Return where a collection stands."""
        return await self._collecting.check(order)

    async def cancel_collection(self, order: Order) -> Outcome:
        """End a collection that nothing was received for."""
        return await self._collecting.cancel(order)

    async def refund(self, order: Order) -> Outcome:
        """Transfer a payment in, or a part of it, back to the account that it came from."""
        return await self._refunding.refund(order)

    async def check_refund(self, order: Order) -> Outcome:
        """Return what the bank has reported of a refund."""
        return await self._refunding.status(order)

    async def watch(self, listener: Listener) -> None:
        """Read the mailbox now and then, and tell of money that came in or back, until cancelled."""
        await self._watcher.run(listener)

    def register(self, day: date) -> AsyncIterator[Sequence[RegisterLine]]:
        """Yield what the bank's statements booked on a day."""
        return self._statements.register(day)

    def _file(self, message_id: str, now: datetime, orders: Sequence[Order]) -> bytes:
        return credit_transfers(
            message_id,
            self._own,
            [_transfer(order) for order in orders],
            created_at=now.astimezone(ZoneInfo(self._settings.timezone)),
            execute_on=self._calendar.value_date(now),
        )


def _transfer(order: Order) -> Transfer:
    if order.payee is None or order.payee.type not in PAYEE_TYPES:
        raise errors.Rejected("payee_type_unknown", "the bank pays bank accounts")
    # An IBAN names its bank itself.
    bank_code, _, account = order.payee.value.rpartition("-")
    return Transfer(order.reference, order.amount_minor, order.currency, bank_code, account, order.message)
