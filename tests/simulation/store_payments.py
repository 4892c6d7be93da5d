"""Intents, ledger, facts, rails and what else the use cases keep, behind the services' own ports, in memory."""

from collections.abc import Mapping, Sequence
from copy import copy
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson

from core.domain.intents import ALLOWED, IntentRow, Move
from core.domain.ledger import Account, AccountBalance, AccountResult, Transfer, TransferResult
from core.domain.ledger_rules import LedgerState, judge
from core.domain.limits import Payer, Usage, UsageKey
from core.domain.verdicts import PAID, AttemptView, FactKey
from core.services.payments.authorize import Moment
from core.services.settling.claims import Claimant, TransactionTakenError
from core.services.settling.facts import Alert, Fact, Histories
from core.services.settling.rails import RailState
from core.services.settling.settle import Delivery
from core.services.terms.limits import BookState, StoredLimit, Take, UsageMove
from core.services.terms.routes import RailTerms, Route, terms
from core.services.vault_port import Plain, Sealed
from schemas.dead_letters import DeadLetter
from schemas.events import IntentState
from schemas.permits import Payee
from schemas.rails import RailRegistration
from tests.simulation.database import Transaction


class Intents:
    """The intents; every change is one version, as the events count them."""

    async def moment(self, uow: Transaction) -> Moment:
        """Return the database's clock and the ledger epoch."""
        await uow.step()
        return Moment(uow.now, max(uow.rows("epochs")))

    async def insert_intents(self, uow: Transaction, intents: Sequence[IntentRow]) -> None:
        """Insert new intents."""
        await uow.step()
        for intent in intents:
            intent.created_at = intent.updated_at = uow.now
            uow.put("intents", intent.id, copy(intent))

    async def load_intents(self, uow: Transaction, ids: Sequence[UUID], *, lock: bool = False) -> dict[UUID, IntentRow]:
        """Return the intents that exist; with `lock`, locked in id order."""
        await uow.step()
        wanted = [each for each in sorted(ids) if uow.look("intents", each) is not None]
        if lock:
            await uow.lock("intents", wanted)
        return {each: uow.get("intents", each) for each in wanted}

    async def move_intents(self, uow: Transaction, moves: Sequence[Move]) -> set[UUID]:
        """Move intents whose state allows it; return which moved."""
        await uow.step()
        await uow.lock("intents", sorted(move.intent_id for move in moves))
        return {move.intent_id for move in moves if self._move(uow, move)}

    async def move_locked_intents(self, uow: Transaction, moves: Sequence[Move]) -> None:
        """Move intents that are locked and may move."""
        assert len(await self.move_intents(uow, moves)) == len(moves), "an intent moved under its lock"

    async def paid_after_void(self, uow: Transaction, references: Mapping[UUID, str]) -> None:
        """Name the provider's transaction of locked intents that ended unpaid."""
        await uow.step()
        for intent_id, reference in references.items():
            row: IntentRow = uow.get("intents", intent_id)
            row.provider_reference, row.version = row.provider_reference or reference, row.version + 1
            uow.put("intents", row.id, row)

    def _move(self, uow: Transaction, move: Move) -> bool:
        row: IntentRow | None = uow.get("intents", move.intent_id)
        if row is None or IntentState(row.state) not in ALLOWED[move.to]:
            return False
        row.state, row.version, row.updated_at = move.to, row.version + 1, uow.now
        for name in ("failure_code", "failure_message", "decision", "provider_reference", "fee_minor", "deadline"):
            if (value := getattr(move, name)) is not None:
                setattr(row, name, value)
        if move.lookup is not None:
            row.lookup = orjson.loads(orjson.dumps(move.lookup))
        if move.parked is not None:
            row.parked_at = uow.now if move.parked else None
        uow.put("intents", row.id, row)
        return True


