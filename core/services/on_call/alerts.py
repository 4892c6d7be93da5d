"""Alerts about payments: listed, and closed by people. One that pages is about money, and takes two of them."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from core.domain.context import Context
from core.services.access.keys import DEAD_LETTERS_SCOPE, REDRIVE_APPROVAL_SCOPE, Caller
from core.services.cursors import decode_cursor, encode_cursor, id_of
from core.services.on_call.audit import Act, Journal
from core.services.on_call.redrives import background_context, reach
from core.services.problems import Refusal
from schemas.alerts import AlertList, AlertState, AlertsWanted, AlertView


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Which alerts are meant; None takes any."""

    state: AlertsWanted = AlertsWanted.WAITING
    severity: str | None = None
    kind: str | None = None
    intent_id: UUID | None = None


class Alerts(Protocol):
    """What people on call need of the alerts' store."""

    async def page(
        self, uow: Any, tenant_id: UUID | None, wanted: AlertFilter, after: UUID | None, limit: int
    ) -> list[AlertView]: ...
    async def find(
        self, uow: Any, alert_id: UUID, tenant_id: UUID | None, *, lock: bool = False
    ) -> AlertView | None: ...
    async def propose(self, uow: Any, alert_id: UUID, actor: str, reason: str) -> None: ...
    async def close(self, uow: Any, alert_id: UUID, actor: str, reason: str) -> None: ...
    async def reopen(self, uow: Any, alert_id: UUID) -> None: ...


class AlertPorts(Protocol):
    """What closing works with, under the worker role; each use case names the tenant that it may reach."""

    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...
    @property
    def alerts(self) -> Alerts: ...
    @property
    def journal(self) -> Journal: ...


async def list_alerts(
    ports: AlertPorts, caller: Caller, wanted: AlertFilter, *, cursor: str | None, limit: int
) -> AlertList:
    """Return a page of alerts, the oldest first. Raises Refusal: operation_not_permitted, cursor_malformed."""
    caller.require_operation(DEAD_LETTERS_SCOPE)
    after = None if cursor is None else id_of(decode_cursor(cursor, 1)[0])
    async with ports.unit_of_work(background_context(caller)) as uow:
        found = await ports.alerts.page(uow, reach(caller), wanted, after, limit + 1)
    items = found[:limit]
    following = encode_cursor(str(items[-1].id)) if len(found) > limit else None
    return AlertList(items=items, next_cursor=following)


async def close_alert(ports: AlertPorts, caller: Caller, alert_id: UUID, reason: str) -> AlertView:
    """Close an alert, or of one that pages ask a second person to; the same person's repeat changes nothing.

    Raises Refusal: operation_not_permitted, not_found, wrong_alert_state, alert_stands.
    """
    caller.require_operation(DEAD_LETTERS_SCOPE)
    actor = caller.context().actor
    async with ports.unit_of_work(background_context(caller)) as uow:
        row = await _found(uow, ports, caller, alert_id, lock=True)
        if actor in (row.proposed_by, row.closed_by):
            return row
        _require_over(row, AlertState.OPEN)
        if row.severity == "page":
            await ports.alerts.propose(uow, row.id, actor, reason)
            await _note(uow, ports, row, caller, "alert_close_proposed", {"reason": reason})
        else:
            await ports.alerts.close(uow, row.id, actor, reason)
            await _note(uow, ports, row, caller, "alert_closed", {"reason": reason})
        return await _found(uow, ports, caller, row.id)


async def approve_alert(ports: AlertPorts, caller: Caller, alert_id: UUID, reason: str) -> AlertView:
    """Agree to close what another person proposed to close; agreeing again changes nothing.

    Raises Refusal: operation_not_permitted, not_found, wrong_alert_state, redrive_own, alert_stands.
    """
    caller.require_operation(REDRIVE_APPROVAL_SCOPE)
    actor = caller.context().actor
    async with ports.unit_of_work(background_context(caller)) as uow:
        row = await _found(uow, ports, caller, alert_id, lock=True)
        if row.closed_by == actor:
            return row
        _require_over(row, AlertState.PROPOSED)
        if row.proposed_by == actor:
            raise Refusal("redrive_own", "who proposed to close an alert may not agree to it")
        told = {"reason": reason, "proposed_by": row.proposed_by, "proposed_because": row.closed_because}
        await ports.alerts.close(uow, row.id, actor, row.closed_because)
        await _note(uow, ports, row, caller, "alert_closed", told)
        return await _found(uow, ports, caller, row.id)


async def reopen_alert(ports: AlertPorts, caller: Caller, alert_id: UUID, reason: str) -> AlertView:
    """Leave an alert open that somebody proposed to close; who proposed it may take that back.

    Raises Refusal: operation_not_permitted, not_found, wrong_alert_state.
    """
    caller.require_operation(DEAD_LETTERS_SCOPE)
    actor = caller.context().actor
    async with ports.unit_of_work(background_context(caller)) as uow:
        row = await _found(uow, ports, caller, alert_id, lock=True)
        if row.proposed_by != actor:
            caller.require_operation(REDRIVE_APPROVAL_SCOPE)
        _require_state(row, AlertState.PROPOSED)
        await ports.alerts.reopen(uow, row.id)
        await _note(uow, ports, row, caller, "alert_close_refused", {"reason": reason, "proposed_by": row.proposed_by})
        return await _found(uow, ports, caller, row.id)


async def _found(uow: Any, ports: AlertPorts, caller: Caller, alert_id: UUID, *, lock: bool = False) -> AlertView:
    row = await ports.alerts.find(uow, alert_id, reach(caller), lock=lock)
    if row is None:
        raise Refusal("not_found", "there is no such alert")
    return row


def _require_state(row: AlertView, state: AlertState) -> None:
    if row.state is not state:
        raise Refusal("wrong_alert_state", f"the alert is {row.state}: this needs {state}")


def _require_over(row: AlertView, state: AlertState) -> None:
    _require_state(row, state)
    if row.stands:
        raise Refusal("alert_stands", f"{row.stands}: put that right, then close the alert")


async def _note(
    uow: Any, ports: AlertPorts, row: AlertView, caller: Caller, action: str, data: Mapping[str, Any]
) -> None:
    subject = f"alert:{row.id}" if row.intent_id is None else f"intent:{row.intent_id}"
    told = {"alert": row.id, "kind": row.kind, "detail": row.detail} | dict(data)
    await ports.journal.append(uow, [Act(row.tenant_id, caller.context().actor, action, subject, told)])
