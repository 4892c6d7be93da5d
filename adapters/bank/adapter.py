"""The bank: a batch of orders becomes one file, and what the bank reports becomes outcomes."""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from adapters.bank.answers import outcome_of
from adapters.bank.client import BankClient
from adapters.bank.files import Files
from adapters.bank.mailbox import Mailbox
from adapters.bank.pain001 import Transfer, credit_transfers
from adapters.bank.settings import BankSettings
from adapters.runtime import errors
from adapters.runtime.core_client import CoreRefusedError, CoreUnavailableError
from adapters.runtime.port import Order, Outcome
from schemas.files import FileHeld, FileMember
from schemas.operations import OperationType
from schemas.rails import Capabilities, PayeeType, RailRegistration, Timing
from schemas.results import Basis, Verdict

log = logging.getLogger(__name__)

RAIL: Final = "bank"
REFERENCE_LENGTH: Final = 30
_CORE_AWAY: Final = (CoreUnavailableError, CoreRefusedError)

PAYEE_TYPES: Final = {
    "bank_account": PayeeType(
        pattern=r"[0-9]{3}-[0-9]{10,15}",
        example="004-0123456789",
        remedy="write the bank's 3-digit code, a hyphen and the account's 10 to 15 digits",
    ),
    "iban": PayeeType(
        pattern=r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}",
        example="NL41MOCK0000000001",
        remedy="write an account abroad as an IBAN, in capitals and without blanks",
    ),
}


