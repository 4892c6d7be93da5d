"""Alerts in PostgreSQL: what people see of them, and who closed them."""

from typing import Any, Final
from uuid import UUID

from core.services.on_call.alerts import AlertFilter
from core.store.database import UnitOfWork
from core.store.money_in.suspense import STANDING as ITEM_STANDING
from schemas.alerts import AlertView

# What an alert tells of is looked up under the id that it shares with it, or with its payment.
_VIEW: Final = f"""
SELECT a.id, a.tenant_id, a.severity, a.kind, a.detail, a.intent_id, a.job_id, a.raised_at, a.proposed_by,
    a.proposed_at, a.closed_by, a.closed_because, a.closed_at,
    CASE WHEN a.closed_at IS NOT NULL THEN 'CLOSED' WHEN a.proposed_by IS NOT NULL THEN 'PROPOSED' ELSE 'OPEN' END
        AS state,
    floor(extract(epoch FROM coalesce(a.closed_at, now()) - a.raised_at))::bigint AS age_s,
    CASE WHEN a.closed_at IS NOT NULL THEN ''
        WHEN EXISTS (SELECT FROM fleet.intents i WHERE i.id = a.intent_id AND i.state = 'UNRESOLVED')
            THEN 'the payment is still UNRESOLVED'
        WHEN a.kind = 'unusable_result' AND EXISTS (SELECT FROM fleet.dead_letters d
            WHERE d.id = a.id AND d.state = 'OPEN') THEN 'the dead letter of the result is still OPEN'
        WHEN a.kind = 'reconciliation_break' AND EXISTS (SELECT FROM fleet.breaks b
            WHERE b.id = a.id AND b.state IN ('OPEN', 'PROPOSED')) THEN 'the break is not resolved'
        WHEN a.kind = 'reconciliation_break' AND EXISTS (SELECT FROM fleet.register_runs r
            JOIN fleet.breaks b USING (rail, provider_account, environment, business_day)
            WHERE r.id = a.id AND b.state IN ('OPEN', 'PROPOSED')) THEN 'breaks of that day are not resolved'
        WHEN a.kind = 'end_doubted' AND EXISTS (SELECT FROM fleet.doubted_ends d
            WHERE d.intent_id = a.intent_id AND d.next_ask_at IS NOT NULL) THEN 'the provider is still being asked'
        WHEN a.kind LIKE 'suspense\\_%' AND EXISTS (
            SELECT FROM fleet.provider_payments p LEFT JOIN fleet.intents c ON c.id = p.consumed_by
            WHERE (p.id = a.intent_id OR p.intent_id = a.intent_id) AND p.state = 'SUSPENDED'
                AND a.detail = concat_ws(' ', p.rail, p.provider_account, p.transaction_id)
                AND {ITEM_STANDING} IN ('OPEN', 'IN_REVIEW'))
            THEN 'the money is still in suspense: nobody has decided whose it is'
        ELSE '' END AS stands
FROM fleet.alerts a
"""  # noqa: S608 - a constant
_AFTER: Final = "(a.raised_at, a.id) > (SELECT raised_at, id FROM fleet.alerts WHERE id = ${:d})"
_STATES: Final = {
    "WAITING": "a.closed_at IS NULL",
    "ALL": "true",
    "OPEN": "a.closed_at IS NULL AND a.proposed_by IS NULL",
    "PROPOSED": "a.closed_at IS NULL AND a.proposed_by IS NOT NULL",
    "CLOSED": "a.closed_at IS NOT NULL",
}


class AlertStore:
    """See `core.services.on_call.alerts.Alerts`."""

    async def page(
        self, uow: UnitOfWork, tenant_id: UUID | None, wanted: AlertFilter, after: UUID | None, limit: int
    ) -> list[AlertView]:
        """Return alerts, the oldest first; `after` is the last one of the page before."""
        texts = [_STATES[wanted.state]]
        arguments: list[Any] = []
        given = {
            "tenant_id": tenant_id,
            "severity": wanted.severity,
            "kind": wanted.kind,
            "intent_id": wanted.intent_id,
        }
        for name, value in given.items():
            if value is not None:
                arguments.append(value)
                texts.append(f"a.{name} = ${len(arguments)}")
        if after is not None:
            arguments.append(after)
            texts.append(_AFTER.format(len(arguments)))
        query = f"{_VIEW} WHERE {' AND '.join(texts)} ORDER BY a.raised_at, a.id LIMIT {limit:d}"
        return [AlertView(**dict(row)) for row in await uow.connection.fetch(query, *arguments)]

    async def find(
        self, uow: UnitOfWork, alert_id: UUID, tenant_id: UUID | None, *, lock: bool = False
    ) -> AlertView | None:
        """Return an alert, locked if asked; None where there is none of this tenant."""
        if lock:
            # In a statement of its own: what stands is read once nobody else is at it any more.
            await uow.connection.execute("SELECT FROM fleet.alerts WHERE id = $1 FOR UPDATE", alert_id)
        query = f"{_VIEW} WHERE a.id = $1 AND ($2::uuid IS NULL OR a.tenant_id = $2)"
        row = await uow.connection.fetchrow(query, alert_id, tenant_id)
        return None if row is None else AlertView(**dict(row))

    async def propose(self, uow: UnitOfWork, alert_id: UUID, actor: str, reason: str) -> None:
        """Note who wants to close it, and why."""
        await uow.connection.execute(
            "UPDATE fleet.alerts SET proposed_by = $2, proposed_at = now(), closed_because = $3 WHERE id = $1",
            alert_id,
            actor,
            reason,
        )

    async def close(self, uow: UnitOfWork, alert_id: UUID, actor: str, reason: str) -> None:
        """Close it in a person's name."""
        await uow.connection.execute(
            "UPDATE fleet.alerts SET closed_by = $2, closed_because = $3, closed_at = now() WHERE id = $1",
            alert_id,
            actor,
            reason,
        )

    async def reopen(self, uow: UnitOfWork, alert_id: UUID) -> None:
        """Take a proposal away."""
        await uow.connection.execute(
            "UPDATE fleet.alerts SET proposed_by = NULL, proposed_at = NULL, closed_because = '' WHERE id = $1",
            alert_id,
        )
