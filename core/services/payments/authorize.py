"""Authorize: hold principal and fee, and hand the payment to its rail, for a whole batch in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from core.domain.ids import derive_id
from core.domain.intents import IntentRow, Move
from core.domain.jobs import JobRow, mint_reference
from core.domain.ledger import AccountFlags, Transfer, TransferResult
from core.domain.operations import accounts_of, hold_transfers, liquidity_of, posting_transfers, settles_at_once
from core.domain.registry import OPERATIONS
from core.services.ledger_port import Ledger
from core.services.terms.limits import Desk, LimitBook
from core.services.terms.routes import RailTerms, Routes
from schemas.events import IntentState
from schemas.operations import JobKind, OperationType

_DONE = frozenset({TransferResult.OK, TransferResult.EXISTS})
_SECONDARY = frozenset({TransferResult.LINKED_EVENT_FAILED})
_LEDGER_CODES = frozenset({"insufficient_funds", "insufficient_liquidity", "account_closed", "account_frozen"})
"""Why the ledger does not take a payment; what else makes one fail, the ledger was never asked about."""
_ACCOUNT_MISSING = frozenset({TransferResult.DEBIT_ACCOUNT_NOT_FOUND, TransferResult.CREDIT_ACCOUNT_NOT_FOUND})


class LedgerRefusedError(RuntimeError):
    """The ledger gave an answer that no valid intent can cause; the transaction must not commit."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The database's clock and the ledger epoch, read inside the transaction."""

    now: datetime
    ledger_epoch: int


class Intents(Protocol):
    """What authorization needs of the intents' store."""

    async def moment(self, uow: Any) -> Moment: ...

    async def move_intents(self, uow: Any, moves: Sequence[Move]) -> set[UUID]: ...


class Jobs(Protocol):
    """What authorization needs of the jobs' store."""

    async def insert_first_jobs(self, uow: Any, jobs: Sequence[JobRow]) -> None: ...


class Collections(Protocol):
    """Where the references of money in are kept."""

    async def open(self, uow: Any, jobs: Sequence[JobRow]) -> None: ...


