"""Money in: payments at providers are matched, credited, put into suspense or taken back, each transaction once.

The caller holds the locks of the collect jobs and intents that the facts may concern. Provider accounts are taken in
turn after those, accounts of the ledger last, as everywhere.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Protocol
from uuid import UUID

from core.domain.collections import EXACT, Judgement, Payment, Tolerance, judge, judge_return
from core.domain.ids import derive_id, mint_id
from core.domain.intents import IntentRow, Move
from core.domain.jobs import JobRow
from core.domain.ledger import Account, AccountBalance, AccountFlags, Transfer
from core.domain.operations import AccountCode, TransferCode, accounts_of, posting_transfers, system_account
from core.services.close_job import ClosePorts, Ending
from core.services.facts import Alert
from core.services.refunds import FeeRules, refundable
from schemas.collections import PaymentFate, PaymentKind, ProviderPayment
from schemas.events import IntentState
from schemas.money import currency_of
from schemas.operations import Direction, OperationType

SYSTEM_TENANT = UUID(int=0)
"""Keeps what came to a provider account of several tenants, or of none, with a reference that nobody knows."""

Reference = tuple[str, str, str]
"""Provider account, environment, reference."""
TransactionName = tuple[str, str, str, date | None]
"""Provider account, environment, the name, and the business day that it is unique in."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Which intent, and which job of it, a reference stands for."""

    intent_id: UUID
    tenant_id: UUID
    job_id: UUID


@dataclass(frozen=True, slots=True)
class NewPayment:
    """A payment to keep, with the fact that first told of it."""

    payment: Payment
    fact: ProviderPayment
    provider: str
    reason: str


class Collections(Protocol):
    """Where collections and payments are kept."""

    async def open(self, uow: Any, jobs: Sequence[JobRow]) -> None: ...

    async def by_reference(
        self, uow: Any, rail: str, references: Sequence[Reference]
    ) -> dict[Reference, Collection]: ...

    async def jobs_of_transactions(self, uow: Any, rail: str, names: Sequence[TransactionName]) -> set[UUID]: ...

    async def lock(self, uow: Any, rail: str, accounts: Sequence[str]) -> None: ...

    async def named(
        self, uow: Any, rail: str, names: Sequence[TransactionName]
    ) -> dict[tuple[str, TransactionName], Payment]: ...

    async def insert(self, uow: Any, rail: str, payments: Sequence[NewPayment]) -> None: ...

    async def name(self, uow: Any, rail: str, names: Mapping[tuple[str, TransactionName], Payment]) -> None: ...

    async def move(self, uow: Any, moved: Sequence[tuple[Payment, str]]) -> None: ...

    async def add_sources(self, uow: Any, told: Sequence[tuple[Payment, ProviderPayment, bool]]) -> None: ...

    async def note_event(self, uow: Any, rail: str, event_id: str, body_hash: bytes) -> bytes | None: ...

    async def tenant_of(self, uow: Any, rail: str, account: str, environment: str) -> UUID | None: ...

    async def hurry(self, uow: Any, rail: str, jobs: Sequence[UUID], references: Sequence[str]) -> None: ...

    async def show(self, uow: Any, actions: Mapping[UUID, Mapping[str, Any]]) -> None: ...

    async def consume(self, uow: Any, taken: Mapping[UUID, UUID]) -> None: ...

    async def confirm(self, uow: Any, received: Mapping[UUID, int]) -> None: ...

    async def tolerances_of(self, uow: Any, tenants: Sequence[UUID]) -> dict[tuple[UUID, str, str], Tolerance]: ...

    async def lapsed_notes(self, uow: Any, limit: int) -> list[dict[str, Any]]: ...


class CollectionPorts(ClosePorts, Protocol):
    """What taking money in works with."""

    @property
    def collections(self) -> Collections: ...
    @property
    def intents(self) -> Any: ...
    @property
    def fee_rules(self) -> FeeRules: ...


@dataclass(slots=True)
class Taken:
    """What the caller applies in one go: the ends of intents, the transfers beside them, what was made settled."""

    fates: list[PaymentFate] = field(default_factory=list)
    endings: dict[UUID, Ending] = field(default_factory=dict)
    transfers: list[Transfer] = field(default_factory=list)
    made: list[IntentRow] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    tenants: set[UUID] = field(default_factory=set)
    """Whose money the facts are about, before them and after."""