class Ledger:
    """The exact rules of the domain over locked accounts."""

    async def create_accounts(self, uow: Transaction, accounts: Sequence[Account]) -> list[AccountResult]:
        """Open accounts; one that exists stays."""
        await uow.step()
        answers = []
        for account in accounts:
            known = uow.look("accounts", account.id) is not None
            if not known:
                await uow.lock("accounts", [account.id])
                known = uow.look("accounts", account.id) is not None
            if not known:
                uow.put("accounts", account.id, AccountBalance(account))
            answers.append(AccountResult.EXISTS if known else AccountResult.OK)
        return answers

    async def apply(self, uow: Transaction, transfers: Sequence[Transfer]) -> list[TransferResult]:
        """Judge transfers in order under the locks of their accounts."""
        await uow.step()
        touched = sorted({each for t in transfers for each in (t.debit_account_id, t.credit_account_id)})
        await uow.lock("accounts", touched)
        state = LedgerState()
        for account_id in touched:
            if (balance := uow.look("accounts", account_id)) is not None:
                state.accounts[account_id] = balance
        for transfer_id in {each for t in transfers for each in (t.id, t.pending_id) if each is not None}:
            if (known := uow.look("transfers", transfer_id)) is not None:
                state.transfers[transfer_id] = known
            if (resolved := uow.look("resolutions", transfer_id)) is not None:
                state.resolutions[transfer_id] = resolved
        answers = judge(state, transfers)
        for account_id, balance in state.accounts.items():
            uow.put("accounts", account_id, balance)
        for transfer, answer in zip(transfers, answers, strict=True):
            if answer is TransferResult.OK:
                uow.put("transfers", transfer.id, transfer)
                if transfer.pending_id is not None:
                    uow.put("resolutions", transfer.pending_id, state.resolutions[transfer.pending_id])
        return answers


class Facts:
    """The inbox, the negatives and the alerts."""

    async def attempts_of(self, uow: Transaction, job_ids: Sequence[UUID]) -> dict[UUID, dict[int, AttemptView]]:
        """Return the permits of each job by fence."""
        await uow.step()
        return {job_id: dict(_attempts(uow, job_id)) for job_id in job_ids}

    async def mark_negative(self, uow: Transaction, fences: Sequence[tuple[UUID, int]]) -> None:
        """Keep that these permits are proven unpaid."""
        await uow.step()
        for key in fences:
            if (attempt := uow.get("attempts", key)) is not None:
                attempt.negative = True
                uow.put("attempts", key, attempt)

    async def histories_of(
        self, uow: Transaction, rail: str, payments: Sequence[UUID], executed: Sequence[UUID]
    ) -> Histories:
        """Return the rail's state, each payment's permits, and the money hashes known under each inbox key."""
        state = await RailStore().rail_state(uow, rail)
        known: dict[FactKey, set[bytes]] = {}
        for job_id in executed:
            for fact in uow.look("facts", job_id) or ():
                key = (job_id, fact.result.fence, fact.result.verdict)
                known.setdefault(key, set()).add(fact.money_hash)
        return Histories(state, {job_id: dict(_attempts(uow, job_id)) for job_id in payments}, known)

    async def unapplied_positives(self, uow: Transaction, intent_ids: Sequence[UUID]) -> set[UUID]:
        """Return the intents with a "paid" that was not applied."""
        await uow.step()
        return {each for each in intent_ids if any(_unapplied(uow, job) for job in uow.look("jobs_of", each) or ())}

    async def insert_facts(self, uow: Transaction, facts: Sequence[Fact]) -> None:
        """Keep facts once each, by job, fence, verdict and money."""
        await uow.step()
        for fact in facts:
            own = (fact.result.fence, fact.result.verdict, fact.money_hash)
            kept = uow.look("facts", fact.result.job_id) or ()
            if own not in [(each.result.fence, each.result.verdict, each.money_hash) for each in kept]:
                uow.put("facts", fact.result.job_id, (*kept, fact))

    async def raise_alerts(self, uow: Transaction, alerts: Sequence[Alert]) -> None:
        """Keep alerts once each."""
        await uow.step()
        for alert in alerts:
            uow.put("alerts", alert.id, alert)

    async def close_alerts(self, uow: Transaction, intent_ids: Sequence[UUID], kind: str, because: str) -> None:
        """Only of what was parked and has ended: no provider of the simulation gives back what it paid after a void."""
        assert kind == "unresolved", f"a provider gave {intent_ids} back: {kind}, {because}"
        await uow.step()


