"""Deliveries in PostgreSQL: derived from the log, taken with a lease, ended. Under the worker role."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from core.domain.context import Context
from core.domain.ids import derive_id
from core.services.told.notify import Delivery, Outcome
from core.store.database import Database
from schemas.webhooks import DeliveryState

_CONTEXT: Final = Context(None, "notifier")

_WANTED: Final = "SELECT EXISTS (SELECT FROM fleet.webhook_endpoints WHERE enabled AND deleted_at IS NULL)"

# Where the cursor was set back, what was delivered once is delivered again; else no row is there yet. An endpoint whose
# queue is long is left: the log keeps its place.
_DERIVE: Final = """
WITH behind AS (
    SELECT w.* FROM fleet.webhook_endpoints w
    WHERE w.enabled AND w.deleted_at IS NULL AND w.position < $1
        AND (SELECT count(*) FROM (SELECT FROM fleet.webhook_deliveries d
            WHERE d.endpoint_id = w.id AND d.state = 'PENDING' LIMIT $3) queued) < $3
    ORDER BY w.position LIMIT 100 FOR NO KEY UPDATE OF w SKIP LOCKED
), read AS (
    SELECT b.id AS endpoint_id, b.tenant_id, b.event_types, e.position, e.intent_id, e.seq, e.type, e.state
    FROM behind b CROSS JOIN LATERAL (
        SELECT e.position, e.intent_id, e.seq, e.type, e.state FROM fleet.intent_events e
        WHERE e.tenant_id = b.tenant_id AND e.position > b.position AND e.position <= $1
        ORDER BY e.position LIMIT $2) e
), reached AS (
    SELECT b.id, CASE WHEN count(r.position) < $2 THEN $1 ELSE max(r.position) END AS position
    FROM behind b LEFT JOIN read r ON r.endpoint_id = b.id GROUP BY b.id
), made AS (
    INSERT INTO fleet.webhook_deliveries AS d (endpoint_id, position, tenant_id, intent_id, seq, type)
    SELECT endpoint_id, position, tenant_id, intent_id, seq, type FROM read
    WHERE event_types = '{}' OR type = ANY (event_types)
        OR state IN ('SETTLED', 'FAILED', 'CANCELLED', 'EXPIRED') AND lower(state) = ANY (event_types)
    ON CONFLICT (endpoint_id, position) DO UPDATE SET state = 'PENDING', attempts = 0, due_at = now(), ended_at = NULL
        WHERE d.state <> 'PENDING'
), moved AS (
    UPDATE fleet.webhook_endpoints w SET position = r.position FROM reached r WHERE w.id = r.id
    RETURNING w.position
)
SELECT count(*) FROM moved WHERE position < $1
"""

# Of one intent, or of an endpoint that keeps its whole order, only the first that is not ended may go. Of a tenant's
# endpoints at most as many are served at once as places are free: those of one that are slow leave some to the others.
_TAKE: Final = """
WITH busy AS (
    SELECT tenant_id, count(*) AS endpoints FROM fleet.webhook_endpoints WHERE id = ANY ($1::uuid[]) GROUP BY tenant_id
), waiting AS (
    SELECT w.id, coalesce(b.endpoints, 0) + row_number() OVER (PARTITION BY w.tenant_id ORDER BY random()) AS own
    FROM fleet.webhook_endpoints w LEFT JOIN busy b USING (tenant_id)
    WHERE w.enabled AND w.deleted_at IS NULL AND w.id <> ALL ($1::uuid[])
        AND EXISTS (SELECT FROM fleet.webhook_deliveries d
            WHERE d.endpoint_id = w.id AND d.state = 'PENDING' AND d.due_at <= now())
), served AS (
    SELECT id FROM (SELECT id, own + row_number() OVER (ORDER BY own, random()) AS filled FROM waiting) w
    WHERE filled <= $3 + 1
), due AS (
    SELECT w.id, d.position FROM fleet.webhook_endpoints w CROSS JOIN LATERAL (
        SELECT d.position FROM fleet.webhook_deliveries d
        WHERE d.endpoint_id = w.id AND d.state = 'PENDING' AND d.due_at <= now()
            AND NOT EXISTS (SELECT FROM fleet.webhook_deliveries b
                WHERE b.endpoint_id = w.id AND b.intent_id = d.intent_id AND b.state = 'PENDING'
                    AND b.position < d.position)
            AND (w.ordering = 'INTENT' OR NOT EXISTS (SELECT FROM fleet.webhook_deliveries b
                WHERE b.endpoint_id = w.id AND b.state = 'PENDING' AND b.position < d.position))
        ORDER BY d.position LIMIT $2 FOR NO KEY UPDATE OF d SKIP LOCKED) d
    WHERE w.id IN (SELECT id FROM served)
), taken AS (
    UPDATE fleet.webhook_deliveries d SET attempts = d.attempts + 1, due_at = now() + $4 * interval '1 second'
    FROM due WHERE d.endpoint_id = due.id AND d.position = due.position
    RETURNING d.*
)
SELECT t.endpoint_id, t.tenant_id, w.url, w.secret, w.secret_before, t.position, t.intent_id, t.seq, t.type,
    t.attempts, coalesce(e.at, t.created_at) AS at, e.state,
    i.operation, i.wallet_id, i.counterparty_wallet_id, i.original_intent_id, i.amount_minor, i.currency, i.fee_minor,
    i.client_reference AS reference, CASE WHEN e.state IN ('FAILED', 'EXPIRED') THEN i.failure_code END AS failure_code
