"""What QP does with payouts: banks, checks, payouts once per id, drafts, inquiry, settlement. No HTTP here."""

import hashlib
import secrets
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson

from adapters.sbp import verdicts
from adapters.sbp.client import read_json
from adapters.sbp.models import Bank, CheckRequest, DeclineReason, PayoutRequest, PayoutStatus
from adapters.sbp.simulator import book as books
from adapters.testkit.durable import DurableStore
from adapters.testkit.faults import Fault, FaultScripts
from adapters.testkit.serving import Answer, Model, parsed
from schemas.money import AmountError, currency_of, to_major_text, to_minor

MOSCOW: Final = ZoneInfo("Europe/Moscow")
RUB: Final = currency_of("RUB")

_NAMES = ("Иван Петрович С.", "Мария Ивановна К.", "Сергей Ильич В.", "Анна Олеговна Т.", "Павел Ю.")  # noqa: RUF001
_OPEN = frozenset({PayoutStatus.IN_PROGRESS, PayoutStatus.PENDING, PayoutStatus.WAITING_CONFIRMATION})

BANKS: Final = (
    Bank(alias="RAIFFEISEN", member_id="100000000007", name="Raiffeisenbank"),
    Bank(alias="TBANK", member_id="100000000004", name="T-Bank"),
    Bank(alias="ALFABANK", member_id="100000000008", name="Alfa-Bank"),
)


@dataclass(slots=True)
class Payouts:
    """The provider's payouts. Every method answers after its commit."""

    store: DurableStore
    faults: FaultScripts
    check_lives_s: float = 300.0
    settle_after_s: float = 1.5
    fee_minor: int = 0
    account: str = ""
    """The one account that is registered; empty takes any."""
    listed: Sequence[Bank] | None = field(default=BANKS)
    """None answers as a service that is down."""

    def banks(self) -> Answer:
        """Answer the members that take payouts."""
        if self.listed is None:
            return refusal("ERROR.INTERNAL", 500)
        return Answer(200, [bank.model_dump(by_alias=True) for bank in self.listed])

    async def check(self, request: CheckRequest) -> Answer:
        """Answer who the receiver is and what the payout costs. Refusals come under HTTP 200."""
        amount_minor = self._amount_minor(request.account, request.amount)
        if isinstance(amount_minor, Answer):
            return amount_minor
        payee = request.payout_params
        if payee.bank_alias not in {bank.alias for bank in self.listed or BANKS}:
            return refusal("ERROR.BANK_NOT_SUPPORTED")
        if self.faults.due(payee.phone, "", frozenset({Fault.PAYEE_NOT_FOUND}), amount_minor):
            return refusal("ERROR.RECEIVER_NOT_FOUND")
        index = int.from_bytes(hashlib.sha256(payee.phone.encode()).digest()[:2], "big")
        check_id, expires_at_s = f"CH{secrets.token_hex(12)}", time.time() + self.check_lives_s
        row = (check_id, payee.phone, payee.bank_alias, amount_minor)
        await self.store.run(lambda book: books.save_check(book, row, expires_at_s))
        body = {
            "checkId": check_id,
            "receiverName": _NAMES[index % len(_NAMES)],
            "fee": orjson.Fragment(to_major_text(self.fee_minor, RUB)),
            "expiresDate": datetime.fromtimestamp(expires_at_s, MOSCOW).isoformat(),
        }
        return Answer(200, body)

    async def submit(self, request: PayoutRequest, fault: Fault | None) -> Answer:
        """Pay once per id, or keep a draft. An id that is known is refused whatever the body: ask for its status."""
        return await self.store.run(lambda book: self._submit(book, request, fault))

    async def confirm(self, reference: str, fault: Fault | None) -> Answer:
        """Execute a draft; one that is no longer a draft answers its status."""
        return await self.store.run(lambda book: self._confirm(book, reference, fault))

    async def inquire(self, reference: str) -> Answer:
        """Answer the authoritative status of an id, also when no reply to it ever arrived."""
        row = await self.store.run(lambda book: books.find_payout(book, reference))
        return refusal(verdicts.PAYOUT_NOT_FOUND, 404) if row is None else Answer(200, as_json(row))

    async def whom_and_what(self, reference: str) -> tuple[str, int | None]:
        """Return a payout's phone and kopecks, for scripts; nothing where it is unknown."""
        row = await self.store.run(lambda book: books.find_payout(book, reference))
        return ("", None) if row is None else (str(row["phone"]), int(row["amount_minor"]))

    def amount_minor(self, amount: str) -> int | None:
        """Return the kopecks of an amount; None where it is none."""
        try:
            return to_minor(amount, RUB)
        except AmountError:
            return None

    async def settle(self) -> list[str]:
        """End what is due; return the ids that were paid."""
        return await self.store.run(self._settle)

    async def settle_now(self, reference: str) -> Answer:
        """Pay an open payout now, whatever it waits for: for scripts."""
        return await self.store.run(lambda book: self._force(book, reference, PayoutStatus.COMPLETED, "", _OPEN))

    async def decline(self, reference: str, reason: str) -> Answer:
        """Decline an open payout now: for scripts."""
        return await self.store.run(lambda book: self._force(book, reference, PayoutStatus.DECLINED, reason, _OPEN))

    async def overturn(self, reference: str) -> Answer:
        """Pay what was declined before, as no honest provider does: for scripts."""
        among = frozenset({PayoutStatus.DECLINED})
        return await self.store.run(lambda book: self._force(book, reference, PayoutStatus.COMPLETED, "", among))

    def _amount_minor(self, account: str, amount: str) -> int | Answer:
        if self.account and account != self.account:
            return refusal("ERROR.ACCOUNT_IS_NOT_REGISTERED", 404)
        return self.amount_minor(amount) or refusal("ERROR.INVALID_AMOUNT", 400)

    def _submit(self, book: sqlite3.Connection, request: PayoutRequest, fault: Fault | None) -> Answer:
        if books.find_payout(book, request.id) is not None:
            return refusal(verdicts.PAYOUT_EXISTS)
        amount_minor = self._amount_minor(request.account, request.amount)
        if isinstance(amount_minor, Answer):
            return amount_minor
        check, now_s, payee = books.find_check(book, request.check_id), time.time(), request.payout_params
        if check is None:
            return refusal("ERROR.CHECK_NOT_FOUND", 404)
        if check["expires_at_s"] <= now_s:
            return refusal("ERROR.CHECK_EXPIRED")
        if (check["phone"], check["bank_alias"], check["amount_minor"]) != (
            payee.phone, payee.bank_alias, amount_minor,
        ):  # fmt: skip
            return refusal("ERROR.CHECK_MISMATCH")
        if fault is Fault.REFUSED:
            return refusal("ERROR.INSUFFICIENT_FUNDS")
        expires_at_s = check["expires_at_s"]
        book.execute(
            "INSERT INTO payouts (id, transaction_id, phone, bank_alias, amount_minor, status, status_date,"
            " check_expires_at_s, settles_at_s, ends_as, created_at_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                request.id, f"QP{secrets.token_hex(10)}", payee.phone, payee.bank_alias, amount_minor,
                PayoutStatus.WAITING_CONFIRMATION, date_text(now_s), expires_at_s, expires_at_s,
                DeclineReason.TIMEOUT, now_s,
            ),
        )  # fmt: skip
        return (
            Answer(200, as_json(books.payout(book, request.id)))
            if request.draft
            else self._go(book, request.id, fault, now_s)
        )

    def _confirm(self, book: sqlite3.Connection, reference: str, fault: Fault | None) -> Answer:
        row, now_s = books.find_payout(book, reference), time.time()
        if row is None:
            return refusal(verdicts.PAYOUT_NOT_FOUND, 404)
        if row["status"] != PayoutStatus.WAITING_CONFIRMATION:
            return Answer(200, as_json(row))
        if row["check_expires_at_s"] <= now_s:
            return refusal("ERROR.CHECK_EXPIRED")
        return self._go(book, reference, fault, now_s)

    def _go(self, book: sqlite3.Connection, reference: str, fault: Fault | None, now_s: float) -> Answer:
        """Execute, now or later. A decline is never answered at once: it comes later, and nobody is told."""
        if fault in (Fault.DECLINED, Fault.SLOW_SETTLE):
            books.move(book, reference, PayoutStatus.IN_PROGRESS, date_text(now_s))
            ends_as = DeclineReason.RECEIVER_ACCOUNT_ERROR if fault is Fault.DECLINED else PayoutStatus.COMPLETED
            book.execute(
                "UPDATE payouts SET settles_at_s = ?, ends_as = ? WHERE id = ?",
                (now_s + self.settle_after_s, ends_as, reference),
            )
        else:
            books.execute(book, reference, date_text(now_s), now_s)
        return Answer(200, as_json(books.payout(book, reference)))

    def _settle(self, book: sqlite3.Connection) -> list[str]:
        now_s, paid = time.time(), []
        for row in books.due(book, now_s):
            if row["ends_as"] == PayoutStatus.COMPLETED:
                books.execute(book, row["id"], date_text(now_s), now_s)
                paid.append(str(row["id"]))
            else:
                books.move(book, row["id"], PayoutStatus.DECLINED, date_text(now_s), row["ends_as"])
        return paid

    def _force(
        self, book: sqlite3.Connection, reference: str, status: str, reason: str, among: frozenset[PayoutStatus]
    ) -> Answer:
        row, now_s = books.find_payout(book, reference), time.time()
        if row is None:
            return refusal(verdicts.PAYOUT_NOT_FOUND, 404)
        if row["status"] not in among:
            return refusal("ERROR.NOT_OPEN", 409)
        if status == PayoutStatus.COMPLETED:
            books.execute(book, reference, date_text(now_s), now_s)
        else:
            books.move(book, reference, status, date_text(now_s), reason)
        return Answer(200, as_json(books.payout(book, reference)))


