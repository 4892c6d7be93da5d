"""The hash that an idempotency key is bound to outlives every field that a request gets later."""

from typing import Any
from uuid import UUID

import pytest

from core.services.payments.request_hash import request_hash
from schemas.api import IntentRequest

WALLET = UUID(int=1)
PAYOUT = {
    "operation": "PAYOUT",
    "wallet_id": WALLET,
    "amount_minor": 12550,
    "currency": "THB",
    "payee": {"type": "mobile", "value": "0812345678"},
    "message": "rent",
    "reference": "r-1",
    "auto_confirm": {"max_fee_minor": 10},
    "channel": "app",
}
ADJUSTMENT = {"operation": "MANUAL_ADJUSTMENT", "wallet_id": WALLET, "amount_minor": 5, "currency": "JPY"}


def hash_of(body: dict[str, Any]) -> str:
    return request_hash(IntentRequest.model_validate(body)).hex()


# Taken when a request had the fields that `_ALWAYS_IN` names and no others: such hashes stand in databases for ever.
@pytest.mark.parametrize(
    ("body", "stored"),
    [
        (PAYOUT, "32c25b124872ea3d5a8c7100d153c62c4639e1806c9d13efa40de2f00df3d78f"),
        (ADJUSTMENT, "cf912c54e7fef70be808c960cb40788315ca58fc241e94cc5b0dbc288be0e690"),
    ],
)
def test_a_key_of_before_still_matches_its_request(body: dict[str, Any], stored: str) -> None:
    assert hash_of(body) == stored


def test_a_later_field_counts_where_it_is_set() -> None:
    assert hash_of(ADJUSTMENT | {"direction": None}) == hash_of(ADJUSTMENT)
    hashes = {hash_of(ADJUSTMENT | {"direction": each}) for each in (None, "CREDIT", "DEBIT")}
    assert len(hashes) == 3