FROM taken t JOIN fleet.webhook_endpoints w ON w.id = t.endpoint_id
LEFT JOIN fleet.intent_events e ON e.intent_id = t.intent_id AND e.seq = t.seq
LEFT JOIN fleet.intents i ON i.id = t.intent_id
ORDER BY t.endpoint_id, t.position
"""
_OF_INTENT: Final = (
    "operation",
    "wallet_id",
    "counterparty_wallet_id",
    "original_intent_id",
    "amount_minor",
    "currency",
    "fee_minor",
    "reference",
    "failure_code",
)

_KEEP: Final = """
UPDATE fleet.webhook_deliveries d SET state = o.state, status = o.status, error = o.error,
    due_at = CASE WHEN o.state = 'PENDING' THEN now() + o.wait_s * interval '1 second' ELSE d.due_at END,
    ended_at = CASE WHEN o.state = 'PENDING' THEN NULL ELSE now() END
FROM unnest($1::uuid[], $2::bigint[], $3::int[], $4::text[], $5::int[], $6::text[], $7::float8[])
    AS o(endpoint_id, position, attempts, state, status, error, wait_s)
WHERE d.endpoint_id = o.endpoint_id AND d.position = o.position AND d.attempts = o.attempts AND d.state = 'PENDING'
"""
_ALERT: Final = """
INSERT INTO fleet.alerts (id, tenant_id, severity, kind, detail)
SELECT $1, tenant_id, 'ticket', $3, $4 FROM fleet.webhook_endpoints WHERE id = $2
ON CONFLICT (id) DO NOTHING
"""


class PostgresDeliveries:
    """The Deliveries of `core.services.told.notify`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def wanted(self) -> bool:
        """Whether any endpoint is enabled."""
        async with self._database.acquire() as connection:
            return bool(await connection.fetchval(_WANTED))

    async def derive(self, upto: int, limit: int, pending_max: int) -> int:
        """Write the deliveries of events up to a position; return how many endpoints have more to come."""
        async with self._database.unit_of_work(_CONTEXT) as uow:
            return int(await uow.connection.fetchval(_DERIVE, upto, limit, pending_max))

    async def take(self, without: Sequence[UUID], each: int, endpoints: int, lease_s: float) -> list[Delivery]:
        """Take due deliveries; the commit need not reach the disk, since a lost lease only sends again."""
        async with self._database.unit_of_work(_CONTEXT, durable=False) as uow:
            rows = await uow.connection.fetch(_TAKE, without, each, endpoints, lease_s)
        return [_delivery(row) for row in rows]

    async def keep(self, outcomes: Sequence[Outcome]) -> None:
        """Write what became of deliveries that are still this process's; dead ones raise an alert a day."""
        async with self._database.unit_of_work(_CONTEXT) as uow:
            await uow.connection.execute(
                _KEEP,
                [each.delivery.endpoint_id for each in outcomes],
                [each.delivery.position for each in outcomes],
                [each.delivery.attempts for each in outcomes],
                [each.state for each in outcomes],
                [each.answer.status for each in outcomes],
                [each.answer.error for each in outcomes],
                [each.wait_s or 0 for each in outcomes],
            )
            for endpoint_id in sorted({each.delivery.endpoint_id for each in outcomes if each.state is _DEAD}):
                today = await uow.connection.fetchval("SELECT current_date::text")
                text = f"webhooks of endpoint {endpoint_id} were given up: fleet webhooks deliveries {endpoint_id}"
                alert_id = derive_id(endpoint_id, "alert", "webhook_dead", today)
                await uow.connection.execute(_ALERT, alert_id, endpoint_id, "webhook_dead", text)

    async def disable(self, endpoint_id: UUID, reason: str) -> None:
        """Send nothing more to an endpoint, and say so."""
        async with self._database.unit_of_work(_CONTEXT) as uow:
            changed = await uow.connection.fetchval(
                "UPDATE fleet.webhook_endpoints SET enabled = false, disabled_reason = $2"
                " WHERE id = $1 AND enabled RETURNING now()::text",
                endpoint_id,
                reason,
            )
            if changed is not None:
                alert_id = derive_id(endpoint_id, "alert", "webhook_disabled", changed)
                text = f"endpoint {endpoint_id} is switched off: {reason}"
                await uow.connection.execute(_ALERT, alert_id, endpoint_id, "webhook_disabled", text)


_DEAD: Final = DeliveryState.DEAD


def _delivery(row: Any) -> Delivery:
    return Delivery(
        endpoint_id=row["endpoint_id"],
        tenant_id=row["tenant_id"],
        url=row["url"],
        secrets=tuple(text for text in (row["secret"], row["secret_before"]) if text is not None),
        position=row["position"],
        intent_id=row["intent_id"],
        seq=row["seq"],
        type=row["type"],
        attempts=row["attempts"],
        at=row["at"],
        state=row["state"],
        intent={name: row[name] for name in _OF_INTENT} if row["operation"] is not None else None,
    )