def _attempts(uow: Transaction, job_id: UUID) -> list[tuple[int, AttemptView]]:
    job = uow.look("jobs", job_id)
    fences = range(1, job.fence + 1) if job is not None else ()
    return [(fence, found) for fence in fences if (found := uow.get("attempts", (job_id, fence))) is not None]


def _unapplied(uow: Transaction, job_id: UUID) -> bool:
    facts: Sequence[Fact] = uow.look("facts", job_id) or ()
    return any(fact.quarantine is not None and fact.result.verdict in PAID for fact in facts)


class ClaimStore:
    """Whom the provider's transactions paid."""

    async def claim(self, uow: Transaction, claims: Mapping[bytes, Claimant]) -> None:
        """Keep them with the statement that comes next. Raises TransactionTakenError."""
        await uow.lock("claims", sorted(claims))
        if any(uow.look("claims", each) is not None for each in claims):
            raise TransactionTakenError
        for each, claimant in claims.items():
            uow.put("claims", each, claimant)

    async def claimants(self, uow: Transaction, claims: Sequence[bytes]) -> dict[bytes, Claimant]:
        """Return whom these paid."""
        await uow.step()
        return {each: found for each in claims if (found := uow.look("claims", each)) is not None}


class RailStore:
    """Registrations by version, pauses, and the ledger epochs as (raised at, cleared at)."""

    async def rail_state(self, uow: Transaction, rail: str) -> RailState:
        """Return what holds for the rail."""
        await uow.step()
        epochs: dict[int, tuple[datetime, datetime | None]] = uow.rows("epochs")
        newest = max(epochs)
        raised_at, cleared_at = epochs[newest]
        versions: tuple[RailRegistration, ...] = uow.look("registrations", rail) or ()
        paused = frozenset(operation for name, operation in uow.rows("pauses") if name == rail)
        registration = versions[-1] if versions else None
        return RailState(uow.now, registration, paused, newest, cleared_at is not None, raised_at)

    async def register_rail(self, uow: Transaction, rail: str, body: str, body_hash: bytes) -> int:
        """Keep a registration unless it is the newest already."""
        await uow.step()
        versions: tuple[RailRegistration, ...] = uow.look("registrations", rail) or ()
        declared = RailRegistration.model_validate_json(body)
        if not versions or versions[-1] != declared:
            versions = (*versions, declared)
            uow.put("registrations", rail, versions)
        return len(versions)

    async def pause_rail(self, uow: Transaction, rail: str, operation: str, actor: str, reason: str) -> bool:
        """Refuse new first permits."""
        await uow.step()
        known = uow.look("pauses", (rail, operation)) is not None
        if not known:
            uow.put("pauses", (rail, operation), uow.now)
        return not known

    async def resume_rail(self, uow: Transaction, rail: str, operation: str) -> int:
        """Give first permits again; what waited unsent gets the time back."""
        await uow.step()
        began: datetime | None = uow.look("pauses", (rail, operation))
        if began is None:
            return 0
        uow.put("pauses", (rail, operation), None)
        rows = {each: uow.look("jobs", each) for each in sorted(uow.database.open_jobs)}
        unsent = [each for each, job in rows.items() if job.fence == 0 and not job.kind.on_control_stream]
        await uow.lock("jobs", unsent)
        waited = [job for each in unsent if (job := uow.get("jobs", each)).closed_at is None and job.fence == 0]
        await uow.lock("intents", sorted(job.intent_id for job in waited))
        for job in waited:
            job.deadline += uow.now - began
            uow.put("jobs", job.id, job)
            intent = uow.get("intents", job.intent_id)
            intent.deadline = job.deadline
            uow.put("intents", intent.id, intent)
        return len(waited)

    async def known_rails(self, uow: Transaction) -> Sequence[str]:
        """Return every rail that registered."""
        return sorted(uow.rows("registrations"))


