"""What a batch of facts about money in moves: credits, suspense, and what providers take back."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from core.domain.collections import Payment
from core.domain.ids import derive_id
from core.domain.intents import IntentRow, Move
from core.domain.ledger import Account, AccountBalance, AccountFlags, Transfer
from core.domain.operations import AccountCode, accounts_of, posting_transfers, system_account
from core.domain.reconciliation import Break
from core.domain.registry import TransferCode
from core.services.money_in.collection_port import Taken
from core.services.settling.close_job import Ending, is_held
from core.services.settling.facts import Alert
from schemas.collections import ProviderPayment
from schemas.events import IntentState
from schemas.money import currency_of, money_text
from schemas.operations import Direction, OperationType
from schemas.suspense import SuspenseState

_QUARANTINED = "payment_quarantined"


def rest_transfer(payment: Payment, qualifier: str, intent_id: UUID | None, *, back: bool = False) -> Transfer:
    """Return what takes a payment from its provider's clearing account to suspense, or `back`; each once."""
    suspense = system_account(payment.tenant_id, payment.currency, AccountCode.SUSPENSE).id
    clearing = system_account(payment.tenant_id, payment.currency, AccountCode.CLEARING, qualifier).id
    debit, credit = (suspense, clearing) if back else (clearing, suspense)
    return Transfer(
        id=derive_id(payment.id, "release" if back else "suspense"),
        tenant_id=payment.tenant_id,
        debit_account_id=debit,
        credit_account_id=credit,
        amount_minor=payment.amount_minor,
        ledger=currency_of(payment.currency).numeric,
        code=TransferCode.SUSPENSE,
        user_data=intent_id,
    )