def names_of(fact: ProviderPayment) -> list[TransactionName]:
    """Return every name that a fact has for its transaction, the provider's own first."""
    return [
        (fact.provider_account, fact.environment, name, fact.recycled_on)
        for name in (fact.transaction_id, *fact.also_known_as)
    ]


def reference_of(fact: ProviderPayment) -> Reference:
    """Return by what a fact finds its collection."""
    return fact.provider_account, fact.environment, fact.reference


async def take_money(
    uow: Any,
    ports: CollectionPorts,
    rail: str,
    provider: str,
    facts: Sequence[ProviderPayment],
    intents: Mapping[UUID, IntentRow],
    now: datetime,
) -> Taken:
    """Judge the facts in order and keep them; return what moves for them, which the caller applies last.

    `intents` are locked: every collection that the facts' references or transactions name. Amounts are minor units;
    `now` is the database's time.
    """
    desk = _Desk(uow, ports, (rail, provider), intents, now)
    await desk.load(facts)
    for fact in facts:
        await desk.take(fact)
    await desk.write()
    return desk.taken


class _Desk:
    """One batch of facts: what is known of them, and what they do."""

    def __init__(
        self,
        uow: Any,
        ports: CollectionPorts,
        rail: tuple[str, str],
        intents: Mapping[UUID, IntentRow],
        now: datetime,
    ) -> None:
        self._uow, self._ports, self._now = uow, ports, now
        self._rail, self._provider = rail
        self._intents = dict(intents)
        self._by_reference: dict[Reference, Collection] = {}
        self._named: dict[tuple[str, TransactionName], Payment] = {}
        self._wallets: dict[UUID, AccountBalance] = {}
        self._given: Counter[UUID] = Counter()
        self._left: dict[UUID, int] = {}
        self._tenants: dict[tuple[str, str], UUID] = {}
        self._tolerances: dict[tuple[UUID, str, str], Tolerance] | None = None
        self._fresh: list[NewPayment] = []
        self._moved: list[tuple[Payment, str]] = []
        self._names: dict[tuple[str, TransactionName], Payment] = {}
        self._told: list[tuple[Payment, ProviderPayment, bool]] = []
        self._confirmed: dict[UUID, int] = {}
        self._consumed: dict[UUID, UUID] = {}
        self._jobs: set[UUID] = set()
        self._references: set[str] = set()
        self._accounts: dict[UUID, Account] = {}
        self.taken = Taken()

    async def load(self, facts: Sequence[ProviderPayment]) -> None:
        """Take the provider accounts in turn and read what is known."""
        store, uow = self._ports.collections, self._uow
        await store.lock(uow, self._rail, [fact.provider_account for fact in facts])
        wanted = sorted({reference_of(fact) for fact in facts if fact.reference})
        self._by_reference = await store.by_reference(uow, self._rail, wanted)
        self._named = await store.named(uow, self._rail, [name for fact in facts for name in names_of(fact)])
        self.taken.tenants |= {each.tenant_id for each in self._by_reference.values()}
        self.taken.tenants |= {each.tenant_id for each in self._named.values()}
        wallets = {intent.wallet_id for intent in self._intents.values()}
        if wallets:
            self._wallets = await self._ports.ledger.lookup_accounts(uow, sorted(wallets))
        if any(fact.kind is PaymentKind.RETURN for fact in facts):
            # Their rows are locked: a refund that is asked for now waits, and counts what is taken back here.
            known = await refundable(uow, self._ports, [each for each in self._intents.values() if each.decision])
            self._left = {intent_id: each.left_minor for intent_id, each in known.items()}

    async def take(self, fact: ProviderPayment) -> None:
        """Judge one fact and note what it does."""
        if fact.kind is PaymentKind.OUT:
            # About a payment of ours: its own status, asked for by its reference, decides.
            self._references.add(fact.reference)
            self.taken.fates.append(PaymentFate.NOTED)
            return
        known = self._known(fact, fact.kind)
        collection = self._by_reference.get(reference_of(fact))
        if fact.kind is PaymentKind.RETURN:
            await self._take_return(fact, known)
            return
        intent = self._intents.get(collection.intent_id) if collection is not None else None
        judged = await self._judge(fact, known, intent)
        if judged.asks and collection is not None:
            self._jobs.add(collection.job_id)
        payment = await self._keep(fact, known, judged, intent.id if intent is not None else None)
        if judged.fate is PaymentFate.CREDITED and intent is not None:
            self._credit(fact, intent)
        elif judged.fate is PaymentFate.SUSPENDED:
            self._suspend(fact, payment, judged.reason, intent)
        elif judged.fate is PaymentFate.QUARANTINED:
            self._alert("page", judged.reason, payment, fact)

    def _known(self, fact: ProviderPayment, kind: PaymentKind) -> Payment | None:
        return next((found for name in names_of(fact) if (found := self._named.get((kind, name)))), None)

    async def _judge(self, fact: ProviderPayment, known: Payment | None, intent: IntentRow | None) -> Judgement:
        judged = judge(fact, known, intent, EXACT)
        if judged.reason == "amount_differs" and intent is not None:
            if self._tolerances is None:
                tenants = sorted({each.tenant_id for each in self._intents.values()})
                self._tolerances = await self._ports.collections.tolerances_of(self._uow, tenants)
            allowed = self._tolerances.get((intent.tenant_id, intent.operation, intent.currency), EXACT)
            judged = judge(fact, known, intent, allowed)
        if judged.fate is PaymentFate.CREDITED and intent is not None:
            # What was taken back before we heard that it was paid is not given to anybody.
            back = "returned_before" if self._known(fact, PaymentKind.RETURN) else ""
            if refused := back or self._refused(intent, fact.amount_minor):
                return Judgement(PaymentFate.SUSPENDED, refused)
        return judged

    def _available_minor(self, wallet: AccountBalance) -> int:
        """Return what the wallet had when it was read, less what facts before this one took of it."""
        return max(0, wallet.available_minor - self._given[wallet.account.id])

    def _refused(self, intent: IntentRow, amount_minor: int) -> str:
        """Return why the wallet cannot have the money now; empty where it can."""
        wallet = self._wallets[intent.wallet_id]
        if wallet.account.flags & AccountFlags.CLOSED:
            return "wallet_closed"
        fees_minor = sum(leg.amount_minor for leg in intent.fee_legs)
        if fees_minor and wallet.account.flags & AccountFlags.FROZEN:
            return "wallet_frozen"
        return "fees_not_covered" if fees_minor > amount_minor + self._available_minor(wallet) else ""

    async def _keep(
        self, fact: ProviderPayment, known: Payment | None, judged: Judgement, intent_id: UUID | None
    ) -> Payment:
        self.taken.fates.append(judged.fate)
        differs = judged.fate is PaymentFate.QUARANTINED
        payment = known
        state = judged.fate.value if judged.fate not in (PaymentFate.KNOWN, PaymentFate.QUARANTINED) else "NOTED"
        if payment is None:
            tenant_id = await self._tenant(fact, intent_id)
            payment_id = mint_id(int(self._now.timestamp() * 1000))
            payment = Payment(payment_id, tenant_id, state, fact.amount_minor, fact.currency, intent_id)
            self._fresh.append(NewPayment(payment, fact, self._provider, judged.reason))
            if state == "NOTED" and (judged.reason or intent_id is None):
                self._alert("ticket", judged.reason or "unconfirmed_payment", payment, fact)
        elif payment.state == "NOTED" and state != "NOTED":
            payment.state, payment.intent_id = state, intent_id or payment.intent_id
            if intent_id is not None:
                payment.tenant_id = self._intents[intent_id].tenant_id
            self._moved.append((payment, judged.reason))
        for name in names_of(fact):
            if self._named.setdefault((fact.kind, name), payment) is payment:
                self._names[fact.kind, name] = payment
        self._told.append((payment, fact, differs))
        self.taken.tenants.add(payment.tenant_id)
        return payment

    async def _tenant(self, fact: ProviderPayment, intent_id: UUID | None) -> UUID:
        if intent_id is not None:
            return self._intents[intent_id].tenant_id
        account = (fact.provider_account, fact.environment)
        if account not in self._tenants:
            found = await self._ports.collections.tenant_of(self._uow, self._rail, *account)
            self._tenants[account] = found or SYSTEM_TENANT
        return self._tenants[account]

    def _credit(self, fact: ProviderPayment, intent: IntentRow) -> None:
        if fact.amount_minor != intent.amount_minor:
            intent.confirmed_minor = self._confirmed[intent.id] = fact.amount_minor
        data = {"confirmed_minor": fact.amount_minor}
        move = Move(intent.id, IntentState.SETTLED, "settled", data=data, decision="POST", parked=False,
                    provider_reference=fact.transaction_id)  # fmt: skip
        fees_minor = sum(leg.amount_minor for leg in intent.fee_legs)
        self._given[intent.wallet_id] += max(0, fees_minor - fact.amount_minor)
        self._end(intent, move, "paid")
        self._add_accounts(accounts_of(intent))

    def _suspend(self, fact: ProviderPayment, payment: Payment, reason: str, intent: IntentRow | None) -> None:
        tenant_id = payment.tenant_id
        suspense = system_account(tenant_id, fact.currency, AccountCode.SUSPENSE)
        qualifier = f"{self._provider}:{fact.provider_account}:{fact.environment}"
        clearing = system_account(tenant_id, fact.currency, AccountCode.CLEARING, qualifier)
        self._add_accounts([suspense, clearing])
        self.taken.transfers.append(
            Transfer(
                id=derive_id(payment.id, "suspense"),
                tenant_id=tenant_id,
                debit_account_id=clearing.id,
                credit_account_id=suspense.id,
                amount_minor=fact.amount_minor,
                ledger=currency_of(fact.currency).numeric,
                code=TransferCode.SUSPENSE,
                user_data=intent.id if intent is not None else None,
            )
        )
        self._alert("ticket", f"suspense_{reason}", payment, fact)
        if intent is not None and intent.decision is None and not IntentState(intent.state).is_terminal:
            text = f"{fact.amount_minor} minor units of {fact.currency} were paid and rest in suspense: {reason}"
            move = Move(intent.id, IntentState.FAILED, "failed", data={"reason": reason}, parked=False,
                        failure_code=reason, failure_message=text, provider_reference=fact.transaction_id)  # fmt: skip
            self._end(intent, move, reason)

    def _end(self, intent: IntentRow, move: Move, outcome: str) -> None:
        self.taken.endings[intent.id] = Ending.of(intent, move, outcome)
        intent.state, intent.decision = move.to, move.decision

    async def _take_return(self, fact: ProviderPayment, known: Payment | None) -> None:
        paid = self._known(fact, PaymentKind.PAYMENT)
        judged = judge_return(fact, known, paid)
        intent = self._intents.get(paid.intent_id) if paid is not None and paid.intent_id is not None else None
        payment = await self._keep(fact, known, judged, intent.id if intent is not None else None)
        if judged.fate is PaymentFate.QUARANTINED:
            self._alert("page", judged.reason, payment, fact)
        if judged.fate is not PaymentFate.REVERSED or paid is None:
            return
        if paid.state == "CREDITED" and intent is not None:
            self._reverse(fact, payment, intent, self._wallets.get(intent.wallet_id))
        elif paid.consumed_by is None:
            # Still in suspense: out of it, as the provider did.
            refund = self._reversal(fact, payment, Direction.PAYBACK, intent, fact.amount_minor)
            paid.consumed_by = self._consumed[paid.id] = refund.id
            self._make(refund)
        else:
            # A person gave it to a wallet, or back, before: whose loss it is, is for a person too.
            self._make(self._reversal(fact, payment, Direction.RECEIVABLE, intent, fact.amount_minor))
        self._alert("page", "collection_returned", payment, fact)

    def _reverse(
        self, fact: ProviderPayment, payment: Payment, intent: IntentRow, wallet: AccountBalance | None
    ) -> None:
        """Take it out of the wallet as far as that has it: a wallet is never negative, the rest is owed.

        What was refunded before is not taken twice: the excess comes out of suspense, and a person is called.
        """
        left_minor = min(fact.amount_minor, max(0, self._left.get(intent.id, fact.amount_minor)))
        excess_minor = fact.amount_minor - left_minor
        if intent.id in self._left:
            self._left[intent.id] -= left_minor
        if excess_minor:
            self._alert("page", "return_exceeds_original", payment, fact)
        shut = wallet is None or wallet.account.flags & (AccountFlags.CLOSED | AccountFlags.FROZEN)
        available_minor = 0 if shut or wallet is None else self._available_minor(wallet)
        parts = {Direction.REVERSAL: min(available_minor, left_minor), Direction.PAYBACK: excess_minor}
        self._given[intent.wallet_id] += parts[Direction.REVERSAL]
        parts[Direction.RECEIVABLE] = left_minor - parts[Direction.REVERSAL]
        for direction, part_minor in parts.items():
            if part_minor:
                self._make(self._reversal(fact, payment, direction, intent, part_minor))

    def _reversal(
        self,
        fact: ProviderPayment,
        told: Payment,
        direction: Direction,
        original: IntentRow | None,
        amount_minor: int,
    ) -> IntentRow:
        """Return the settled refund that says that a payment in, or a part of it, was taken back."""
        suspense = system_account(told.tenant_id, fact.currency, AccountCode.SUSPENSE)
        return IntentRow(
            id=derive_id(told.id, "reversal", direction),
            tenant_id=told.tenant_id,
            service_key_id=original.service_key_id if original is not None else "",
            operation=OperationType.REFUND,
            state=IntentState.SETTLED,
            accept_state=IntentState.SETTLED,
            # Without a collection no wallet is meant: the account of the tenant's that gives it stands there.
            wallet_id=original.wallet_id if original is not None else suspense.id,
            amount_minor=amount_minor,
            currency=fact.currency,
            rail=self._rail,
            provider=self._provider,
            provider_account=fact.provider_account,
            environment=fact.environment,
            provider_reference=fact.transaction_id,
            decision="POST",
            direction=direction,
            original_intent_id=original.id if original is not None else None,
            comment=f"returned: {fact.transaction_id}",
            created_at=self._now,
            updated_at=self._now,
        )

    def _make(self, refund: IntentRow) -> None:
        self.taken.made.append(refund)
        self._add_accounts(accounts_of(refund))
        self.taken.transfers += posting_transfers(refund)

    def _add_accounts(self, accounts: Sequence[Account]) -> None:
        self._accounts |= {account.id: account for account in accounts}

    def _alert(self, severity: Any, kind: str, payment: Payment, fact: ProviderPayment) -> None:
        detail = f"{self._rail} {fact.provider_account} {fact.transaction_id}"
        about = payment.intent_id or payment.id
        self.taken.alerts.append(Alert(payment.tenant_id, severity, kind, about, None, detail))

    async def write(self) -> None:
        """Keep payments, names and sources; make the accounts that the transfers need."""
        store, uow = self._ports.collections, self._uow
        await store.insert(uow, self._rail, self._fresh)
        await store.move(uow, [each for each in self._moved if not self._is_fresh(each[0])])
        await store.name(uow, self._rail, self._names)
        await store.add_sources(uow, self._told)
        await store.consume(uow, self._consumed)
        await store.confirm(uow, self._confirmed)
        await store.hurry(uow, self._rail, sorted(self._jobs), sorted(self._references))
        await self._ports.facts.raise_alerts(uow, self.taken.alerts)
        if self.taken.made:
            await self._ports.intents.insert_intents(uow, self.taken.made)
        if self._accounts:
            accounts = [self._accounts[key] for key in sorted(self._accounts)]
            await self._ports.ledger.create_accounts(uow, accounts)

    def _is_fresh(self, payment: Payment) -> bool:
        return any(each.payment is payment for each in self._fresh)


def facts_hash(facts: Sequence[ProviderPayment]) -> bytes:
    """Return what two deliveries of one callback have in common: all but where their bytes are kept."""
    text = "\n".join(fact.model_dump_json(exclude={"evidence_id"}) for fact in facts)
    return hashlib.sha256(text.encode()).digest()
