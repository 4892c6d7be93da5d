"""Endpoints and what was delivered to them, as their tenant sees and changes them."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from core.services.told.notify import TEST_TYPE, message_id
from core.services.told.webhooks import StoredEndpoint
from core.store.unit_of_work import UnitOfWork
from schemas.webhooks import DeliveryState, WebhookDeliveryView, WebhookEndpointView, WebhookOrdering

_COUNTED_MAX: Final = 10_000
_VIEW: Final = f"""
SELECT w.id, w.url, w.event_types, w.ordering, w.enabled, w.disabled_reason, w.created_at, w.rotated_at,
    (SELECT count(*) FROM (SELECT FROM fleet.webhook_deliveries d WHERE d.endpoint_id = w.id AND d.state = 'PENDING'
        LIMIT {_COUNTED_MAX}) p) AS pending_count,
    (SELECT count(*) FROM (SELECT FROM fleet.webhook_deliveries d WHERE d.endpoint_id = w.id AND d.state = 'DEAD'
        LIMIT {_COUNTED_MAX}) p) AS dead_count
FROM fleet.webhook_endpoints w WHERE w.deleted_at IS NULL AND w.tenant_id = $1
"""  # noqa: S608 - a constant


class WebhookStore:
    """The endpoints of the unit of work's tenant."""

    async def insert_endpoint(self, uow: UnitOfWork, endpoint: StoredEndpoint) -> None:
        """Insert a new endpoint."""
        await uow.connection.execute(
            "INSERT INTO fleet.webhook_endpoints"
            " (id, tenant_id, url, event_types, ordering, secret, position, created_by)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            endpoint.id,
            uow.context.tenant_id,
            endpoint.url,
            list(endpoint.event_types),
            endpoint.ordering,
            endpoint.secret,
            endpoint.position,
            uow.context.actor,
        )

    async def endpoints(self, uow: UnitOfWork, endpoint_id: UUID | None = None) -> list[WebhookEndpointView]:
        """Return one endpoint or all, oldest first."""
        narrowed = "" if endpoint_id is None else " AND w.id = $2"
        values = [uow.context.tenant_id] + ([] if endpoint_id is None else [endpoint_id])
        rows = await uow.connection.fetch(f"{_VIEW}{narrowed} ORDER BY w.created_at, w.id", *values)
        return [_endpoint(row) for row in rows]

    async def lock_tenant(self, uow: UnitOfWork) -> int:
        """Return how many endpoints there are; who asks waits for who asked before it to commit."""
        await uow.connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('fleet.webhook_endpoints' || $1::text, 0))",
            str(uow.context.tenant_id),
        )
        return int(
            await uow.connection.fetchval(
                "SELECT count(*) FROM fleet.webhook_endpoints WHERE tenant_id = $1 AND deleted_at IS NULL",
                uow.context.tenant_id,
            )
        )

    async def delete_endpoint(self, uow: UnitOfWork, endpoint_id: UUID) -> bool:
        """Take an endpoint away; False where there is none."""
        return await _changed(uow, "deleted_at = now(), enabled = false", endpoint_id)

    async def set_enabled(self, uow: UnitOfWork, endpoint_id: UUID, enabled: bool) -> bool:
        """Switch an endpoint on or off; False where there is none."""
        return await _changed(
            uow, "enabled = $2, disabled_reason = CASE WHEN NOT $2 THEN 'switched off' END", endpoint_id, enabled
        )

    async def rotate(self, uow: UnitOfWork, endpoint_id: UUID, secret: bytes) -> bool:
        """Give an endpoint a new secret beside the one it has; False where there is none."""
        return await _changed(uow, "secret_before = secret, secret = $2, rotated_at = now()", endpoint_id, secret)

    async def add_test(self, uow: UnitOfWork, endpoint_id: UUID) -> int:
        """Queue a test; return its position."""
        position: int = await uow.connection.fetchval(
            "INSERT INTO fleet.webhook_deliveries (endpoint_id, position, tenant_id, intent_id, seq, type)"
            " SELECT $1, p, $2, $1, (p % 2147483647)::int, $3 FROM nextval('fleet.event_positions') p"
            " RETURNING position",
            endpoint_id,
            uow.context.tenant_id,
            TEST_TYPE,
        )
        return position

    async def deliveries(
        self, uow: UnitOfWork, endpoint_id: UUID, state: DeliveryState | None, before: int | None, limit: int
    ) -> list[WebhookDeliveryView]:
        """Return deliveries, newest first."""
        conditions = ["endpoint_id = $1"]
        values: list[Any] = [endpoint_id]
        for text, value in (("state = {}", state), ("position < {}", before)):
            if value is not None:
                values.append(value)
                conditions.append(text.format(f"${len(values)}"))
        rows = await uow.connection.fetch(
            f"SELECT * FROM fleet.webhook_deliveries WHERE {' AND '.join(conditions)}"  # noqa: S608
            f" ORDER BY position DESC LIMIT {int(limit)}",
            *values,
        )
        return [_delivery(row) for row in rows]

    async def redrive_dead(self, uow: UnitOfWork, endpoint_id: UUID) -> int:
        """Make every dead delivery due now; return how many."""
        done: str = await uow.connection.execute(
            "UPDATE fleet.webhook_deliveries SET state = 'PENDING', attempts = 0, due_at = now(), ended_at = NULL"
            " WHERE endpoint_id = $1 AND state = 'DEAD'",
            endpoint_id,
        )
        return int(done.rsplit(" ", 1)[1])

    async def replay_since(self, uow: UnitOfWork, endpoint_id: UUID, since: datetime) -> int | None:
        """Set the endpoint's cursor back to before the first event of that time or later; None where it is there."""
        position: int | None = await uow.connection.fetchval(
            "UPDATE fleet.webhook_endpoints w SET position = e.position - 1 FROM ("
            " SELECT position FROM fleet.intent_events WHERE tenant_id = $2 AND at >= $3 ORDER BY position LIMIT 1) e"
            " WHERE w.id = $1 AND w.position >= e.position RETURNING w.position",
            endpoint_id,
            uow.context.tenant_id,
            since,
        )
        return position


async def _changed(uow: UnitOfWork, changes: str, endpoint_id: UUID, *values: Any) -> bool:
    done: str = await uow.connection.execute(
        f"UPDATE fleet.webhook_endpoints SET {changes} WHERE id = $1 AND deleted_at IS NULL",  # noqa: S608
        endpoint_id,
        *values,
    )
    return done == "UPDATE 1"


def _endpoint(row: Any) -> WebhookEndpointView:
    values = dict(row) | {"ordering": WebhookOrdering(row["ordering"])}
    return WebhookEndpointView.model_validate(values)


def _delivery(row: Any) -> WebhookDeliveryView:
    return WebhookDeliveryView(
        id=message_id(row["intent_id"], row["seq"]),
        position=str(row["position"]),
        intent_id=row["intent_id"],
        type=row["type"],
        state=DeliveryState(row["state"]),
        attempts=row["attempts"],
        status=row["status"],
        error=row["error"],
        due_at=row["due_at"],
        created_at=row["created_at"],
        ended_at=row["ended_at"],
    )