class BankRail:
    """The rail. It pays many at once, by file, and inquires by reading what the bank reports."""

    def __init__(self, client: BankClient, files: Files, settings: BankSettings, timing: Timing) -> None:
        self._client, self._files, self._settings, self._timing = client, files, settings, timing
        self._calendar, self._own = settings.calendar(), settings.own_account()
        self.mailbox = Mailbox(client, settings.account, first=settings.first_message)

    def registration(self) -> RailRegistration:
        """Return what the bank can do. A reference is deduplicated by its file: the same bytes, the same MsgId."""
        settings = self._settings
        capabilities = Capabilities(
            inquiry=True,
            deduplicates_reference=True,
            dedup_window_s=settings.dedup_window_s,
            negative_is_final_for_reference=True,
            not_found_horizon_s=self._timing.claim_idle_s + settings.settlement_s,
            max_amount_minor=settings.max_amount_minor,
            currencies=["THB"],
            reference_length=REFERENCE_LENGTH,
            business_timezone=settings.timezone,
            cut_off=settings.cut_off,
        )
        return RailRegistration(
            rail=RAIL,
            provider=settings.provider,
            provider_account=settings.provider_account,
            environment=settings.environment,
            operations={OperationType.PAYOUT: capabilities, OperationType.WITHDRAWAL: capabilities},
            payee_types=PAYEE_TYPES,
            timing=self._timing,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def pay(self, order: Order) -> Outcome:
        """Pay one order as a file of its own."""
        [answer] = await self.pay_many([order])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def pay_many(self, orders: Sequence[Order]) -> list[Outcome | Exception]:
        """Hand in one file for all that are in none yet; those that are in one hand that very file in again."""
        answers: dict[str, Outcome | Exception] = {}
        transfers: dict[str, Transfer] = {}
        for order in orders:
            try:
                transfers[order.reference] = _transfer(order)
            except errors.Rejected as refused:
                answers[order.reference] = refused
        fresh = [order for order in orders if order.reference in transfers]
        try:
            if fresh:
                answers |= await self._hand_in(fresh, transfers)
        except _CORE_AWAY as error:
            # Nothing leaves before its file is stored.
            raise errors.NotSent(f"the file is not stored: {type(error).__name__}", reason="file_not_stored") from error
        return [answers[order.reference] for order in orders]

    async def inquire(self, order: Order) -> Outcome:
        """Read what the bank has reported of the reference. A file that was never answered is handed in again."""
        await self.mailbox.read()
        found = outcome_of(self.mailbox.known(order.reference), None)
        if found is not None:
            return found
        try:
            file = (await self._files.holding([order.reference])).get(order.reference)
            if file is None:
                return Outcome(Verdict.NOT_FOUND, basis=Basis.REFERENCE_STATUS)
            return await self._unreported(order, file)
        except _CORE_AWAY as error:
            raise errors.Indeterminate(f"the file is not known: {type(error).__name__}") from error

    async def _hand_in(self, orders: Sequence[Order], transfers: dict[str, Transfer]) -> dict[str, Outcome | Exception]:
        """Raises CoreUnavailableError or CoreRefusedError, where nothing left."""
        answers = await self._hand_in_new(orders, transfers)
        if answers is not None:
            return answers
        # Some are in a file already: an earlier permit of theirs. They go as that file or not at all.
        held = await self._files.holding([order.reference for order in orders])
        others = [order for order in orders if order.reference not in held]
        answers = {}
        for file in {file.id: file for file in held.values()}.values():
            members = [order for order in orders if order.reference in held and held[order.reference].id == file.id]
            answers |= await self._hand_in_again(file, members)
        if others:
            answers |= await self._hand_in_new(others, transfers) or {
                order.reference: errors.NotSent("another took it into a file", reason="file_taken") for order in others
            }
        return answers

    async def _hand_in_new(
        self, orders: Sequence[Order], transfers: dict[str, Transfer]
    ) -> dict[str, Outcome | Exception] | None:
        """Return None, with nothing sent, where one of the orders is in a live file already."""
        message_id, now = f"PF{uuid.uuid4().hex.upper()}", datetime.now(UTC)
        body = credit_transfers(
            message_id,
            self._own,
            [transfers[order.reference] for order in orders],
            created_at=now.astimezone(ZoneInfo(self._settings.timezone)),
            execute_on=self._calendar.value_date(now),
        )
        members = [FileMember(job_id=order.job_id, reference=order.reference) for order in orders]
        file_id = await self._files.place(message_id, body, members)
        if file_id is None:
            return None
        try:
            await self._client.hand_in(body)
        except (errors.NotSent, errors.Misconfigured) as error:
            return dict.fromkeys((order.reference for order in orders), await self._given_up(file_id, error))
        except errors.Indeterminate as error:
            return dict.fromkeys((order.reference for order in orders), error)
        return await self._read_answers(message_id, orders)

    async def _hand_in_again(self, file: FileHeld, orders: Sequence[Order]) -> dict[str, Outcome | Exception]:
        try:
            body = await self._files.again(file.id)
            if body is not None:
                await self._client.hand_in(body)
        except (errors.AdapterError, *_CORE_AWAY):
            # Only this sending failed; what became of the first one is still to be asked.
            log.warning("file %s could not be handed in again", file.message_id)
        return await self._read_answers(file.message_id, orders)

    async def _given_up(self, file_id: uuid.UUID, error: Exception) -> Exception:
        """Return what a sending that never began means: nothing, unless somebody else handed the file in meanwhile."""
        try:
            if await self._files.give_up(file_id):
                return error
        except _CORE_AWAY:
            pass
        return errors.Indeterminate("the file may be handed in by another", reason="file_not_given_up")

    async def _read_answers(self, message_id: str, orders: Sequence[Order]) -> dict[str, Outcome | Exception]:
        """Return what the bank has reported by now; a file that it took is on its way, whatever is not reported yet."""
        waiting = Outcome(Verdict.PENDING, reason="no_report_yet", basis=Basis.REFERENCE_STATUS)
        try:
            await self.mailbox.read()
        except errors.AdapterError:
            return dict.fromkeys((order.reference for order in orders), waiting)
        answers: dict[str, Outcome | Exception] = {}
        for order in orders:
            try:
                known, of_file = self.mailbox.known(order.reference), self.mailbox.file(message_id)
                answers[order.reference] = outcome_of(known, of_file) or waiting
            except errors.ProtocolViolation as violation:
                answers[order.reference] = violation
        return answers

    async def _unreported(self, order: Order, file: FileHeld) -> Outcome:
        found = outcome_of(None, self.mailbox.file(file.message_id))
        if found is None and file.age_s >= self._settings.resend_after_s:
            log.warning("file %s is unanswered for %d s: handed in again", file.message_id, file.age_s)
            answer = (await self._hand_in_again(file, [order]))[order.reference]
            if isinstance(answer, Exception):
                raise answer
            return answer
        return found or Outcome(Verdict.PENDING, reason="no_report_yet", basis=Basis.REFERENCE_STATUS)

    async def watch(self) -> None:
        """Read the mailbox now and then until cancelled, so that gaps and returns are seen without anybody asking."""
        while True:
            try:
                await self.mailbox.read()
            except errors.AdapterError as error:
                log.warning("the mailbox cannot be read: %s", error)
            await asyncio.sleep(self._settings.watch_every_s)


def _transfer(order: Order) -> Transfer:
    if order.payee is None or order.payee.type not in PAYEE_TYPES:
        raise errors.Rejected("payee_type_unknown", "the bank pays bank accounts")
    # An IBAN names its bank itself.
    bank_code, _, account = order.payee.value.rpartition("-")
    return Transfer(order.reference, order.amount_minor, order.currency, bank_code, account, order.message)
