"""Sends the payments through the public API, waits for the last one, and collects what became of them."""

import asyncio
import contextlib
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from uuid import UUID

from pydantic import ValidationError

from core.domain.context import Context
from core.store.database import AWAY, Database
from fleet.client import FleetClient, Refused
from fleet.demo.money_in import COLLECTIONS, DIRECT_DEBIT, REFUND, Collected, MoneyIn, PayIn
from fleet.demo.payments_file import PaymentLine, RefusedLine
from schemas.api import AutoConfirm, BatchItem, IntentRequest, WalletRequest
from schemas.faults import first_fault
from schemas.mandates import MANDATE_PAYEE, MandateDetail, MandateRequest
from schemas.money import currency_of, to_minor
from schemas.operations import OperationType
from schemas.permits import Payee

CHUNK = 250
_POLL_S = 0.25
_PARKED_S = 10.0
"""How long a parked payment is waited for: the core goes on asking, and the answer may be near."""
_MAX_FEE_MINOR = 5_000
_SIGNED_ON = date(2026, 1, 5)
_OPERATIONS = {
    "bank_account": OperationType.WITHDRAWAL,
    "iban": OperationType.WITHDRAWAL,
    "bill": OperationType.BILL_PAYMENT,
}
"""Payee type -> operation: the stack routes withdrawals to the bank, payouts and bills to PromptPay."""

_STATES = """
    SELECT state, coalesce(failure_code, '') AS reason, count(*)
      FROM fleet.intents WHERE id >= $1 AND id = ANY($2) GROUP BY 1, 2
"""
_DEAD_LETTERS = "SELECT count(DISTINCT job_id) FROM fleet.dead_letters WHERE intent_id = ANY($1)"
_DOUBTED = """
    SELECT count(*) FROM fleet.intents i
     WHERE i.id >= $1 AND i.id = ANY($2) AND i.state = 'SETTLED'
       AND EXISTS (SELECT FROM fleet.facts f WHERE f.intent_id = i.id AND f.verdict = 'UNKNOWN')
"""
_ENDS = ("SETTLED", "FAILED", "CANCELLED", "EXPIRED", "UNRESOLVED")


@dataclass(slots=True)
class Run:
    """What has happened so far; `accepted` are the intents of this run, replays of an earlier one among them."""

    accepted: set[UUID] = field(default_factory=set)
    refused: list[RefusedLine] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    dead_lettered: int = 0
    doubted: int = 0
    """Settled, though an answer on the way was lost, late or unusable: the provider was asked until it was definite."""
    seconds: float = 0.0

    @property
    def ended(self) -> int:
        """Return how many intents are terminal or UNRESOLVED."""
        return sum(self.ends.values())


class WaitedTooLongError(TimeoutError):
    """Some intents neither ended nor were parked in time."""


async def run_payments(
    client: FleetClient,
    database: Database,
    lines: Iterable[PaymentLine | RefusedLine],
    *,
    opening_balance: str,
    wait_s: int,
    progress: Callable[[Run], None],
    pay_in: PayIn,
    run: Run | None = None,
) -> Run:
    """Send every line, wait until each intent is terminal or UNRESOLVED; memory grows by one id per payment.

    `pay_in` plays the payers of what is collected. A `run` that is given is filled on the way, so that an interrupted
    one can be told. Raises WaitedTooLongError after `wait_s` seconds without a change.
    """
    run, started = run or Run(), time.monotonic()
    sender = _Sender(client, _Wallets(client, opening_balance), MoneyIn(database, pay_in), run)
    for chunk in _chunks(lines):
        run.refused.extend(line for line in chunk if isinstance(line, RefusedLine))
        payments = [line for line in chunk if isinstance(line, PaymentLine)]
        if payments:
            await sender.send(payments)
        progress(run)
    await _wait(database, sender, wait_s, progress)
    run.refused.sort(key=lambda line: line.line)
    run.seconds = time.monotonic() - started
    return run


def _chunks(lines: Iterable[PaymentLine | RefusedLine]) -> Iterator[list[PaymentLine | RefusedLine]]:
    iterator = iter(lines)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


class _Sender:
    """Sends lines as intents, and refunds once what they give back has ended."""

    def __init__(self, client: FleetClient, wallets: "_Wallets", money_in: MoneyIn, run: Run) -> None:
        self._client, self._wallets, self._money_in, self.run = client, wallets, money_in, run

    @property
    def waits(self) -> bool:
        """Whether lines are left to be sent."""
        return self._money_in.waits

    async def send(self, lines: list[PaymentLine]) -> None:
        """Send payments and collections at once; keep refunds for later."""
        items: list[BatchItem] = []
        sent: list[PaymentLine] = []
        for line in (line for line in lines if line.payee_type != REFUND):
            try:
                items.append(await _item(line, self._wallets))
                sent.append(line)
            except Refused as error:
                self.run.refused.append(RefusedLine(line.line, error.problem.code, error.problem.detail))
            except ValueError as error:
                self.run.refused.append(RefusedLine(line.line, "invalid_field", _plainly(error)))
        await self._create(sent, items)
        for line in (line for line in lines if line.payee_type == REFUND):
            if (refused := self._money_in.wanted(line)) is not None:
                self.run.refused.append(refused)

    async def go_on(self) -> None:
        """Let payers pay, and send the refunds of what was paid."""
        await self._money_in.pay()
        due = await self._money_in.due()
        await self._create([line for line, _ in due], [_refund(line, original) for line, original in due])

    async def _create(self, lines: list[PaymentLine], items: list[BatchItem]) -> None:
        if not items:
            return
        for line, result in zip(lines, await self._client.create_intents(items), strict=True):
            if result.intent is not None:
                self.run.accepted.add(result.intent.id)
                if line.payee_type in COLLECTIONS:
                    self._money_in.accepted(line, Collected(result.intent.id, result.intent.wallet_id))
            elif result.problem is not None:
                self.run.refused.append(RefusedLine(line.line, result.problem.code, result.problem.detail))