class Routes:
    """One route: every payout goes to the rail's newest registered account."""

    def __init__(self, rail: str) -> None:
        self._rail = rail

    async def routes_of(self, uow: Transaction, tenant_id: UUID) -> Mapping[tuple[str, str], Sequence[Route]]:
        """Return the one route."""
        await uow.step()
        newest: RailRegistration = uow.look("registrations", self._rail)[-1]
        route = Route(self._rail, newest.provider, newest.provider_account, newest.environment, newest)
        return {("PAYOUT", "THB"): (route,)}

    async def terms_of(self, uow: Transaction, rail: str, operation: str) -> RailTerms:
        """Return the rail's terms."""
        return terms(uow.look("registrations", rail)[-1], operation)


class Limits:
    """No tenant has set a limit."""

    async def book_state(self, uow: Transaction, tenant_id: UUID) -> BookState:
        """Return the state of a book without limits."""
        return BookState(0, ZoneInfo("UTC"))

    async def latest_limits(self, uow: Transaction, tenant_id: UUID) -> Sequence[StoredLimit]:
        """Return none."""
        return ()

    async def payers_of(self, uow: Transaction, wallet_ids: Sequence[UUID]) -> dict[UUID, Payer]:
        """Return none: nobody is limited."""
        return {}

    async def take_usage(self, uow: Transaction, takes: Sequence[Take]) -> bool:
        """Take nothing: nothing is counted."""
        return True

    async def lock_usage(self, uow: Transaction, keys: Sequence[tuple[UUID, UsageKey]]) -> dict[UsageKey, Usage]:
        """Return none: nothing is counted."""
        return {}

    async def move_usage(self, uow: Transaction, moves: Mapping[UsageKey, UsageMove], *, locked: bool) -> bool:
        """Find no counter."""
        return False


class Vault:
    """Instructions; nothing is encrypted where nothing leaves the process."""

    def subject_id(self, tenant_id: UUID, payee: Payee) -> UUID:
        """Everybody of a tenant is one subject: nothing here is encrypted."""
        return tenant_id

    async def seal_instructions(
        self, uow: Transaction, plains: Sequence[Plain], wrapped_keys: Mapping[UUID, bytes | None]
    ) -> dict[UUID, Sealed]:
        """Write what is to be done as it is."""
        return {
            plain.intent_id: Sealed(plain.intent_id, plain.subject_id, plain.payee.model_dump_json().encode(), b"")
            for plain in plains
        }

    def open_instructions(self, sealed: Sequence[Sealed]) -> dict[UUID, tuple[Payee | None, str]]:
        """Return payee and message by intent."""
        return {item.intent_id: (Payee.model_validate_json(item.ciphertext or b""), "") for item in sealed}

    def seal_bytes(self, plain: bytes, *, bound_to: str) -> bytes:
        """Return it as it is."""
        return plain

    def open_bytes(self, ciphertext: bytes, *, bound_to: str) -> bytes:
        """Return it as it is."""
        return ciphertext


class Letters:
    """Dead jobs and unusable results."""

    async def keep_result(self, uow: Transaction, delivery: Delivery, error_class: str) -> None:
        """Keep a result that cannot be used."""
        await uow.step()
        uow.put("letters", (delivery.stream, delivery.entry_id), (error_class, delivery.body))

    async def keep_dead(self, uow: Transaction, letters: Sequence[DeadLetter]) -> None:
        """Keep each letter once and mark the open jobs of new ones DEAD."""
        await uow.step()
        for letter in letters:
            key = (letter.stream, letter.entry_id)
            if uow.look("letters", key) is not None:
                continue
            uow.put("letters", key, (letter.error_class, letter.body))
            if letter.job_id is not None and uow.look("jobs", letter.job_id) is not None:
                await uow.lock("jobs", [letter.job_id])
                job = uow.get("jobs", letter.job_id)
                if job.closed_at is None and job.state in ("READY", "QUEUED"):
                    job.state = type(job.state)("DEAD")
                    job.next_check_at = uow.now + timedelta(0) if job.fence > 0 else None
                    uow.put("jobs", job.id, job)


class Evidence:
    """Names that the streams do not carry."""

    async def payee_name(self, uow: Transaction, evidence_id: Any) -> str | None:
        """Return the name behind an evidence."""
        await uow.step()
        found: str | None = uow.look("evidence", evidence_id)
        return found
