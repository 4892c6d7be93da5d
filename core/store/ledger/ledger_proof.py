"""The proof: what the transfers say against what the accounts store."""

from typing import TYPE_CHECKING

from core.services.ledger_port import Discrepancy, LedgerReport

if TYPE_CHECKING:
    from core.store.unit_of_work import Connection

# One statement is one snapshot. A hold counts as pending until a resolution names it.
_PROOF = """
WITH moves AS MATERIALIZED (
    SELECT t.*, t.flags & 2 = 2 AND r.pending_id IS NULL AS held, t.flags & 10 = 0 AS posts
    FROM fleet.transfers t LEFT JOIN fleet.transfer_resolutions r ON r.pending_id = t.id
), sums AS (
    SELECT account, sum(dp) AS dp, sum(dd) AS dd, sum(cp) AS cp, sum(cd) AS cd FROM (
        SELECT debit_account_id AS account, CASE WHEN held THEN amount_minor ELSE 0 END AS dp,
            CASE WHEN posts THEN amount_minor ELSE 0 END AS dd, 0 AS cp, 0 AS cd FROM moves
        UNION ALL
        SELECT credit_account_id, 0, 0, CASE WHEN held THEN amount_minor ELSE 0 END,
            CASE WHEN posts THEN amount_minor ELSE 0 END FROM moves) sides GROUP BY account
)
SELECT 'accounts' AS kind, NULL::uuid AS subject, count(*)::text AS detail FROM fleet.accounts
UNION ALL SELECT 'transfers', NULL, count(*)::text FROM moves
UNION ALL SELECT 'pending_minor', NULL, coalesce(sum(amount_minor) FILTER (WHERE held), 0)::text FROM moves
UNION ALL
SELECT 'balance_differs', a.id, format('stored %s/%s/%s/%s, transfers say %s/%s/%s/%s', a.debits_pending,
    a.debits_posted, a.credits_pending, a.credits_posted, coalesce(s.dp, 0), coalesce(s.dd, 0),
    coalesce(s.cp, 0), coalesce(s.cd, 0))
FROM fleet.accounts a LEFT JOIN sums s ON s.account = a.id
WHERE (a.debits_pending, a.debits_posted, a.credits_pending, a.credits_posted)
    IS DISTINCT FROM (coalesce(s.dp, 0), coalesce(s.dd, 0), coalesce(s.cp, 0), coalesce(s.cd, 0))
UNION ALL
SELECT 'account_missing', s.account, 'transfers name an account that does not exist'
FROM sums s WHERE NOT EXISTS (SELECT FROM fleet.accounts a WHERE a.id = s.account)
UNION ALL
SELECT 'flag_broken', id, 'flags ' || flags FROM fleet.accounts
WHERE (flags & 1 = 1 AND debits_pending::numeric + debits_posted > credits_posted)
    OR (flags & 2 = 2 AND credits_pending::numeric + credits_posted > debits_posted)
UNION ALL
SELECT 'ledger_unbalanced', NULL, format('tenant %s ledger %s', tenant_id, ledger) FROM fleet.accounts
GROUP BY tenant_id, ledger
HAVING sum(debits_pending) <> sum(credits_pending) OR sum(debits_posted) <> sum(credits_posted)
UNION ALL
SELECT 'chain_broken', chain_id, format('%s of %s', count(*), min(chain_length)) FROM moves
WHERE chain_id IS NOT NULL GROUP BY chain_id HAVING count(*) <> min(chain_length)
UNION ALL
SELECT 'resolution_unfounded', m.id, 'posts or voids a hold that does not name it or is another' FROM moves m
LEFT JOIN fleet.transfer_resolutions r
    ON r.pending_id = m.pending_id AND r.transfer_id = m.id AND r.kind = m.flags & 12
LEFT JOIN fleet.transfers h ON h.id = m.pending_id AND h.flags & 2 = 2 AND h.tenant_id = m.tenant_id
    AND h.debit_account_id = m.debit_account_id AND h.credit_account_id = m.credit_account_id AND h.code = m.code
    AND (h.amount_minor = m.amount_minor OR (h.amount_minor > m.amount_minor AND m.flags & 4 = 4))
WHERE m.flags & 12 <> 0 AND (r.pending_id IS NULL OR h.id IS NULL)
UNION ALL
SELECT 'resolution_unfounded', r.pending_id, 'a resolution without its transfer, its hold or its time-out'
FROM fleet.transfer_resolutions r
LEFT JOIN fleet.transfers t ON t.id = r.transfer_id AND t.pending_id = r.pending_id
LEFT JOIN fleet.transfers h ON h.id = r.pending_id AND h.flags & 2 = 2
WHERE h.id IS NULL OR (r.kind <> 16 AND t.id IS NULL)
    OR (r.kind = 16 AND (h.expires_at IS NULL OR h.expires_at > r.resolved_at))
"""
_COUNTS = ("accounts", "transfers", "pending_minor")


async def prove(connection: "Connection") -> LedgerReport:
    """Return the report over every row that the connection may see."""
    rows = await connection.fetch(_PROOF)
    counts = {row["kind"]: int(row["detail"]) for row in rows if row["kind"] in _COUNTS}
    found = [Discrepancy(r["kind"], r["subject"], r["detail"]) for r in rows if r["kind"] not in _COUNTS]
    return LedgerReport(counts["accounts"], counts["transfers"], counts["pending_minor"], found)