def _plainly(error: ValueError) -> str:
    """Return the first fault of a line as a sentence."""
    if not isinstance(error, ValidationError):
        return str(error)
    fault = first_fault(error)
    if fault.field.rpartition(".")[2] == "type":
        return "payee_type is a name of lower-case letters, digits and underscores, such as national_id"
    return f"{fault.field}: {fault.words}".removeprefix(": ")


def _key(line: PaymentLine) -> str:
    return "file-" + hashlib.sha256(line.reference.encode()).hexdigest()[:40]


async def _item(payment: PaymentLine, wallets: "_Wallets") -> BatchItem:
    wallet_id, collects = await wallets.open(payment.wallet, payment.currency), payment.payee_type in COLLECTIONS
    payee = None if collects else Payee(type=payment.payee_type, value=payment.payee)
    if payment.payee_type == DIRECT_DEBIT:
        payee = await wallets.sign(payment, wallet_id)
    operations = _OPERATIONS | COLLECTIONS
    return BatchItem(
        idempotency_key=_key(payment),
        intent=IntentRequest(
            operation=operations.get(payment.payee_type, OperationType.PAYOUT),
            wallet_id=wallet_id,
            amount_minor=payment.amount_minor,
            currency=payment.currency,
            payee=payee,
            message=payment.message,
            reference=payment.reference,
            auto_confirm=None if collects else AutoConfirm(max_fee_minor=_MAX_FEE_MINOR),
        ),
    )


def _refund(line: PaymentLine, original: Collected) -> BatchItem:
    return BatchItem(
        idempotency_key=_key(line),
        intent=IntentRequest(
            operation=OperationType.REFUND,
            original_intent_id=original.intent_id,
            wallet_id=original.wallet_id,
            amount_minor=line.amount_minor,
            currency=line.currency,
            message=line.message,
            reference=line.reference,
        ),
    )


class _Wallets:
    """Opens each wallet of the file once, with the same opening balance, by a manual adjustment."""

    def __init__(self, client: FleetClient, opening_balance: str) -> None:
        self._client, self._opening_balance = client, opening_balance
        self._known: dict[tuple[str, str], UUID] = {}

    async def open(self, name: str, currency: str) -> UUID:
        known = self._known.get((name, currency))
        if known is not None:
            return known
        digest = hashlib.sha256(f"{name}.{currency}".encode()).hexdigest()[:24]
        wallet = await self._client.create_wallet(
            WalletRequest(owner=f"demo-{digest}", currency=currency, external_id=f"demo-{digest}")
        )
        amount_minor = to_minor(self._opening_balance, currency_of(currency))
        await self._client.create_intent(
            IntentRequest(
                operation=OperationType.MANUAL_ADJUSTMENT,
                wallet_id=wallet.id,
                amount_minor=amount_minor,
                currency=currency,
                reference="opening balance",
            ),
            idempotency_key=f"opening-{digest}",
        )
        self._known[(name, currency)] = wallet.id
        return wallet.id

    async def sign(self, line: PaymentLine, wallet_id: UUID) -> Payee:
        """Register the mandate that a line is pulled under, as its debtor signed it; again, it is the same one."""
        account, _, name = line.payee.partition(";")
        digest = hashlib.sha256(line.reference.encode()).hexdigest()[:20].upper()
        mandate = MandateRequest(
            mandate_id=f"DEMO-{digest}",
            wallet_id=wallet_id,
            signed_on=_SIGNED_ON,
            debtor_account=account,
            debtor_name=name,
        )
        await self._client.call("POST", "/v1/mandates", MandateDetail, body=mandate)
        return Payee(type=MANDATE_PAYEE, value=mandate.mandate_id)


async def _wait(database: Database, sender: _Sender, wait_s: int, progress: Callable[[Run], None]) -> None:
    run = sender.run
    if not run.accepted:
        return
    changed_at, before = time.monotonic(), (-1, -1)
    while True:
        # A database that restarts is one of the things that a demo may be tried with.
        with contextlib.suppress(*AWAY):
            await sender.go_on()
            await look(database, run)
        progress(run)
        now = (run.ended, run.ends["UNRESOLVED"])
        if now != before:
            changed_at, before = time.monotonic(), now
        unchanged_s = time.monotonic() - changed_at
        if run.ended == len(run.accepted) and not sender.waits:
            if not run.ends["UNRESOLVED"] or unchanged_s > _PARKED_S:
                return
        elif unchanged_s > wait_s:
            late = len(run.accepted) - run.ended
            raise WaitedTooLongError(f"{late} of {len(run.accepted)} payments did not end: no change for {wait_s} s")
        await asyncio.sleep(_POLL_S)


async def look(database: Database, run: Run) -> None:
    """Bring the run's counts up to date."""
    ids, first = list(run.accepted), min(run.accepted)
    async with database.unit_of_work(Context(None, "demo")) as uow:
        rows = await uow.connection.fetch(_STATES, first, ids)
        run.dead_lettered = await uow.connection.fetchval(_DEAD_LETTERS, ids)
        run.doubted = await uow.connection.fetchval(_DOUBTED, first, ids)
    run.ends = Counter({row["state"]: 0 for row in rows if row["state"] in _ENDS})
    run.failed = Counter()
    for row in rows:
        if row["state"] in _ENDS:
            run.ends[row["state"]] += row["count"]
        if row["state"] in ("FAILED", "CANCELLED", "EXPIRED"):
            run.failed[row["reason"] or row["state"].lower()] += row["count"]
