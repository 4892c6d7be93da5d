"""The overview's figures, all of one statement: each part walks an index over the few that wait."""

from typing import Final
from uuid import UUID

from core.services.on_call.overview import Figure
from core.store.unit_of_work import UnitOfWork

# Imbalance is the sum of every account of a ledger; of one tenant as well, since no transfer crosses tenants.
_READ: Final = """
SELECT 'imbalance' AS name, ledger::text AS label,
    (abs(sum(debits_pending) - sum(credits_pending)) + abs(sum(debits_posted) - sum(credits_posted)))::bigint AS count,
    NULL::bigint AS oldest_s
FROM fleet.accounts WHERE $1::uuid IS NULL OR tenant_id = $1 GROUP BY ledger
UNION ALL
SELECT 'unresolved', coalesce(rail, ''), count(*), floor(extract(epoch FROM now() - min(parked_at)))::bigint
FROM fleet.intents WHERE parked_at IS NOT NULL AND state = 'UNRESOLVED' AND ($1::uuid IS NULL OR tenant_id = $1)
GROUP BY rail
UNION ALL
SELECT 'in_review', '', count(*), floor(extract(epoch FROM now() - min(created_at)))::bigint
FROM fleet.intents WHERE review_until IS NOT NULL AND ($1::uuid IS NULL OR tenant_id = $1) HAVING count(*) > 0
UNION ALL
SELECT CASE WHEN stream LIKE '%:results%' THEN 'dead_results' ELSE 'dead_letters' END, rail, count(*),
    floor(extract(epoch FROM now() - min(received_at)))::bigint
FROM fleet.dead_letters WHERE state = 'OPEN' AND ($1::uuid IS NULL OR tenant_id = $1) GROUP BY 1, rail
UNION ALL
SELECT 'outbox', stream, count(*), floor(greatest(0, extract(epoch FROM now() - min(not_before))))::bigint
FROM fleet.outbox WHERE $1::uuid IS NULL OR tenant_id = $1 GROUP BY stream
UNION ALL
SELECT 'open_payments', rail, count(*), floor(extract(epoch FROM now() - min(created_at)))::bigint
FROM fleet.jobs WHERE closed_at IS NULL AND kind = 'pay' AND ($1::uuid IS NULL OR tenant_id = $1) GROUP BY rail
UNION ALL
SELECT 'breaks', kind, count(*), floor(extract(epoch FROM now() - min(first_seen_at)))::bigint
FROM fleet.breaks WHERE state IN ('OPEN', 'PROPOSED') AND ($1::uuid IS NULL OR tenant_id = $1) GROUP BY kind
UNION ALL
SELECT 'redrives', state, count(*), floor(extract(epoch FROM now() - min(created_at)))::bigint
FROM fleet.redrives WHERE state IN ('AWAITING_APPROVAL', 'RUNNING') AND ($1::uuid IS NULL OR tenant_id = $1)
GROUP BY state
UNION ALL
SELECT 'alerts', severity || ' ' || kind, count(*), floor(extract(epoch FROM now() - min(raised_at)))::bigint
FROM fleet.alerts WHERE closed_at IS NULL AND ($1::uuid IS NULL OR tenant_id = $1) GROUP BY severity, kind
UNION ALL
SELECT 'paused', rail || ' ' || operation, 1, floor(extract(epoch FROM now() - paused_at))::bigint
FROM fleet.rail_pauses
UNION ALL
SELECT 'waiting', rail || ' ' || operation || ' ' || cause, 1, floor(extract(epoch FROM now() - began_at))::bigint
FROM fleet.rail_waits
ORDER BY 1, 3 DESC, 2
"""


class StoredFigures:
    """See `core.services.on_call.overview.Figures`."""

    async def read(self, uow: UnitOfWork, tenant_id: UUID | None) -> list[Figure]:
        """Return everything that waits."""
        return [Figure(*row) for row in await uow.connection.fetch(_READ, tenant_id)]
