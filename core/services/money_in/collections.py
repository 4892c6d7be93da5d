"""Money in: payments at providers are matched, credited, put into suspense or taken back, each transaction once.

The caller holds the locks of the collect jobs and intents that the facts may concern. Provider accounts are taken in
turn after those, accounts of the ledger last, as everywhere.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from core.domain.collections import (
    EXACT,
    FURTHER,
    MONITORED,
    RETURN_TO_APPLY,
    Judgement,
    Payment,
    Tolerance,
    judge,
    judge_return,
    same_transaction,
)
from core.domain.ids import mint_id
from core.domain.intents import IntentRow
from core.services.money_in.collection_booking import Booking
from core.services.money_in.collection_port import (
    SYSTEM_TENANT,
    Collection,
    CollectionMovedError,
    CollectionPorts,
    NewPayment,
    Reference,
    Taken,
    TransactionName,
    names_of,
    reference_of,
)
from core.services.payments.refunds import refundable
from schemas.collections import PaymentFate, PaymentKind, PaymentSource, PaymentStatus, ProviderPayment
from schemas.events import IntentState
from schemas.suspense import SuspenseState

LEDGER_REFUSED = "ledger_refused"
"""Why a fact waits that the ledger would not book: it is told again, by the core itself."""
_MOVING = frozenset({PaymentFate.CREDITED, PaymentFate.SUSPENDED, PaymentFate.REVERSED})
_OTHER_MONEY = frozenset({"same_transaction_other_money", "second_return"})


async def take_money(
    uow: Any,
    ports: CollectionPorts,
    rail: str,
    provider: str,
    facts: Sequence[ProviderPayment],
    intents: Mapping[UUID, IntentRow],
    now: datetime,
    *,
    reusable: frozenset[str] = frozenset(),
    refused: bool = False,
) -> Taken:
    """Judge the facts in order and keep them; return what moves for them, which the caller applies last.

    `intents` are locked: every collection that the facts' references or transactions name. Amounts are minor units;
    `now` is the database's time. `reusable` operations' codes may be paid again and again.
    `refused`: the ledger refuses what the facts would move, so that nothing does, and a
    person is told. Raises CollectionMovedError.
    """
    desk = _Desk(uow, ports, (rail, provider), intents, reusable=reusable, refused=refused)
    await desk.load(facts, now)
    for fact in facts:
        await desk.take(fact)
    await desk.write()
    return desk.taken


class _Desk:
    """One batch of facts: what is known of them, and what they do."""

    _booking: Booking

    def __init__(
        self,
        uow: Any,
        ports: CollectionPorts,
        rail: tuple[str, str],
        intents: Mapping[UUID, IntentRow],
        *,
        reusable: frozenset[str],
        refused: bool,
    ) -> None:
        self._uow, self._ports, self._reusable, self._refused = uow, ports, reusable, refused
        self._rail, self._provider = rail
        self._intents = dict(intents)
        self._by_reference: dict[Reference, Collection] = {}
        self._named: dict[tuple[str, TransactionName], Payment] = {}
        self._standing: dict[UUID, SuspenseState] = {}
        self._takers: dict[UUID, IntentRow] = {}
        self._doubted_below = 0
        """Reviews of earlier ledger epochs may have been decided before a restore."""
        self._tenants: dict[tuple[str, str], UUID] = {}
        self._tolerances: dict[tuple[UUID, str, str], Tolerance] | None = None
        self._fresh: list[NewPayment] = []
        self._moved: list[tuple[Payment, str]] = []
        self._names: dict[tuple[str, TransactionName], Payment] = {}
        self._told: list[tuple[Payment, ProviderPayment, bool]] = []
        self._returned: list[Payment] = []
        self._jobs: set[UUID] = set()
        self._references: set[str] = set()
        self._called_paid: list[ProviderPayment] = []

    @property
    def taken(self) -> Taken:
        """What moves."""
        return self._booking.taken

    async def load(self, facts: Sequence[ProviderPayment], now: datetime) -> None:
        """Take the provider accounts in turn and read what is known."""
        self._now = now
        store, uow = self._ports.collections, self._uow
        await store.lock(uow, self._rail, [fact.provider_account for fact in facts])
        wanted = sorted({reference_of(fact) for fact in facts if fact.reference})
        self._by_reference = await store.by_reference(uow, self._rail, wanted)
        for collection in self._by_reference.values():
            if collection.intent_id not in self._intents:
                raise CollectionMovedError(f"collection {collection.intent_id} was opened meanwhile")
        self._named = await store.named(uow, self._rail, [name for fact in facts for name in names_of(fact)])
        # Read once their rows are locked: whoever decides about an item locks its row first.
        items = {each.id: each for each in self._named.values() if each.state == "SUSPENDED" and each.consumed_by}
        if items:
            self._standing = await store.standing_of(uow, list(items))
            takers = [each.consumed_by for each in items.values() if each.consumed_by is not None]
            self._takers = await self._ports.intents.load_intents(uow, sorted(takers), lock=True)
            if any(each.state == IntentState.REVIEW for each in self._takers.values()):
                rail = await self._ports.rails.rail_state(uow, self._rail)
                self._doubted_below = 0 if rail.epoch_cleared else rail.ledger_epoch
        givers = [*self._intents.values(), *self._takers.values()]
        wallets = {each.wallet_id for each in givers}
        wallets |= {share for each in givers for leg in each.fee_legs if (share := leg.account.wallet_id) is not None}
        found = await self._ports.ledger.lookup_accounts(uow, sorted(wallets)) if wallets else {}
        self._booking = Booking(self._rail, self._provider, now, found)
        if any(fact.kind is PaymentKind.RETURN for fact in facts):
            # Their rows are locked: a refund that is asked for now waits, and counts what is taken back here.
            known = await refundable(uow, self._ports, [each for each in givers if each.decision])
            self._booking.left_minor = {intent_id: each.left_minor for intent_id, each in known.items()}
        self.taken.tenants |= {each.tenant_id for each in self._by_reference.values()}
        self.taken.tenants |= {each.tenant_id for each in self._named.values()}

    async def take(self, fact: ProviderPayment) -> None:
        """Judge one fact and note what it does."""
        if fact.kind is PaymentKind.OUT:
            # About a payment of ours: its own status, asked for by its reference, decides.
            self._references.add(fact.reference)
            if fact.status in (PaymentStatus.SUCCEEDED, PaymentStatus.RETURNED):
                self._called_paid.append(fact)
            judged = Judgement(PaymentFate.NOTED)
        elif fact.kind is PaymentKind.RETURN:
            judged = await self._take_return(fact)
        else:
            judged = await self._take_payment(fact)
        self.taken.fates.append(judged.fate)
        self.taken.reasons.append(judged.reason)

    async def _take_payment(self, fact: ProviderPayment) -> Judgement:
        known, shares_name = self._known(fact, PaymentKind.PAYMENT)
        collection = self._by_reference.get(reference_of(fact))
        intent = self._intents[collection.intent_id] if collection is not None else None
        judged = self._unless_refused(await self._judge(fact, known, shares_name, intent))
        if judged.asks and collection is not None:
            self._jobs.add(collection.job_id)
        rested = known is not None and known.state == "SUSPENDED"
        waits = judged.fate is PaymentFate.SUSPENDED and judged.reason == MONITORED
        if rested and known is not None and judged.fate is PaymentFate.CREDITED:
            self._booking.release(fact, known)
        payment = await self._keep(fact, known, judged, intent)
        if judged.fate is PaymentFate.CREDITED and intent is not None:
            self._booking.credit(fact, intent)
        elif waits and intent is not None:
            until = self._now + self._ports.review_within
            self._booking.let_wait(fact, payment, intent, until, rests=rested)
        elif judged.fate is PaymentFate.SUSPENDED:
            if judged.reason == FURTHER and intent is not None:
                await self._pass_on(fact, payment, intent)
            else:
                self._booking.suspend(fact, payment, judged.reason, intent)
            self._take_back_at_once(fact, payment)
        elif judged.fate is PaymentFate.QUARANTINED:
            self._booking.quarantine(judged.reason, payment, fact)
        elif judged.fate is PaymentFate.KNOWN and judged.reason and intent is not None:
            self._booking.fail(fact, intent, judged.reason)
        if shares_name and judged.fate is PaymentFate.KNOWN:
            self._booking.alert("page", "name_of_another_transaction", payment, fact)
        return judged

    async def _pass_on(self, fact: ProviderPayment, payment: Payment, intent: IntentRow) -> None:
        """Give a further payment of a code to its wallet, by a deposit of its own, as a person would assign it."""
        made = self._booking.pass_on(fact, payment, intent)
        # As of the collection: without the fees that the payer was asked for on top.
        counted_minor = max(0, fact.amount_minor - (intent.expected_minor - intent.amount_minor))
        await self._ports.limits.note_further(self._uow, made, counted_minor, self._now)
        self._takers[made.id], self._standing[payment.id] = made, SuspenseState.ASSIGNED

    def _known(self, fact: ProviderPayment, kind: PaymentKind) -> tuple[Payment | None, bool]:
        found = [self._named[kind, name] for name in names_of(fact) if (kind, name) in self._named]
        return same_transaction(fact, list({each.id: each for each in found}.values()))

    async def _judge(
        self, fact: ProviderPayment, known: Payment | None, shares_name: bool, intent: IntentRow | None
    ) -> Judgement:
        judged = await self._judge_money(fact, known, shares_name, intent)
        if judged.fate is PaymentFate.KNOWN and known is not None and intent is not None:
            judged = await self._judge_elsewhere(fact, known, intent)
        if (judged.fate is PaymentFate.CREDITED or judged.reason == FURTHER) and intent is not None:
            # What was taken back before we heard that it was paid is not given to anybody.
            back = "returned_before" if self._known(fact, PaymentKind.RETURN)[0] else ""
            if refused := back or self._booking.refused(intent, fact.amount_minor):
                rests = known is not None and known.state == "SUSPENDED"
                return Judgement(PaymentFate.KNOWN if rests else PaymentFate.SUSPENDED, refused)
            if intent.requires_monitoring:
                return Judgement(PaymentFate.SUSPENDED, MONITORED)
        return judged

    async def _judge_money(
        self, fact: ProviderPayment, known: Payment | None, shares_name: bool, intent: IntentRow | None
    ) -> Judgement:
        # Of one that a person looks at, no further payment goes by unseen.
        reusable = intent is not None and intent.operation in self._reusable and not intent.requires_monitoring
        judged = judge(fact, known, intent, EXACT, shares_name=shares_name, reusable=reusable)
        if judged.reason == "amount_differs" and intent is not None:
            if self._tolerances is None:
                tenants = sorted({each.tenant_id for each in self._intents.values()})
                self._tolerances = await self._ports.collections.tolerances_of(self._uow, tenants)
            allowed = self._tolerances.get((intent.tenant_id, intent.operation, intent.currency), EXACT)
            judged = judge(fact, known, intent, allowed, shares_name=shares_name, reusable=reusable)
        return judged

    async def _judge_elsewhere(self, fact: ProviderPayment, known: Payment, intent: IntentRow) -> Judgement:
        """Judge a payment that was accounted for, and now names a collection: another's money, or this one's late."""
        if known.intent_id is not None and known.intent_id != intent.id:
            return Judgement(PaymentFate.QUARANTINED, "transaction_of_another_collection")
        anew = await self._judge_money(fact, None, False, intent)
        if not intent.expects_payment or anew.fate not in _MOVING:
            return Judgement(PaymentFate.KNOWN)
        is_open = self._standing.get(known.id, SuspenseState.OPEN) is SuspenseState.OPEN
        if not is_open or known.returned_by is not None:
            return Judgement(PaymentFate.KNOWN, "decided_by_hand")
        # A statement told of it first, and did not say whose it is.
        return anew if anew.fate is PaymentFate.CREDITED else Judgement(PaymentFate.KNOWN, anew.reason)

    def _unless_refused(self, judged: Judgement) -> Judgement:
        if self._refused and judged.fate in _MOVING:
            return Judgement(PaymentFate.QUARANTINED, LEDGER_REFUSED, asks=True)
        return judged

    async def _keep(
        self, fact: ProviderPayment, known: Payment | None, judged: Judgement, intent: IntentRow | None
    ) -> Payment:
        payment = known
        state = judged.fate.value if judged.fate in _MOVING else "NOTED"
        if payment is None:
            payment = await self._make(fact, state, judged, intent)
        elif state != "NOTED":
            payment.state, payment.reason = state, judged.reason
            if intent is not None:
                payment.intent_id, payment.tenant_id = intent.id, intent.tenant_id
            self._moved.append((payment, judged.reason))
        elif payment.state == "NOTED" and judged.reason and judged.reason not in _OTHER_MONEY:
            payment.reason = judged.reason
            self._moved.append((payment, judged.reason))
        for name in names_of(fact):
            if self._named.setdefault((fact.kind, name), payment) is payment:
                self._names[fact.kind, name] = payment
                payment.names |= {name[2]}
        self._told.append((payment, fact, judged.reason in _OTHER_MONEY))
        self.taken.tenants.add(payment.tenant_id)
        return payment

    async def _make(self, fact: ProviderPayment, state: str, judged: Judgement, intent: IntentRow | None) -> Payment:
        tenant_id = intent.tenant_id if intent is not None else await self._tenant(fact)
        payment_id = mint_id(int(self._now.timestamp() * 1000))
        intent_id = intent.id if intent is not None else None
        payment = Payment(
            payment_id, tenant_id, state, fact.amount_minor, fact.currency, intent_id=intent_id, reason=judged.reason
        )
        self._fresh.append(NewPayment(payment, fact, self._provider))
        if judged.fate is PaymentFate.NOTED and (judged.reason or intent_id is None):
            self._booking.alert("ticket", judged.reason or "unconfirmed_payment", payment, fact)
        return payment

    async def _tenant(self, fact: ProviderPayment) -> UUID:
        account = (fact.provider_account, fact.environment)
        if account not in self._tenants:
            found = await self._ports.collections.tenant_of(self._uow, self._rail, *account)
            self._tenants[account] = found or SYSTEM_TENANT
        return self._tenants[account]

    async def _take_return(self, fact: ProviderPayment) -> Judgement:
        known, _ = self._known(fact, PaymentKind.RETURN)
        paid, shares_name = self._known(fact, PaymentKind.PAYMENT)
        if shares_name:
            paid = None  # which of several it takes back is not known
        judged = self._judge_return(fact, known, paid)
        intent = self._collection_of(paid)
        told = await self._keep(fact, known, judged, intent)
        if judged.fate is PaymentFate.QUARANTINED:
            self._booking.quarantine(judged.reason, told, fact)
        elif judged.fate is PaymentFate.NOTED and not judged.reason and fact.source is PaymentSource.REGISTER:
            # A register's line takes nothing back, nor did what came before it: nobody else may ever tell of it.
            self._booking.quarantine("return_unconfirmed", told, fact, severity="ticket")
        elif paid is not None and (judged.fate is PaymentFate.REVERSED or judged.reason == "refund_running"):
            self._note_return(fact, told, paid, judged)
        return judged

    def _judge_return(self, fact: ProviderPayment, known: Payment | None, paid: Payment | None) -> Judgement:
        collection = self._by_reference.get(reference_of(fact))
        named = paid is not None and paid.intent_id is not None and collection is not None
        if named and paid is not None and collection is not None and collection.intent_id != paid.intent_id:
            return Judgement(PaymentFate.QUARANTINED, "transaction_of_another_collection")
        undecided = (SuspenseState.RETURNING, SuspenseState.IN_REVIEW)
        runs = paid is not None and self._standing.get(paid.id) in undecided and self._reviewed(paid) is None
        return self._unless_refused(judge_return(fact, known, paid, refund_runs=runs))

    def _collection_of(self, paid: Payment | None) -> IntentRow | None:
        if paid is None or paid.intent_id is None:
            return None
        if paid.intent_id not in self._intents:
            raise CollectionMovedError(f"collection {paid.intent_id} was paid meanwhile")
        return self._intents[paid.intent_id]

    def _reviewed(self, paid: Payment) -> IntentRow | None:
        """Return what took a payment and waits for a decision: what is taken back meanwhile is not decided about.

        Of what a person started, a restore may have lost that the second key said yes: then it is waited for.
        """
        intent = self._collection_of(paid)
        if intent is None or self._booking.consumed.get(paid.id, paid.consumed_by) != intent.id:
            intent = self._takers.get(paid.consumed_by) if paid.consumed_by is not None else None
            if intent is None or intent.ledger_epoch < self._doubted_below:
                return None
        return intent if intent.state == IntentState.REVIEW else None

    def _note_return(self, fact: ProviderPayment, told: Payment, paid: Payment, judged: Judgement) -> None:
        """Tie a return to its payment, whose tenant's it is, and book it unless a refund is on its way."""
        told.tenant_id = paid.tenant_id
        paid.returned_by = told.id
        self._returned.append(paid)
        if judged.fate is PaymentFate.REVERSED:
            standing = self._standing.get(paid.id, SuspenseState.OPEN) if paid.state == "SUSPENDED" else None
            if (reviewed := self._reviewed(paid)) is not None:
                self._booking.end_review(fact, reviewed)
                standing = SuspenseState.OPEN
            taker = self._takers.get(paid.consumed_by) if paid.consumed_by is not None else None
            owner = taker if standing is SuspenseState.ASSIGNED else self._collection_of(paid)
            taken_by = paid.consumed_by
            self._booking.take_back(fact, told, paid, standing, owner)
            if standing is SuspenseState.OPEN:
                rests_on = paid.consumed_by == taken_by
                self._standing[paid.id] = SuspenseState.OPEN if rests_on else SuspenseState.RETURNED

    def _take_back_at_once(self, fact: ProviderPayment, paid: Payment) -> None:
        """Apply the return that came before its payment did; what could not be believed yet goes on waiting."""
        told, _ = self._known(fact, PaymentKind.RETURN)
        if told is None or told.state != "NOTED" or told.reason not in RETURN_TO_APPLY:
            return
        money = {"kind": PaymentKind.RETURN, "amount_minor": told.amount_minor, "currency": told.currency}
        back = fact.model_copy(update=money)
        judged = judge_return(back, told, paid)
        told.state = PaymentFate.REVERSED.value if judged.fate is PaymentFate.REVERSED else told.state
        told.reason, told.intent_id = judged.reason, paid.intent_id
        self._moved.append((told, judged.reason))
        if judged.fate is PaymentFate.REVERSED:
            self._note_return(back, told, paid, judged)
        else:
            self._booking.quarantine(judged.reason, told, back)

    async def write(self) -> None:
        """Keep payments, names and sources; make the accounts that the transfers need."""
        store, uow, booking = self._ports.collections, self._uow, self._booking
        await store.insert(uow, self._rail, self._fresh)
        fresh = {each.payment.id for each in self._fresh}
        moved = {payment.id: (payment, reason) for payment, reason in self._moved if payment.id not in fresh}
        await store.move(uow, list(moved.values()))
        await store.name(uow, self._rail, self._names)
        await store.add_sources(uow, self._told)
        await store.consume(uow, booking.consumed)
        await store.note_returns(uow, list({each.id: each for each in self._returned}.values()))
        await store.confirm(uow, booking.confirmed)
        await store.hurry(uow, self._rail, sorted(self._jobs), sorted(self._references))
        await store.end_breaks(uow, booking.righted)
        await store.record_breaks(uow, booking.breaks)
        doubted = await self._ports.doubts.doubt(uow, self._rail, self._called_paid)
        self.taken.alerts += [each.alert(self._rail) for each in doubted]
        await self._ports.facts.raise_alerts(uow, self.taken.alerts)
        for refund, original, amount_minor in booking.given_back:
            await self._ports.limits.note_refund(uow, refund, original, amount_minor)
        if self.taken.made:
            await self._ports.intents.insert_intents(uow, self.taken.made)
        if booking.accounts:
            await self._ports.ledger.create_accounts(uow, [booking.accounts[key] for key in sorted(booking.accounts)])
