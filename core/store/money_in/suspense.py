"""The work list of suspense in PostgreSQL: payments in that no wallet has, as the role may see them."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from core.services.money_in.suspense import Locked
from core.store.unit_of_work import UnitOfWork
from schemas.suspense import (
    SuspenseDecided,
    SuspenseDetail,
    SuspenseItem,
    SuspenseState,
    SuspenseTold,
    ToleranceRequest,
    ToleranceView,
)

# A deposit gives an item to a wallet, and so does the collection that it came for, once a review approves it.
# What took an item and failed has let go of it, unless a fact says that it was paid: then the money has left, and
# where that fact is not applied, a person looks at it first. Only a failed taker's facts are read.
STANDING: Final = """
CASE WHEN p.consumed_by IS NULL THEN 'OPEN'
     WHEN c.state IN ('FAILED', 'CANCELLED', 'EXPIRED') THEN (
         SELECT CASE bool_or(f.applied_at IS NOT NULL)
             WHEN true THEN 'RETURNED' WHEN false THEN 'RETURNING' ELSE 'OPEN' END
         FROM fleet.jobs q JOIN fleet.facts f ON f.job_id = q.id
         WHERE q.intent_id = c.id AND c.operation = 'REFUND' AND f.verdict IN ('SUCCEEDED', 'PAID', 'RETURNED'))
     WHEN c.state = 'REVIEW' THEN 'IN_REVIEW'
     WHEN c.operation <> 'REFUND' THEN 'ASSIGNED'
     WHEN c.state = 'SETTLED' THEN 'RETURNED' ELSE 'RETURNING' END
"""
"""Of a payment `p` in suspense and the intent `c` that took it."""
_ITEM: Final = f"""
SELECT p.id, p.reason, p.amount_minor - p.returned_minor AS amount_minor, p.returned_minor, p.currency, p.rail,
    p.provider_account, p.transaction_id, p.reference, p.intent_id, p.consumed_by AS taken_by, p.occurred_at,
    p.provider, p.environment, {STANDING} AS state
FROM fleet.provider_payments p LEFT JOIN fleet.intents c ON c.id = p.consumed_by
"""  # noqa: S608 - a constant
_PAGE: Final = f"""
SELECT * FROM ({_ITEM} WHERE p.state = 'SUSPENDED' AND p.tenant_id = $1
    AND ($2::uuid IS NULL OR p.intent_id = $2) AND ($3::uuid IS NULL OR p.id > $3)) AS items
WHERE $4::text IS NULL OR state = $4 ORDER BY id LIMIT $5
"""  # noqa: S608 - a constant
# A return that is booked is noted no more; one of a part leaves the rest to be decided about.
_TAKEN_BACK: Final = """
EXISTS (SELECT FROM fleet.provider_payments r WHERE r.id = p.returned_by AND r.state = 'NOTED')
"""
_TAKE: Final = """
WITH taken AS (
    UPDATE fleet.provider_payments SET consumed_by = $3, consumed_at = now() WHERE id = $1 RETURNING id, tenant_id
)
INSERT INTO fleet.suspense_decisions (payment_id, tenant_id, action, intent_id, actor, reason)
SELECT id, tenant_id, $2, $3, $4, $5 FROM taken
"""
_DECIDED: Final = """
SELECT d.action, d.intent_id, d.actor, d.reason, d.at, upper(substr(e.type, 8)) AS review, e.actor AS reviewed_by
FROM fleet.suspense_decisions d
LEFT JOIN fleet.intent_events e ON e.intent_id = d.intent_id AND e.type IN ('review_approved', 'review_rejected')
WHERE d.payment_id = $1 ORDER BY d.at
"""
_SET: Final = """
INSERT INTO fleet.collection_tolerances (tenant_id, operation, currency, below_minor, above_minor, set_by)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (tenant_id, operation, currency) DO UPDATE SET below_minor = excluded.below_minor,
    above_minor = excluded.above_minor, set_by = excluded.set_by, set_at = now()