def refusal(code: str, status: int = 200) -> Answer:
    """Return an error answer; most come under HTTP 200, as the contract has it."""
    return Answer(status, {"code": code, "message": code.removeprefix("ERROR.").replace("_", " ").lower()})


def date_text(at_s: float) -> str:
    """Return a moment as the contract writes it: Moscow time with its offset."""
    return datetime.fromtimestamp(at_s, UTC).astimezone(MOSCOW).isoformat()


def as_json(row: sqlite3.Row) -> dict[str, Any]:
    """Return a payout as the contract shows it; the amount is a JSON number of roubles, by its digits."""
    status = {"value": row["status"], "date": row["status_date"]}
    if row["status"] == PayoutStatus.DECLINED:
        status["declineReason"] = row["reason"]
    return {
        "id": row["id"],
        "amount": orjson.Fragment(to_major_text(row["amount_minor"], RUB)),
        "currency": RUB.code,
        "status": status,
        "transactionId": row["transaction_id"],
        "payoutMethod": "SBP",
        "payoutParams": {"phone": row["phone"], "bankAlias": row["bank_alias"]},
    }


def read(model: type[Model], body: bytes) -> Model | Answer:
    """Return the request, or the refusal of what is none."""
    try:
        document = read_json(body)
    except ValueError:
        return refusal("ERROR.INVALID_REQUEST", 400)
    asked = parsed(model, document)
    return refusal("ERROR.INVALID_REQUEST", 400) if isinstance(asked, str) else asked
