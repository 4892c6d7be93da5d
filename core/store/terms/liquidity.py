"""What the ledger says of liquidity, read in one snapshot, and the flag that lets it be overdrawn."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from core.services.terms.exposure import AccountFlows, PairFlows
from core.store.database import UnitOfWork

# Codes of transfers: 2 a fee out of what is bought, 3 by hand, 5 exchanged, 6 spread. Flags: holds (2) and voids (8)
# move nothing that is posted. Every exchange pays into one account of liquidity once, and out of another one once,
# its spread and the fees aside.
_FLOWS: Final = """
WITH moves AS MATERIALIZED (
    SELECT t.user_data AS intent, t.credit_account_id AS account, t.code, t.amount_minor AS paid_in, 0 AS paid_out
    FROM fleet.transfers t
    WHERE t.credit_account_id = ANY ($1::uuid[]) AND t.flags & 10 = 0
        AND ($2::timestamptz IS NULL OR t.created_at >= $2)
    UNION ALL
    SELECT t.user_data, t.debit_account_id, t.code, 0, t.amount_minor
    FROM fleet.transfers t
    WHERE t.debit_account_id = ANY ($1::uuid[]) AND t.flags & 10 = 0
        AND ($2::timestamptz IS NULL OR t.created_at >= $2)
), exchanged AS (
    SELECT i.account AS from_account, o.account AS to_account, i.paid_in AS from_minor,
        sum(o.paid_out) FILTER (WHERE o.code IN (2, 5)) AS to_minor,
        coalesce(sum(o.paid_out) FILTER (WHERE o.code = 6), 0) AS spread_minor
    FROM moves i JOIN moves o ON o.intent = i.intent AND o.paid_out > 0 AND o.code IN (2, 5, 6)
    WHERE i.paid_in > 0 AND i.code = 5
    GROUP BY i.intent, i.account, o.account, i.paid_in
)
SELECT a.id AS account, NULL::uuid AS other, a.credits_posted - a.debits_posted AS a, a.debits_pending AS b,
    (a.flags & 1 = 0)::int AS c, coalesce(sum(m.paid_in) FILTER (WHERE m.code = 5), 0)::bigint AS d,
    coalesce(sum(m.paid_out) FILTER (WHERE m.code IN (2, 5)), 0)::bigint AS e,
    coalesce(sum(m.paid_out) FILTER (WHERE m.code = 6), 0)::bigint AS f,
    coalesce(sum(m.paid_in - m.paid_out) FILTER (WHERE m.code = 3), 0)::bigint AS g
FROM fleet.accounts a LEFT JOIN moves m ON m.account = a.id
WHERE a.id = ANY ($1::uuid[]) GROUP BY a.id
UNION ALL
SELECT from_account, to_account, count(*), sum(from_minor)::bigint, sum(to_minor)::bigint, sum(spread_minor)::bigint,
    0, 0, 0
FROM exchanged GROUP BY from_account, to_account
"""
_SET: Final = "SELECT fleet.set_overdraft($1, $2, $3)"
_TELL: Final = """
INSERT INTO fleet.liquidity_changes (tenant_id, account_id, currency, may_overdraw, changed_by)
VALUES ($1, $2, $3, $4, $5)
"""


class PostgresLiquidity:
    """The liquidity of tenants."""

    async def flows(
        self, uow: UnitOfWork, accounts: Sequence[UUID], since: datetime | None
    ) -> tuple[list[AccountFlows], list[PairFlows]]:
        """Return what each account holds and what went through it, and between which two, of one snapshot."""
        rows = await uow.connection.fetch(_FLOWS, accounts, since)
        own = [
            AccountFlows(row["account"], row["a"], row["b"], bool(row["c"]), row["d"], row["e"], row["f"], row["g"])
            for row in rows
            if row["other"] is None
        ]
        pairs = [
            PairFlows(row["account"], row["other"], row["a"], row["b"], row["c"], row["d"])
            for row in rows
            if row["other"] is not None
        ]
        return own, pairs

    async def set_overdraft(
        self, uow: UnitOfWork, tenant_id: UUID, account_id: UUID, currency: str, allowed: bool
    ) -> bool:
        """Change the account's flag and keep who did it; False where it is overdrawn now."""
        if not await uow.connection.fetchval(_SET, tenant_id, account_id, allowed):
            return False
        await uow.connection.execute(_TELL, tenant_id, account_id, currency, allowed, uow.context.actor)
        return True