RETURNING operation, currency, below_minor, above_minor, set_by, set_at
"""


class SuspenseStore:
    """The items of the unit of work's tenant."""

    async def page(
        self, uow: UnitOfWork, state: SuspenseState | None, intent_id: UUID | None, after: UUID | None, limit: int
    ) -> list[SuspenseItem]:
        """Return up to `limit` items, oldest first, after one."""
        rows = await uow.connection.fetch(_PAGE, uow.context.tenant_id, intent_id, after, state, limit)
        return [_item(row) for row in rows]

    async def detail(self, uow: UnitOfWork, item_id: UUID) -> SuspenseDetail | None:
        """Return one item with its sources and decisions."""
        row = await uow.connection.fetchrow(f"{_ITEM} WHERE p.state = 'SUSPENDED' AND p.id = $1", item_id)
        if row is None:
            return None
        told = await uow.connection.fetch(
            "SELECT source, evidence_id, amount_minor, currency, differs, seen_at FROM fleet.provider_payment_sources"
            " WHERE payment_id = $1 ORDER BY seen_at, source",
            item_id,
        )
        decided = await uow.connection.fetch(
            _DECIDED,
            item_id,
        )
        return SuspenseDetail(
            **dict(_item(row)),
            sources=[SuspenseTold.model_validate(dict(each)) for each in told],
            decisions=[SuspenseDecided.model_validate(dict(each)) for each in decided],
        )

    async def lock(self, uow: UnitOfWork, item_id: UUID) -> Locked | None:
        """Lock one item until the end; who waited for another's decision sees it."""
        await uow.connection.execute(
            "SELECT FROM fleet.provider_payments WHERE id = $1 AND state = 'SUSPENDED' FOR NO KEY UPDATE", item_id
        )
        row = await uow.connection.fetchrow(f"{_ITEM} WHERE p.state = 'SUSPENDED' AND p.id = $1", item_id)
        if row is None:
            return None
        back = await uow.connection.fetchval(
            f"SELECT {_TAKEN_BACK} FROM fleet.provider_payments p WHERE p.id = $1",  # noqa: S608 - a constant
            item_id,
        )
        return Locked(_item(row), row["provider"], row["environment"], back)

    async def taken_back(self, uow: UnitOfWork, intent_id: UUID) -> bool:
        """Whether what an intent took out of suspense was taken back by its provider, and that is not booked yet.

        The intent is locked: whoever notes a return locks it, too.
        """
        found: bool = await uow.connection.fetchval(
            "SELECT EXISTS (SELECT FROM fleet.provider_payments r JOIN fleet.provider_payments p"
            " ON p.returned_by = r.id WHERE r.state = 'NOTED' AND p.consumed_by = $1)",
            intent_id,
        )
        return found

    async def take(self, uow: UnitOfWork, item_id: UUID, action: str, intent_id: UUID, reason: str) -> None:
        """Note which intent takes an item that is locked, on whose decision and why."""
        await uow.connection.execute(_TAKE, item_id, action, intent_id, uow.context.actor, reason)

    async def subject_keys(self, uow: UnitOfWork, subjects: Sequence[UUID]) -> dict[UUID, bytes | None]:
        """Return the wrapped keys of the subjects that exist."""
        rows = await uow.connection.fetch(
            "SELECT id, wrapped_key FROM fleet.subjects WHERE id = ANY ($1::uuid[])", subjects
        )
        return {row["id"]: row["wrapped_key"] for row in rows}

    async def set_tolerance(self, uow: UnitOfWork, request: ToleranceRequest) -> ToleranceView:
        """Keep a tolerance; it counts from the next payment on."""
        row = await uow.connection.fetchrow(
            _SET,
            uow.context.tenant_id,
            request.operation,
            request.currency,
            request.below_minor,
            request.above_minor,
            uow.context.actor,
        )
        return ToleranceView.model_validate(dict(row or {}))

    async def tolerances(self, uow: UnitOfWork) -> list[ToleranceView]:
        """Return the tenant's tolerances."""
        rows = await uow.connection.fetch(
            "SELECT operation, currency, below_minor, above_minor, set_by, set_at FROM fleet.collection_tolerances"
            " WHERE tenant_id = $1 ORDER BY operation, currency",
            uow.context.tenant_id,
        )
        return [ToleranceView.model_validate(dict(row)) for row in rows]


def _item(row: Any) -> SuspenseItem:
    return SuspenseItem(**{name: row[name] for name in SuspenseItem.model_fields})