class Booking:
    """What the facts of one rail's batch book; `wallets` are as they were read, and what is given of them counts."""

    def __init__(self, rail: str, provider: str, now: datetime, wallets: Mapping[UUID, AccountBalance]) -> None:
        self._rail, self._provider, self._now, self._wallets = rail, provider, now, wallets
        self._given: Counter[UUID] = Counter()
        self.accounts: dict[UUID, Account] = {}
        self.confirmed: dict[UUID, int] = {}
        self.consumed: dict[UUID, UUID] = {}
        self.breaks: list[Break] = []
        self.righted: list[UUID] = []
        """Breaks that are none any more: what a person was to look at is booked now."""
        self.left_minor: dict[UUID, int] = {}
        """What may still be given back, by payment that gave it to a wallet."""
        self.given_back: list[tuple[IntentRow, IntentRow, int]] = []
        """What limits give back: the refund that tells of it, the payment, and the amount in minor units."""
        self.taken = Taken()

    def refused(self, intent: IntentRow, amount_minor: int) -> str:
        """Return why the wallet cannot have the money now; empty where it can."""
        wallet = self._wallets[intent.wallet_id]
        if wallet.account.flags & AccountFlags.CLOSED:
            return "wallet_closed"
        fees_minor = sum(leg.amount_minor for leg in intent.fee_legs)
        if fees_minor and wallet.account.flags & AccountFlags.FROZEN:
            return "wallet_frozen"
        partners = [leg.account.wallet_id for leg in intent.fee_legs if leg.account.wallet_id is not None]
        if any(self._wallets[partner].account.flags & AccountFlags.CLOSED for partner in partners):
            return "fee_wallet_closed"
        return "fees_not_covered" if fees_minor > amount_minor + self._available_minor(wallet) else ""

    def _available_minor(self, wallet: AccountBalance) -> int:
        """Return what the wallet had when it was read, less what facts before this one took of it."""
        return max(0, wallet.available_minor - self._given[wallet.account.id])

    def credit(self, fact: ProviderPayment, intent: IntentRow) -> None:
        """Give what came to the wallet of the collection, and settle that."""
        self._confirm(fact, intent)
        data = {"confirmed_minor": fact.amount_minor}
        move = Move(intent.id, IntentState.SETTLED, "settled", data=data, decision="POST", parked=False,
                    provider_reference=fact.transaction_id)  # fmt: skip
        self._pay_fees(fact, intent)
        self._end(intent, move, "paid")
        self._add_accounts(accounts_of(intent))

    def _confirm(self, fact: ProviderPayment, intent: IntentRow) -> None:
        """Note what came, where that is not just the amount, or fees are on top of it.

        With fees on top it is noted always, so that no release has to guess whether the payer was asked for them.
        """
        if fact.amount_minor != intent.amount_minor or intent.fees_on_top_minor:
            intent.confirmed_minor = self.confirmed[intent.id] = fact.amount_minor

    def _pay_fees(self, fact: ProviderPayment, intent: IntentRow) -> None:
        """Count what the wallet gives beside what came."""
        fees_minor = sum(leg.amount_minor for leg in intent.fee_legs)
        self._given[intent.wallet_id] += max(0, fees_minor - fact.amount_minor)

    def suspend(self, fact: ProviderPayment, payment: Payment, reason: str, intent: IntentRow | None) -> None:
        """Let a payment rest in its tenant's suspense; its collection, where it still waits, ends without it."""
        self._rest(fact, payment, intent)
        self.alert("ticket", f"suspense_{reason}", payment, fact)
        if intent is not None:
            self.fail(fact, intent, reason)

    def pass_on(self, fact: ProviderPayment, payment: Payment, intent: IntentRow) -> IntentRow:
        """Let a further payment of a collection's code go by way of suspense to its wallet, and return the deposit.

        It is priced as the collection was, and told under the client's reference of it.
        """
        self._rest(fact, payment, intent)
        self._pay_fees(fact, intent)
        made = IntentRow(
            id=derive_id(payment.id, "further"),
            tenant_id=intent.tenant_id,
            service_key_id=intent.service_key_id,
            operation=OperationType.DEPOSIT,
            state=IntentState.SETTLED,
            accept_state=IntentState.SETTLED,
            wallet_id=intent.wallet_id,
            amount_minor=fact.amount_minor,
            currency=fact.currency,
            client_reference=intent.client_reference,
            rail=self._rail,
            provider=self._provider,
            provider_account=fact.provider_account,
            environment=fact.environment,
            provider_reference=fact.transaction_id,
            decision="POST",
            direction=Direction.RELEASE,
            fee_minor=intent.fee_minor,
            fee_legs=intent.fee_legs,
            comment=f"a further payment of {intent.id}",
            created_at=self._now,
            updated_at=self._now,
        )
        payment.consumed_by = self.consumed[payment.id] = made.id
        self._make(made)
        return made

    def let_wait(
        self, fact: ProviderPayment, payment: Payment, intent: IntentRow, until: datetime, *, rests: bool
    ) -> None:
        """Let a payment that came as asked rest in suspense, taken by its collection, which waits for a decision.

        `rests`: it does so already, since a statement told of it first.
        """
        if not rests:
            self._rest(fact, payment, intent)
        self._confirm(fact, intent)
        self.consumed[payment.id] = intent.id
        data = {"confirmed_minor": fact.amount_minor}
        move = Move(intent.id, IntentState.REVIEW, "review", data=data, parked=False, deadline=until,
                    provider_reference=fact.transaction_id)  # fmt: skip
        self._end(intent, move, "paid")

    def end_review(self, fact: ProviderPayment, intent: IntentRow) -> None:
        """End what waits for a decision: its provider took back what there was to decide about."""
        text = f"the provider took {money_text(fact.amount_minor, fact.currency)} back before anybody decided"
        decision: Literal["VOID"] | None = "VOID" if is_held(intent) else None
        move = Move(intent.id, IntentState.FAILED, "failed", data={"reason": "returned_in_review"}, parked=False,
                    decision=decision, failure_code="returned_in_review", failure_message=text)  # fmt: skip
        self._end(intent, move, "returned_in_review")

    def release(self, fact: ProviderPayment, payment: Payment) -> None:
        """Take a payment out of suspense again: its collection, which still waits, gets it."""
        self._rest(fact, payment, None, back=True)

    def _rest(self, fact: ProviderPayment, payment: Payment, intent: IntentRow | None, *, back: bool = False) -> None:
        qualifier = f"{self._provider}:{fact.provider_account}:{fact.environment}"
        suspense = system_account(payment.tenant_id, fact.currency, AccountCode.SUSPENSE)
        clearing = system_account(payment.tenant_id, fact.currency, AccountCode.CLEARING, qualifier)
        self._add_accounts([suspense, clearing])
        intent_id = intent.id if intent is not None else None
        self.taken.transfers.append(rest_transfer(payment, qualifier, intent_id, back=back))

    def fail(self, fact: ProviderPayment, intent: IntentRow, reason: str) -> None:
        """End a collection that still waits: it was paid, and the money is elsewhere."""
        if intent.expects_payment:
            text = f"{money_text(fact.amount_minor, fact.currency)} were paid and rest in suspense: {reason}"
            move = Move(intent.id, IntentState.FAILED, "failed", data={"reason": reason}, parked=False,
                        failure_code=reason, failure_message=text, provider_reference=fact.transaction_id)  # fmt: skip
            self._end(intent, move, reason)

    def _end(self, intent: IntentRow, move: Move, outcome: str) -> None:
        self.taken.endings[intent.id] = Ending.of(intent, move, outcome)
        intent.state, intent.decision = move.to, move.decision

    def take_back(
        self,
        fact: ProviderPayment,
        told: Payment,
        paid: Payment,
        standing: SuspenseState | None,
        owner: IntentRow | None,
    ) -> None:
        """Book that a payment was taken back, by where its money is.

        `told` is the return; `standing` that of an item in suspense, None of what was credited; `owner` the intent that
        gave the money to a wallet.
        """
        self.breaks = [each for each in self.breaks if each.subject_id != told.id]
        self.righted.append(Break(_QUARANTINED, told.tenant_id, told.id, "").id)
        if owner is not None and standing in (None, SuspenseState.ASSIGNED):
            self._reverse(fact, told, paid, owner)
        elif standing is SuspenseState.OPEN:
            # Out of suspense, as the provider did: what was not taken back rests on.
            refund = self._reversal(fact, told, paid, Direction.PAYBACK, owner, fact.amount_minor)
            self._make(refund)
            if fact.amount_minor == paid.left_minor:
                paid.consumed_by = self.consumed[paid.id] = refund.id
            else:
                paid.returned_minor += fact.amount_minor
        else:
            # It was paid back before: whose loss it is, is for a person.
            self._make(self._reversal(fact, told, paid, Direction.RECEIVABLE, owner, fact.amount_minor))
        self.alert("page", "collection_returned", told, fact)

    def _reverse(self, fact: ProviderPayment, told: Payment, paid: Payment, owner: IntentRow) -> None:
        """Take it out of the wallet as far as that has it: a wallet is never negative, the rest is owed.

        What was refunded before is not taken twice: the excess comes out of suspense, and a person is called.
        """
        left_minor = min(fact.amount_minor, max(0, self.left_minor.get(owner.id, fact.amount_minor)))
        excess_minor = fact.amount_minor - left_minor
        if owner.id in self.left_minor:
            self.left_minor[owner.id] -= left_minor
        if excess_minor:
            self.alert("page", "return_exceeds_original", told, fact)
        wallet = self._wallets.get(owner.wallet_id)
        shut = wallet is None or wallet.account.flags & (AccountFlags.CLOSED | AccountFlags.FROZEN)
        available_minor = 0 if shut or wallet is None else self._available_minor(wallet)
        parts = {Direction.REVERSAL: min(available_minor, left_minor), Direction.PAYBACK: excess_minor}
        self._given[owner.wallet_id] += parts[Direction.REVERSAL]
        parts[Direction.RECEIVABLE] = left_minor - parts[Direction.REVERSAL]
        made = {
            direction: self._reversal(fact, told, paid, direction, owner, part_minor)
            for direction, part_minor in parts.items()
            if part_minor
        }
        for refund in made.values():
            self._make(refund)
        # Once for what the wallet gave and what it owes; the excess was given back by the refunds that it is.
        back = made.get(Direction.REVERSAL) or made.get(Direction.RECEIVABLE)
        if back is not None:
            self.given_back.append((back, owner, left_minor))

    def _reversal(
        self,
        fact: ProviderPayment,
        told: Payment,
        paid: Payment,
        direction: Direction,
        original: IntentRow | None,
        amount_minor: int,
    ) -> IntentRow:
        """Return the settled refund that says that a payment in, or a part of it, was taken back."""
        tenant_id = paid.tenant_id
        suspense = system_account(tenant_id, fact.currency, AccountCode.SUSPENSE)
        return IntentRow(
            id=derive_id(told.id, "reversal", direction),
            tenant_id=tenant_id,
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
        self.accounts |= {account.id: account for account in accounts}

    def quarantine(self, reason: str, payment: Payment, fact: ProviderPayment, *, severity: Any = "page") -> None:
        """Let a person look at a fact that moves nothing: an alert, and a break until it is put right."""
        self.alert(severity, reason, payment, fact)
        detail = f"{reason}: {self._rail} {fact.provider_account} {fact.transaction_id}"
        self.breaks.append(Break(_QUARANTINED, payment.tenant_id, payment.id, detail, fact.amount_minor, fact.currency))

    def alert(self, severity: Any, kind: str, payment: Payment, fact: ProviderPayment) -> None:
        """Tell a person."""
        detail = f"{self._rail} {fact.provider_account} {fact.transaction_id}"
        about = payment.intent_id or payment.id
        self.taken.alerts.append(Alert(payment.tenant_id, severity, kind, about, None, detail))
