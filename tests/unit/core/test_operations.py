"""The registry of operations: every one conserves money, and the docs say what it declares."""

import ast
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from core.domain.exchange import ExchangeTerms
from core.domain.fee_legs import FeeAccount, FeeLeg, sum_minor
from core.domain.intents import IntentRow
from core.domain.ledger import TransferFlags
from core.domain.operations import (
    AccountCode,
    accounts_of,
    fee_account,
    hold_transfers,
    legs_of,
    liquidity_account,
    post_transfers,
    posting_transfers,
    spread_account,
    system_account,
    void_transfers,
)
from core.domain.registry import OPERATIONS
from core.services.access.keys import NAMED_ONLY
from schemas.fees import FeePhase
from schemas.money import currency_of
from schemas.operations import COLLECTED, Direction, OperationType
from tools.operations import TARGET, render

TENANT, WALLET, OTHER, PARTNER = UUID(int=1), UUID(int=2), UUID(int=3), UUID(int=4)
ACCOUNTS = (FeeAccount("FEE_INCOME"), FeeAccount("FEE_INCOME", "cards"), FeeAccount("", wallet_id=PARTNER))


@st.composite
def terms(draw: st.DrawFn) -> ExchangeTerms:
    """What any quote of another currency could say."""
    return ExchangeTerms(UUID(int=7), "USD", draw(st.integers(1, 10**12)), draw(st.integers(0, 10**12)))


@st.composite
def intents(draw: st.DrawFn, operations: Sequence[OperationType] = tuple(sorted(OPERATIONS))) -> IntentRow:
    """Any intent that could have been accepted: fees leave something of the amount."""
    operation = draw(st.sampled_from(operations))
    declared = OPERATIONS[operation]
    amount_minor = draw(st.integers(2, 10**12))
    direction = draw(st.sampled_from([None, *declared.otherwise]))
    within = frozenset(FeePhase) if direction == Direction.OUT else frozenset({FeePhase.POST})
    legs: list[FeeLeg] = []
    exchange = draw(terms()) if declared.exchanges else None
    # What fees take out of an exchange comes out of what is bought.
    left_minor = (exchange.to_minor if exchange is not None else amount_minor) - 1
    for n in range(draw(st.integers(0, 5)) if declared.takes_fees or declared.refunds else 0):
        phase = draw(st.sampled_from(FeePhase))
        most = left_minor if phase in within else 10**9
        if most == 0:
            continue
        fee_minor = draw(st.integers(1, most))
        left_minor -= fee_minor if phase in within else 0
        legs.append(FeeLeg(f"fee:{n}", phase, draw(st.sampled_from(ACCOUNTS)), fee_minor, UUID(int=9), 1))
    named_minor = draw(st.integers(0, 10**6)) if declared.needs_rail else 0
    # A release that asked payers for no fees on top noted nothing; nor does what is given out of suspense.
    asks = declared.collects and direction is None and draw(st.booleans())
    return IntentRow(
        UUID(int=5), TENANT, "key", operation, "VALIDATED", WALLET, amount_minor,
        draw(st.sampled_from(["THB", "JPY", "RUB"])), "VALIDATED",
        rail="r", provider="p", provider_account="main", environment="sandbox",
        fee_legs=tuple(legs), fee_minor=0 if declared.refunds else sum_minor(legs, FeePhase.PRE) + named_minor,
        counterparty_wallet_id=OTHER if declared.needs_counterparty or declared.refunds else None,
        direction=direction,
        original_intent_id=UUID(int=6) if declared.refunds else None,
        exchange=exchange,
        asked_minor=amount_minor + sum_minor(legs, FeePhase.PRE) if asks else None,
    )  # fmt: skip


@given(intents())
def test_the_payer_loses_amount_and_fee_and_everybody_else_gets_it(intent: IntentRow) -> None:
    own_ledger = currency_of(intent.currency).numeric
    legs = [leg for leg in legs_of(intent) if leg.ledger == own_ledger]
    changes: Counter[UUID] = Counter()
    for leg in legs:
        changes[leg.debit_account_id] -= leg.amount_minor
        changes[leg.credit_account_id] += leg.amount_minor
    assert sum(changes.values()) == 0
    assert all(leg.amount_minor > 0 and leg.debit_account_id != leg.credit_account_id for leg in legs)
    assert len({leg.name for leg in legs}) == len(legs)
    fees_minor = sum(leg.amount_minor for leg in legs if leg.name != "principal")
    paid_minor = intent.amount_minor + intent.fee_minor
    if intent.is_refund:
        assert fees_minor == sum(leg.amount_minor for leg in intent.fee_legs)
        if intent.direction == Direction.OUT:
            # The payer gets the amount: the fees that go back are a part of it that the wallet does not give.
            assert sum(leg.amount_minor for leg in legs) == intent.received_minor == intent.amount_minor
            assert changes[WALLET] == fees_minor - intent.amount_minor
            return
        assert sum(leg.amount_minor for leg in legs) == intent.received_minor == intent.amount_minor + fees_minor
        if intent.direction is None:
            assert (changes[WALLET], changes[OTHER]) == (-intent.amount_minor, intent.received_minor)
        if intent.direction == Direction.RETURN:
            assert (changes[WALLET], changes[OTHER]) == (intent.received_minor, 0)
        return
    if intent.operation == OperationType.MANUAL_ADJUSTMENT:
        by_liquidity = intent.direction in (Direction.TO_LIQUIDITY, Direction.FROM_LIQUIDITY)
        code = AccountCode.LIQUIDITY if by_liquidity else AccountCode.EQUITY
        to_suspense = intent.direction == Direction.TO_SUSPENSE
        other = system_account(TENANT, intent.currency, AccountCode.SUSPENSE if to_suspense else code)
        sign = -1 if intent.direction in (Direction.DEBIT, Direction.TO_LIQUIDITY, Direction.TO_SUSPENSE) else 1
        assert changes == {WALLET: sign * paid_minor, other.id: -sign * paid_minor}
    elif intent.is_collected:
        # All that was asked for comes in, and every fee leaves behind it.
        assert intent.principal_minor == (intent.asked_minor or intent.amount_minor)
        assert changes[WALLET] == intent.principal_minor - fees_minor
    else:
        assert changes[WALLET] == -paid_minor
    elsewhere = OPERATIONS[OperationType(intent.operation)].exchanges
    assert fees_minor == intent.fee_minor + (0 if elsewhere else sum_minor(intent.fee_legs, FeePhase.POST))
    if OPERATIONS[OperationType(intent.operation)].exchanges:
        liquidity = system_account(TENANT, intent.currency, AccountCode.LIQUIDITY).id
        assert (changes[liquidity], changes[OTHER]) == (intent.amount_minor, 0)
    elif OPERATIONS[OperationType(intent.operation)].needs_counterparty:
        assert changes[OTHER] == intent.received_minor


