"""Whom the transactions of providers paid, in PostgreSQL: one row each, written with what settles by it."""

from collections.abc import Mapping, Sequence
from typing import Final

from core.services.settling.claims import Claimant, TransactionTakenError
from core.store.columns import spare, spared_rows
from core.store.unit_of_work import UnitOfWork, Write

# Whoever claims the same at once waits here for the other's end, and then misses a row or not.
_CLAIM: Final = Write(
    f"""
claimed AS (
    INSERT INTO fleet.paid_transactions (claim, tenant_id, intent_id) {spared_rows(("bytea", "uuid", "uuid"))}
    ON CONFLICT (claim) DO NOTHING RETURNING claim
)
""",
    frozenset({"paid_transactions"}),
    "SELECT count(*) FROM claimed",
)


async def claim(uow: UnitOfWork, claims: Mapping[bytes, Claimant]) -> None:
    """Keep whom these transactions paid, at the latest with the commit.

    Raises TransactionTakenError, now or then, where one is kept already: nothing may commit.
    """
    if not claims:
        return
    # In one order, as two that claim the same would else wait for each other.
    keys = sorted(claims)
    await uow.later(
        _CLAIM,
        keys,
        spare([claims[key].tenant_id for key in keys]),
        spare([claims[key].intent_id for key in keys]),
        expected=len(keys),
        missed=TransactionTakenError,
    )


async def claimants(uow: UnitOfWork, claims: Sequence[bytes]) -> dict[bytes, Claimant]:
    """Return whom these transactions paid; those that paid nobody are absent."""
    if not claims:
        return {}
    rows = await uow.connection.fetch(
        "SELECT claim, tenant_id, intent_id FROM fleet.paid_transactions WHERE claim = ANY ($1::bytea[])", claims
    )
    return {row["claim"]: Claimant(row["tenant_id"], row["intent_id"]) for row in rows}