class AuthorizePorts(Protocol):
    """What authorization works with."""

    @property
    def ledger(self) -> Ledger: ...
    @property
    def intents(self) -> Intents: ...
    @property
    def jobs(self) -> Jobs: ...
    @property
    def routes(self) -> Routes: ...
    @property
    def limits(self) -> LimitBook: ...
    @property
    def review_within(self) -> timedelta: ...
    @property
    def collections(self) -> Collections: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one intent. `state` is AUTHORIZED, SETTLED (no rail needed), REVIEW or FAILED."""

    intent_id: UUID
    state: IntentState
    deadline: datetime | None = None
    failure_code: str | None = None
    failure_message: str | None = None

    def move(self, intent: IntentRow) -> Move:
        """Return the change of state that this outcome is."""
        return Move(
            intent_id=self.intent_id,
            to=self.state,
            type=self.state.lower(),
            data={"reason": self.failure_code} if self.failure_code else {},
            failure_code=self.failure_code,
            failure_message=self.failure_message,
            decision="POST" if self.state is IntentState.SETTLED else None,
            fee_minor=intent.fee_minor,
            limits=intent.limits,
            deadline=self.deadline,
        )


def refused_at_last(intent: IntentRow) -> bool:
    """Whether the ledger or a counter refused the payment: a limit per transaction does so without either."""
    exceeded = (intent.limits or {}).get("exceeded")
    return intent.failure_code in _LEDGER_CODES or (exceeded is not None and exceeded["renews_at"] is not None)


async def authorize(uow: Any, ports: AuthorizePorts, intents: Sequence[IntentRow]) -> dict[UUID, Outcome]:
    """Hold, queue and move intents that are stored already; the fee to hold is each row's `fee_minor`.

    The caller has locked the rows and seen that they may be authorized. Limits and funds that do not suffice move to
    FAILED.
    Raises LedgerRefusedError when the batch must not commit, and Refusal `rail_unavailable` before the first write.
    """
    # Before anything is written: a rail that is not there refuses here, and leaves nothing to undo.
    terms = {
        intent.id: await ports.routes.terms_of(uow, intent.rail, intent.operation)
        for intent in intents
        if intent.rail is not None
    }
    outcomes = await place_holds(uow, ports, intents, terms, await ports.intents.moment(uow))
    await ports.intents.move_intents(uow, [outcomes[intent.id].move(intent) for intent in intents])
    return outcomes


async def place_holds(
    uow: Any,
    ports: AuthorizePorts,
    intents: Sequence[IntentRow],
    terms: Mapping[UUID, RailTerms],
    moment: Moment,
    originals: Mapping[UUID, IntentRow] | None = None,
) -> dict[UUID, Outcome]:
    """Hold limits and money and insert the pay jobs, without moving the intents: acceptance writes them afterwards.

    Counters of limits are locked before accounts, here and where intents end. `terms` has those of every intent that
    needs a rail, `originals` the payments that refunds are about.
    """
    if not intents:
        return {}
    desk = await ports.limits.open(uow, intents, moment.now, originals)
    failures = await _admit(uow, ports.ledger, desk, intents)
    outcomes: dict[UUID, Outcome] = {}
    jobs: list[JobRow] = []
    for intent in intents:
        failure = failures.get(intent.id)
        if failure is not None:
            outcomes[intent.id] = Outcome(intent.id, IntentState.FAILED, None, *failure)
            continue
        if intent.requires_monitoring and not intent.is_collected:
            # What is collected waits once it is there, and not before.
            outcomes[intent.id] = Outcome(intent.id, IntentState.REVIEW, moment.now + ports.review_within)
            continue
        kind = OPERATIONS[OperationType(intent.operation)].job_kind_of(intent.direction)
        if kind is None:
            outcomes[intent.id] = Outcome(intent.id, IntentState.SETTLED)
            continue
        agreed = terms[intent.id]
        deadline = moment.now + agreed.deadline
        # The intent's own epoch: one of before a restore may have been authorized and sent in the time that was lost.
        jobs.append(new_job(intent, kind, deadline, agreed.reference_length, intent.ledger_epoch))
        outcomes[intent.id] = Outcome(intent.id, IntentState.AUTHORIZED, deadline)
    if desk is not None:
        await desk.write(uow, ((intent, outcomes[intent.id].state) for intent in intents))
    await ports.jobs.insert_first_jobs(uow, jobs)
    collecting = [job for job in jobs if job.kind is JobKind.COLLECT]
    if collecting:
        await ports.collections.open(uow, collecting)
    return outcomes


def new_job(intent: IntentRow, kind: JobKind, deadline: datetime, reference_length: int, ledger_epoch: int) -> JobRow:
    """Return the intent's job of one kind; the same intent and kind give the same job and reference, always."""
    job_id = derive_id(intent.id, "job", kind)
    return JobRow(
        id=job_id,
        tenant_id=intent.tenant_id,
        intent_id=intent.id,
        kind=kind,
        operation=OperationType(intent.operation),
        rail=intent.rail or "",
        provider=intent.provider or "",
        provider_account=intent.provider_account or "",
        environment=intent.environment or "",
        reference=mint_reference(job_id, reference_length),
        amount_minor=intent.received_minor,
        currency=intent.currency,
        deadline=deadline,
        payee_masked=intent.payee_masked or "",
        ledger_epoch=ledger_epoch,
        traceparent=intent.traceparent,
    )


async def _admit(
    uow: Any, ledger: Ledger, desk: Desk | None, intents: Sequence[IntentRow]
) -> dict[UUID, tuple[str, str]]:
    """Hold what fits its limits, in the order given; return code and text of the intents that failed.

    A limit that a payment does not fit comes before the funds that it lacks. A payment without funds takes nothing of
    its limits: what it seemed to take is offered once more to those that did not fit.
    """
    if desk is None:
        return await _hold(uow, ledger, intents)
    failures: dict[UUID, tuple[str, str]] = {}
    waiting = list(intents)
    while waiting:
        refused = {intent.id: text for intent in waiting if (text := desk.admit(intent)) is not None}
        admitted = [intent for intent in waiting if intent.id not in refused] if refused else waiting
        lacking = await _hold(uow, ledger, admitted) if admitted else {}
        for intent in admitted if lacking else ():
            if intent.id in lacking:
                desk.release(intent)
        failures |= lacking
        if not lacking:
            return failures | {intent_id: ("limit_exceeded", text) for intent_id, text in refused.items()}
        waiting = [intent for intent in waiting if intent.id in refused]
    return failures