@given(intents([OperationType.EXCHANGE]))
def test_an_exchange_gives_in_the_other_ledger_what_was_agreed(intent: IntentRow) -> None:
    assert intent.exchange is not None
    agreed, ledger = intent.exchange, currency_of("USD").numeric
    changes: Counter[UUID] = Counter()
    for leg in legs_of(intent):
        if leg.ledger == ledger:
            changes[leg.debit_account_id] -= leg.amount_minor
            changes[leg.credit_account_id] += leg.amount_minor
    expected = Counter({OTHER: intent.bought_minor, spread_account(TENANT, "USD").id: agreed.spread_minor})
    expected[liquidity_account(TENANT, "USD").id] = -agreed.to_minor - agreed.spread_minor
    out_of = [leg for leg in intent.fee_legs if leg.phase is FeePhase.POST]
    for fee in out_of:
        expected[fee.account.wallet_id or fee_account(intent, fee).id] += fee.amount_minor
    assert intent.bought_minor == agreed.to_minor - sum(leg.amount_minor for leg in out_of) > 0
    assert changes == expected, "the fees out of it are in the currency that is bought, and nothing is lost"
    assert {account.id for account in accounts_of(intent)} >= changes.keys() - {OTHER, PARTNER}


@given(intents())
def test_each_chain_is_whole_and_each_leg_stays_in_one_ledger(intent: IntentRow) -> None:
    wallets = {WALLET, OTHER, PARTNER}
    known = {account.id for account in accounts_of(intent)} | wallets
    for chain in (hold_transfers(intent), posting_transfers(intent), post_transfers(intent), void_transfers(intent)):
        ledgers = {intent.currency} | ({"USD"} if intent.exchange else set())
        assert {transfer.ledger for transfer in chain} == {currency_of(each).numeric for each in ledgers}
        assert [bool(t.flags & TransferFlags.LINKED) for t in chain] == [True] * (len(chain) - 1) + [False]
        assert {account for t in chain for account in (t.debit_account_id, t.credit_account_id)} <= known
    by_id = {account.id: account for account in accounts_of(intent)}
    for leg in legs_of(intent):
        own = {by_id[side].ledger for side in (leg.debit_account_id, leg.credit_account_id) if side in by_id}
        assert own <= {leg.ledger}


def test_every_operation_that_a_client_can_name_is_declared() -> None:
    assert set(OPERATIONS) == set(OperationType)


def test_the_table_in_the_docs_is_the_registrys() -> None:
    assert TARGET.read_text(encoding="utf-8") == render()


def test_what_the_contract_calls_collected_is_what_the_registry_collects() -> None:
    assert {operation.type for operation in OPERATIONS.values() if operation.collects} == COLLECTED
    assert set(OPERATIONS) == set(OperationType)


def test_a_key_can_carry_whatever_a_movement_asks_for() -> None:
    scopes = {each.scope for one in OPERATIONS.values() for each in one.otherwise.values() if each.scope}
    assert {"SUSPENSE", "ADJUSTMENT_DEBIT", "LIQUIDITY"} == scopes
    assert scopes <= NAMED_ONLY


def test_nothing_but_the_registry_decides_by_an_operations_name() -> None:
    """A comparison with, or a set of, operation types elsewhere would be a second place that declares one."""
    root = Path(__file__).parents[3]
    deciding = {
        f"{path.relative_to(root)}:{node.lineno}"
        for path in sorted((root / "core").rglob("*.py"))
        if path.name != "registry.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare | ast.Set | ast.Dict | ast.MatchValue)
        if any(
            isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "OperationType"
            for each in ast.walk(node)
        )
        or any(isinstance(each, ast.Constant) and each.value in OPERATIONS for each in ast.iter_child_nodes(node))
    }
    assert deciding == set()
