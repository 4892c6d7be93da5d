"""Hands in files: stored before a byte leaves, the same bytes again where they may be lost, never another file."""

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from adapters.bank.answers import Known
from adapters.bank.client import BankClient
from adapters.bank.files import Files
from adapters.bank.mailbox import Mailbox
from adapters.bank.reports import FileStatus
from adapters.runtime import errors
from adapters.runtime.core_client import CoreRefusedError, CoreUnavailableError
from adapters.runtime.port import Order, Outcome
from schemas.files import FileHeld, FileMember
from schemas.ids import mint_id
from schemas.results import Basis, Verdict

log = logging.getLogger(__name__)

CORE_AWAY: Final = (CoreUnavailableError, CoreRefusedError)
NOT_REPORTED: Final = Outcome(Verdict.PENDING, reason="no_report_yet", basis=Basis.REFERENCE_STATUS)
BURIED: Final = Outcome(Verdict.CANCELLED, reason="buried", basis=Basis.REFERENCE_STATUS)

Answers = dict[str, Outcome | Exception]
Build = Callable[[str, datetime, Sequence[Order]], bytes]
"""Makes a file of a MsgId, the moment and the orders in it."""
Judge = Callable[[Known | None, FileStatus | None], Outcome | None]
"""What reports about a reference, and about its file, say."""


class Sender:
    """Hands in orders of one kind by file, and tells what the bank reported of them."""

    def __init__(
        self, client: BankClient, files: Files, mailbox: Mailbox, build: Build, judge: Judge, resend_after_s: float
    ) -> None:
        self._client, self._files, self._mailbox = client, files, mailbox
        self._build, self._judge = build, judge
        self._resend_after_s = resend_after_s

    async def hand_in(self, orders: Sequence[Order]) -> Answers:
        """Hand in one file for all that are in none yet; those that are in one hand that very file in again."""
        answers = await self._new(orders)
        if answers is not None:
            return answers
        # Some are in a file already, by an earlier permit of theirs: they go as that file or not at all.
        try:
            held = await self._files.holding([order.reference for order in orders])
        except CORE_AWAY as error:
            return _all(orders, _not_stored(error))
        answers = {reference: BURIED for reference, file in held.items() if file.buried}
        for file in {file.id: file for file in held.values() if not file.buried}.values():
            members = [order for order in orders if order.reference in held and held[order.reference].id == file.id]
            answers |= await self._again(file, members)
        others = [order for order in orders if order.reference not in held]
        if others:
            taken = errors.NotSent("another took it into a file", reason="file_taken")
            answers |= await self._new(others) or _all(others, taken)
        return answers

    async def status(self, order: Order) -> Outcome:
        """Return what is known of a reference. A file that was never answered is handed in again as it was."""
        await self._mailbox.read()
        found = self._judge(self._mailbox.known(order.reference), None)
        if found is not None:
            return found
        try:
            file = (await self._files.holding([order.reference])).get(order.reference)
        except CORE_AWAY as error:
            raise errors.Indeterminate(f"its file is not known: {type(error).__name__}") from error
        if file is None:
            return Outcome(Verdict.NOT_FOUND, basis=Basis.REFERENCE_STATUS)
        if file.buried:
            return BURIED
        found = self._judge(None, self._mailbox.file(file.message_id))
        if found is not None or file.age_s < self._resend_after_s:
            return found or NOT_REPORTED
        log.warning("file %s is unanswered for %d s: handed in again", file.message_id, file.age_s)
        answer = (await self._again(file, [order]))[order.reference]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def bury(self, order: Order) -> Outcome:
        """See to it that no file ever holds the reference, or return the status of the one that does."""
        try:
            buried = await self._files.bury(order.job_id, order.reference)
        except CORE_AWAY as error:
            raise errors.Indeterminate(f"not known to be buried: {type(error).__name__}") from error
        return BURIED if buried else await self.status(order)

    async def _new(self, orders: Sequence[Order]) -> Answers | None:
        """Return None, with nothing sent, where one of the orders is in a live file already, or buried."""
        now, file_id = datetime.now(UTC), mint_id(time.time_ns() // 1_000_000)
        message_id = f"PF{uuid.uuid4().hex.upper()}"
        body = self._build(message_id, now, orders)
        members = [FileMember(job_id=order.job_id, reference=order.reference) for order in orders]
        try:
            if not await self._files.place(file_id, message_id, body, members):
                return None
        except CoreRefusedError as error:
            return _all(orders, _not_stored(error))
        except CoreUnavailableError as error:
            # It may be stored, and then another process may hand it in: nothing was proven unsent.
            return _all(orders, errors.Indeterminate(f"it may be stored: {error}", reason="file_not_stored"))
        try:
            await self._client.hand_in(body)
        except (errors.NotSent, errors.Misconfigured) as error:
            return _all(orders, await self._given_up(file_id, error))
        except errors.Indeterminate as error:
            return _all(orders, error)
        return await self._reported(message_id, orders)

    async def _again(self, file: FileHeld, orders: Sequence[Order]) -> Answers:
        try:
            body = await self._files.again(file.id)
            if body is not None:
                await self._client.hand_in(body)
        except (errors.AdapterError, *CORE_AWAY):
            # Only this sending failed; what became of the first one is still to be asked.
            log.warning("file %s could not be handed in again", file.message_id)
        return await self._reported(file.message_id, orders)

    async def _given_up(self, file_id: uuid.UUID, error: Exception) -> Exception:
        """Return what a sending that never began means: nothing, unless somebody else handed the file in meanwhile."""
        try:
            if await self._files.give_up(file_id):
                return error
        except CORE_AWAY:
            log.warning("a file that never left could not be given up")
        return errors.Indeterminate("the file may be handed in by another", reason="file_not_given_up")

    async def _reported(self, message_id: str, orders: Sequence[Order]) -> Answers:
        """Return what the bank has reported by now; a file that it took is on its way, whatever is not reported yet."""
        try:
            await self._mailbox.read()
        except errors.AdapterError:
            return _all(orders, NOT_REPORTED)
        answers: Answers = {}
        for order in orders:
            try:
                known, of_file = self._mailbox.known(order.reference), self._mailbox.file(message_id)
                answers[order.reference] = self._judge(known, of_file) or NOT_REPORTED
            except errors.ProtocolViolation as violation:
                answers[order.reference] = violation
        return answers


def _all(orders: Sequence[Order], answer: Outcome | Exception) -> Answers:
    return dict.fromkeys((order.reference for order in orders), answer)


def _not_stored(error: Exception) -> errors.NotSent:
    return errors.NotSent(f"the file is not stored: {type(error).__name__}", reason="file_not_stored")