async def _hold(uow: Any, ledger: Ledger, intents: Sequence[IntentRow]) -> dict[UUID, tuple[str, str]]:
    """Apply every intent's chain; return code and text of those that failed."""
    closed = await _closed(uow, ledger, [intent for intent in intents if intent.is_collected])
    intents = [intent for intent in intents if not intent.is_collected]
    chains = {intent.id: _transfers(intent) for intent in intents}
    answers = await _apply(uow, ledger, chains) if chains else None
    if answers is None:
        return closed
    lacking = [intent for intent in intents if _ACCOUNT_MISSING & set(answers[intent.id])]
    if lacking:
        # A tenant's own accounts are made on first use; what is missing after this is a wallet, and a defect.
        accounts = {account.id: account for intent in lacking for account in accounts_of(intent)}
        await ledger.create_accounts(uow, sorted(accounts.values(), key=lambda account: account.id.int))
        again = {intent.id: chains[intent.id] for intent in lacking}
        answers |= await _apply(uow, ledger, again) or dict.fromkeys(again, ())
    return closed | {
        intent.id: failure
        for intent in intents
        if (failure := _failure(intent, chains[intent.id], answers[intent.id])) is not None
    }


async def _closed(uow: Any, ledger: Ledger, intents: Sequence[IntentRow]) -> dict[UUID, tuple[str, str]]:
    """Return code and text of collections whose wallet takes nothing any more; the others hold no money."""
    if not intents:
        return {}
    wallets = await ledger.lookup_accounts(uow, sorted({intent.wallet_id for intent in intents}))
    return {
        intent.id: ("account_closed", "the wallet is closed")
        for intent in intents
        if wallets[intent.wallet_id].account.flags & AccountFlags.CLOSED
    }


def _transfers(intent: IntentRow) -> list[Transfer]:
    return posting_transfers(intent) if settles_at_once(intent) else hold_transfers(intent)


async def _apply(
    uow: Any, ledger: Ledger, chains: Mapping[UUID, Sequence[Transfer]]
) -> dict[UUID, Sequence[TransferResult]] | None:
    """Apply the chains; None where all of it was taken, as mostly."""
    answers = await ledger.apply(uow, [transfer for chain in chains.values() for transfer in chain])
    if answers.count(TransferResult.OK) == len(answers):
        return None
    results = iter(answers)
    return {intent_id: [next(results) for _ in chain] for intent_id, chain in chains.items()}


def _failure(intent: IntentRow, chain: Sequence[Transfer], answers: Sequence[TransferResult]) -> tuple[str, str] | None:
    if _DONE.issuperset(answers):
        return None
    causes = [
        (answer, transfer) for answer, transfer in zip(answers, chain, strict=True) if answer not in _DONE | _SECONDARY
    ]
    if not causes:
        return None
    cause, transfer = causes[0]
    if cause is TransferResult.EXCEEDS_CREDITS:
        if transfer.debit_account_id in liquidity_of(intent):
            return (
                "insufficient_liquidity",
                "there is not enough of the currency to exchange into: ask for less, or later",
            )
        return "insufficient_funds", "the wallet's available balance does not cover amount and fee"
    if cause in (TransferResult.DEBIT_ACCOUNT_ALREADY_CLOSED, TransferResult.CREDIT_ACCOUNT_ALREADY_CLOSED):
        return "account_closed", "the wallet is closed"
    if cause is TransferResult.DEBIT_ACCOUNT_FROZEN:
        return "account_frozen", "the wallet is frozen: it gives nothing until it is unfrozen"
    raise LedgerRefusedError(f"the ledger answered {cause} to a hold")
