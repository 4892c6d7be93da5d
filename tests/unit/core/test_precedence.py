"""Of several faults in one request the first in docs/errors.md is answered: each pair of neighbours is tried.

What is checked before a payment is planned is tried over HTTP, in tests/integration/api/test_precedence.py.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest

from core.domain.exchange import Quote
from core.domain.intents import IntentRow
from core.domain.mandates import Mandate
from core.domain.rates import Pair, Rate
from core.domain.refunds import Refundable
from core.services.access.keys import Caller
from core.services.payments.mandates import Signed
from core.services.payments.plans import Asked, plan_payment, priced_as, with_fees
from core.services.problems import Refusal
from core.services.terms.fees import BookState, FeeBook, StoredRule
from core.services.terms.quotes import Locked
from core.services.terms.routes import Route
from core.services.wallets.wallets import Wallet
from schemas.api import IntentRequest
from schemas.codes.emvco import encode_bill_payment
from schemas.exchange import QuoteSide
from schemas.fees import FeeRuleRequest
from schemas.mandates import MandateKind, SequenceType
from schemas.rails import RailRegistration

PAGE: Final = (Path(__file__).parents[3] / "docs" / "errors.md").read_text()
LISTED: Final = re.findall(r"^\| `(\w+)` \| \d+ \|", PAGE.split("## Other calls")[0], re.MULTILINE)
ORDER: Final = LISTED[LISTED.index("unknown_currency") :]
"""What POST /v1/intents refuses for once it has read a request."""

NOW: Final = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
TENANT: Final = uuid4()
BAHT, OTHER, DOLLARS, UNKNOWN = uuid4(), uuid4(), uuid4(), uuid4()
WALLETS: Final = {
    wallet_id: Wallet(wallet_id, TENANT, owner, currency, None, NOW)
    for wallet_id, owner, currency in ((BAHT, "anna", "THB"), (OTHER, "bob", "THB"), (DOLLARS, "anna", "USD"))
}
REGISTRATION: Final = RailRegistration.model_validate(
    {
        "rail": "noop",
        "provider": "NOOP",
        "provider_account": "main",
        "operations": {
            operation: {"not_found_horizon_s": 120, "max_amount_minor": 10_000, "currencies": ["THB"], **able}
            for operation, able in (
                ("PAYOUT", {"inquiry": True}),
                ("REFUND", {}),
                ("DIRECT_DEBIT", {}),
                ("TOPUP", {}),
                ("DEPOSIT", {"refunds": "full"}),
            )
        },
        "payee_types": {
            "mobile": {"pattern": "0[0-9]{9}", "example": "0812345678", "remedy": "ten digits from 0"},
            "mandate": {"pattern": "M-.*", "example": "M-1", "remedy": "begin with M-"},
        },
        "timing": {"send_by_s": 5, "call_total_s": 10, "claim_idle_s": 60},
    }
)
ROUTES: Final = {
    ("PAYOUT", "THB"): [Route("noop", "NOOP", "main", "sandbox", REGISTRATION)],
    ("DIRECT_DEBIT", "THB"): [Route("noop", "NOOP", "main", "sandbox", REGISTRATION)],
    ("WITHDRAWAL", "THB"): [Route("away", "NOOP", "main", "sandbox", None)],
}


def paid(operation: str, state: str) -> IntentRow:
    """A payment of 100 from one wallet to the other, or outside."""
    to = OTHER if operation == "INTERNAL_P2P" else None
    return IntentRow(
        uuid4(), TENANT, "key", operation, state, BAHT, 100, "THB", "SETTLED", counterparty_wallet_id=to
    )  # fmt: skip


def collected(operation: str, rail: str, amount_minor: int = 100) -> IntentRow:
    """A payment that came in by a rail."""
    return IntentRow(
        uuid4(), TENANT, "key", operation, "SETTLED", BAHT, amount_minor, "THB", "SETTLED", rail=rail, provider="NOOP",
        provider_account="main", environment="sandbox", provider_reference="T1",
    )  # fmt: skip


AWAY, NOT_BACK, WHOLE_BACK = collected("TOPUP", "away"), collected("TOPUP", "noop"), collected("DEPOSIT", "noop")
LARGE: Final = collected("DEPOSIT", "noop", 20_000)
SETTLED, IN_REVIEW, PAID_OUT = paid("INTERNAL_P2P", "SETTLED"), paid("INTERNAL_P2P", "REVIEW"), paid("PAYOUT", "FAILED")
ORIGINALS: Final = {
    row.id: Refundable(row) for row in (SETTLED, IN_REVIEW, PAID_OUT, AWAY, NOT_BACK, WHOLE_BACK, LARGE)
}


def quote(age_s: int, used_by: UUID | None = None) -> Quote:
    """A quote of 100 baht that is good for a minute."""
    made_at = NOW - timedelta(seconds=age_s)
    return Quote(
        uuid4(), TENANT, "key", BAHT, DOLLARS, "THB", "USD", 100, 3, 0, QuoteSide.FROM, Pair("USD", "THB"),
        Rate.parse("33"), 1, 0, made_at, made_at + timedelta(minutes=1), used_by,
    )  # fmt: skip


FRESH, USED, EXPIRED = quote(1), quote(90, used_by=uuid4()), quote(90)
RAILS: Final = {"noop": REGISTRATION}


def mandate(name: str, wallet: UUID = BAHT, **more: Any) -> Mandate:
    """A mandate over a hundred at a time, from yesterday until tomorrow."""
    days = {"valid_from": (NOW - timedelta(1)).date(), "valid_until": (NOW + timedelta(1)).date()}
    terms = {"kind": MandateKind.RECURRING, "signed_on": NOW.date(), "max_amount_minor": 100, **days, **more}
    return Mandate(TENANT, name, wallet, debtor=b"", account_masked="", created_by="key", created_at=NOW, **terms)


SIGNED: Final = {
    each.mandate_id: each
    for each in (
        mandate("M-OPEN"),
        mandate("M-DOLLARS", DOLLARS),
        mandate("M-ANY", max_amount_minor=None),
        mandate("M-CANCELLED", cancelled_at=NOW),
        mandate("M-USED", drawn={SequenceType.FINAL}),
        mandate("M-AHEAD", valid_from=(NOW + timedelta(2)).date(), valid_until=None),
        mandate("AHEAD", valid_from=(NOW + timedelta(2)).date(), valid_until=None),
        mandate("M-OVER", valid_until=(NOW - timedelta(2)).date()),
    )
}


def under(name: str) -> dict[str, str]:
    """The payee of a debit under a mandate."""
    return {"type": "mandate", "value": name}


QUOTES: Final = Locked({each.id: each for each in (FRESH, USED, EXPIRED)}, NOW)
BILL: Final = {"qr": encode_bill_payment("099400015804189", "INV17", amount_minor=2_000)}
SBP_LINK: Final = "https://qr.nspk.ru/AD100004BAL7227F9BNP6KNE007J9B3K"
MOBILE: Final = {"type": "mobile", "value": "0812345678"}
PAYOUT: Final = {"operation": "PAYOUT", "wallet_id": BAHT, "amount_minor": 100, "currency": "THB", "payee": MOBILE}
TRANSFER: Final = {**PAYOUT, "operation": "INTERNAL_P2P", "counterparty_wallet_id": OTHER, "payee": None}
REFUND: Final = {
    **PAYOUT, "operation": "REFUND", "wallet_id": OTHER, "original_intent_id": SETTLED.id, "payee": None,
}  # fmt: skip
DEBIT: Final = {**PAYOUT, "operation": "DIRECT_DEBIT", "payee": under("M-OPEN")}
EXCHANGE: Final = {
    **PAYOUT, "operation": "EXCHANGE", "counterparty_wallet_id": DOLLARS, "quote_id": FRESH.id, "payee": None,
}  # fmt: skip
FAILING: Final = {"name": "fails", "fee": {"kind": "FORMULA", "expression": "amount_minor / (amount_minor - 100)"}}
"""Has no value for 100."""
WHOLE: Final = {"name": "whole", "phase": "POST", "fee": {"fixed_minor": 100}}
ON_TOP: Final = {"name": "on-top", "fee": {"fixed_minor": 5}}


@dataclass(frozen=True, slots=True)
class Rules:
    """The reader of fee rules, with these and no others."""

    rules: Sequence[dict[str, Any]]

    async def book_state(self, uow: Any, tenant_id: UUID) -> BookState:
        return BookState(1, ZoneInfo("UTC"), NOW)

    async def tiers_of(self, uow: Any, wallet_ids: Sequence[UUID]) -> dict[UUID, str]:
        return {}

    async def load_rules(self, uow: Any, tenant_id: UUID, at: datetime | None = None) -> list[StoredRule]:
        requests = [
            FeeRuleRequest.model_validate(body | {"operation": operation, "currency": "THB"})
            for body in self.rules
            for operation in ("PAYOUT", "EXCHANGE", "DIRECT_DEBIT")
        ]
        since = NOW - timedelta(days=1)
        return [StoredRule(uuid4(), 1, one.name, True, one, since, since, "test") for one in requests]


async def answer_to(body: dict[str, Any], rules: Sequence[dict[str, Any]] = ()) -> str:
    """Plan and price a request as acceptance does; return the code it is refused with."""
    request = IntentRequest.model_validate(body)
    caller = Caller("key", TENANT, "service", None, frozenset({"*"}), None)
    asked = Asked(caller, "key", request, b"", uuid4())
    try:
        signed = Signed({name: replace(each) for name, each in SIGNED.items()}, dict.fromkeys(SIGNED, ("", "")), NOW)
        plan = plan_payment(asked, WALLETS, ROUTES, ORIGINALS, QUOTES, RAILS, signed)
    except Refusal as refusal:
        return refusal.code
    [priced] = await FeeBook(Rules(rules)).fees_for(None, TENANT, [priced_as(request, plan.quote)])
    planned = with_fees(plan, request, priced)
    return planned.code if isinstance(planned, Refusal) else "accepted"


NOBODY: Final = {"user": "carol"}
CAPPED: Final = {"max_fee_minor": 1}
NEIGHBOURS: Final[list[tuple[str, str, dict[str, Any], dict[str, Any]]]] = [
    ("unknown_currency", "wallet_not_found", PAYOUT | {"currency": "XXX", "wallet_id": UNKNOWN}, {"currency": "THB"}),
    ("wallet_not_found", "currency_mismatch",
     TRANSFER | {"wallet_id": UNKNOWN, "counterparty_wallet_id": DOLLARS}, {"wallet_id": BAHT}),
    ("currency_mismatch", "on_behalf_of_differs",
     PAYOUT | {"currency": "USD", "on_behalf_of": NOBODY}, {"currency": "THB"}),
    ("on_behalf_of_differs", "counterparty_missing",
     TRANSFER | {"counterparty_wallet_id": None, "on_behalf_of": NOBODY}, {"on_behalf_of": {"user": "anna"}}),
    ("counterparty_not_expected", "counterparty_same",
     PAYOUT | {"counterparty_wallet_id": BAHT}, {"operation": "INTERNAL_P2P"}),
    ("counterparty_same", "original_not_expected",
     TRANSFER | {"counterparty_wallet_id": BAHT, "original_intent_id": SETTLED.id}, {"counterparty_wallet_id": OTHER}),
    ("original_not_refundable", "original_not_settled",
     REFUND | {"original_intent_id": PAID_OUT.id}, {"original_intent_id": IN_REVIEW.id}),
    ("original_not_settled", "refund_wallet_differs",
     REFUND | {"original_intent_id": IN_REVIEW.id, "wallet_id": BAHT}, {"original_intent_id": SETTLED.id}),
    ("refund_wallet_differs", "refund_exceeds_original",
     REFUND | {"wallet_id": BAHT, "amount_minor": 101}, {"wallet_id": OTHER}),
    ("refund_exceeds_original", "quote_not_expected",
     REFUND | {"amount_minor": 101, "quote_id": FRESH.id}, {"amount_minor": 100}),
    ("quote_mismatch", "quote_used", EXCHANGE | {"amount_minor": 1, "quote_id": USED.id}, {"amount_minor": 100}),
    ("quote_used", "quote_expired", EXCHANGE | {"quote_id": USED.id}, {"quote_id": EXPIRED.id}),
    ("quote_expired", "direction_not_expected",
     EXCHANGE | {"quote_id": EXPIRED.id, "direction": "DEBIT"}, {"quote_id": FRESH.id}),
    ("direction_not_expected", "payee_not_expected", TRANSFER | {"direction": "DEBIT", "payee": MOBILE},
     {"direction": None}),
    ("payee_not_expected", "qr_malformed", PAYOUT | {"operation": "TOPUP", "payee": {"qr": "x"}},
     {"operation": "PAYOUT"}),
    ("qr_currency_differs", "qr_amount_differs", PAYOUT | {"wallet_id": DOLLARS, "currency": "USD", "payee": BILL},
     {"wallet_id": BAHT, "currency": "THB"}),
    ("mandate_wallet_differs", "mandate_cancelled", DEBIT | {"payee": under("M-CANCELLED"), "wallet_id": OTHER},
     {"wallet_id": BAHT}),
    ("mandate_cancelled", "mandate_used", DEBIT | {"payee": under("M-CANCELLED")}, {"payee": under("M-USED")}),
    ("mandate_used", "mandate_amount_exceeded", DEBIT | {"payee": under("M-USED"), "amount_minor": 101},
     {"payee": under("M-OPEN")}),
    ("mandate_amount_exceeded", "no_route",
     DEBIT | {"payee": under("M-DOLLARS"), "wallet_id": DOLLARS, "currency": "USD", "amount_minor": 101},
     {"amount_minor": 100}),
    ("rail_unavailable", "refund_not_offered",
     REFUND | {"original_intent_id": AWAY.id, "wallet_id": BAHT}, {"original_intent_id": NOT_BACK.id}),
    ("refund_not_offered", "refund_parts_not_offered",
     REFUND | {"original_intent_id": NOT_BACK.id, "wallet_id": BAHT, "amount_minor": 99},
     {"original_intent_id": WHOLE_BACK.id}),
    ("refund_parts_not_offered", "amount_out_of_bounds",
     REFUND | {"original_intent_id": LARGE.id, "wallet_id": BAHT, "amount_minor": 19_999}, {"amount_minor": 20_000}),
    ("amount_out_of_bounds", "payee_missing", PAYOUT | {"amount_minor": 10_001, "payee": None}, {"amount_minor": 100}),
    ("payee_type_unknown", "payee_malformed", PAYOUT | {"payee": {"type": "iban", "value": "x"}},
     {"payee": {"type": "mobile", "value": "x"}}),
    ("payee_malformed", "mandate_not_yet_valid", DEBIT | {"payee": under("AHEAD")}, {"payee": under("M-AHEAD")}),
    ("mandate_expired", "fee_rule_fails", DEBIT | {"payee": under("M-OVER")}, {"payee": under("M-OPEN")}),
]  # fmt: skip
OF_FEES: Final[list[tuple[str, str, dict[str, Any], Sequence[dict[str, Any]], Sequence[dict[str, Any]]]]] = [
    ("fee_rule_fails", "fee_exceeds_amount", PAYOUT, [WHOLE, FAILING], [WHOLE]),
    ("fee_exceeds_amount", "fee_above_agreed", PAYOUT | {"auto_confirm": CAPPED}, [WHOLE, ON_TOP], [ON_TOP]),
]


@pytest.mark.parametrize(
    ("payee", "amount_minor", "answer"),
    [
        ("M-OPEN", 95, "accepted"),
        ("M-OPEN", 96, "mandate_amount_exceeded"),
        ("M-ANY", 9_995, "accepted"),
        ("M-ANY", 9_996, "amount_out_of_bounds"),
    ],
)
async def test_what_a_payer_is_asked_for_with_fees_on_top_is_within_what_mandate_and_rail_take(
    payee: str, amount_minor: int, answer: str
) -> None:
    assert await answer_to(DEBIT | {"payee": under(payee), "amount_minor": amount_minor}, [ON_TOP]) == answer


NEVER_BOTH: Final = {
    ("counterparty_missing", "counterparty_not_expected"),
    ("original_not_expected", "original_missing"),
    ("original_missing", "original_not_found"),
    ("original_not_found", "original_not_refundable"),
    ("quote_not_expected", "quote_missing"),
    ("quote_missing", "quote_not_found"),
    ("quote_not_found", "quote_mismatch"),
    ("qr_malformed", "qr_not_payable"),
    ("qr_not_payable", "qr_currency_differs"),
    ("qr_amount_differs", "mandate_not_found"),
    ("mandate_not_found", "mandate_wallet_differs"),
    ("mandate_not_yet_valid", "mandate_expired"),
    ("no_route", "rail_unavailable"),
    ("payee_missing", "payee_type_unknown"),
}
"""No request has both: either excludes the other."""


def test_each_pair_of_neighbours_on_the_page_is_tried_or_excludes_one_another() -> None:
    tried = {(first, second) for first, second, *_ in [*NEIGHBOURS, *OF_FEES]}
    assert tried | NEVER_BOTH == set(pairwise(ORDER))
    assert not tried & NEVER_BOTH


@pytest.mark.parametrize(("first", "second", "body", "mended"), NEIGHBOURS)
async def test_the_first_of_two_faults_is_answered_and_once_it_is_mended_the_second(
    first: str, second: str, body: dict[str, Any], mended: dict[str, Any]
) -> None:
    assert await answer_to(body, [FAILING]) == first
    assert await answer_to(body | mended, [FAILING]) == second


@pytest.mark.parametrize(("first", "second", "body", "rules", "mended"), OF_FEES)
async def test_the_first_of_two_faults_of_fees_is_answered(
    first: str,
    second: str,
    body: dict[str, Any],
    rules: Sequence[dict[str, Any]],
    mended: Sequence[dict[str, Any]],
) -> None:
    assert (await answer_to(body, rules), await answer_to(body, mended)) == (first, second)


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ("counterparty_missing", TRANSFER | {"counterparty_wallet_id": None, "original_intent_id": SETTLED.id}),
        ("original_not_expected", PAYOUT | {"original_intent_id": SETTLED.id, "quote_id": FRESH.id}),
        ("original_missing", REFUND | {"original_intent_id": None, "quote_id": FRESH.id}),
        ("original_not_found", REFUND | {"original_intent_id": uuid4(), "quote_id": FRESH.id}),
        ("quote_not_expected", PAYOUT | {"quote_id": FRESH.id, "direction": "DEBIT"}),
        ("quote_missing", EXCHANGE | {"quote_id": None, "direction": "DEBIT"}),
        ("quote_not_found", EXCHANGE | {"quote_id": uuid4(), "direction": "DEBIT"}),
        ("rail_unavailable", PAYOUT | {"operation": "WITHDRAWAL", "amount_minor": 10_001}),
        ("qr_malformed", PAYOUT | {"operation": "WITHDRAWAL", "payee": {"qr": "x"}}),
        ("qr_not_payable", PAYOUT | {"operation": "WITHDRAWAL", "payee": {"qr": SBP_LINK}}),
        ("no_route", PAYOUT | {"operation": "BILL_PAYMENT", "payee": None}),
        ("qr_amount_differs", PAYOUT | {"operation": "BILL_PAYMENT", "payee": BILL}),
        ("mandate_not_found", DEBIT | {"payee": under("M-OPEN;LAST"), "wallet_id": OTHER}),
        ("mandate_not_yet_valid", DEBIT | {"payee": under("M-AHEAD")}),
        ("payee_missing", PAYOUT | {"payee": None}),
        ("payee_malformed", PAYOUT | {"payee": {"type": "mobile", "value": "x"}}),
        ("fee_above_agreed", PAYOUT | {"auto_confirm": CAPPED}),
    ],
)
async def test_what_excludes_its_neighbour_comes_before_the_next_fault_all_the_same(
    code: str, body: dict[str, Any]
) -> None:
    assert await answer_to(body, [ON_TOP]) == code


async def test_a_request_without_a_fault_is_accepted() -> None:
    assert [await answer_to(body) for body in (PAYOUT, TRANSFER, REFUND, EXCHANGE, DEBIT)] == ["accepted"] * 5
