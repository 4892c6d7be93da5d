"""Alerts about payments: what waits for a person, and closing it with a reason."""

from core.console.visit import PAGE, Answer, Page, Redirect, Screen, Visit
from core.domain.roles import Role
from core.services.on_call.alerts import AlertFilter, approve_alert, close_alert, list_alerts, reopen_alert
from schemas.alerts import AlertClosing, AlertKind, AlertState, AlertsWanted


async def list_page(visit: Visit) -> Answer:
    """List alerts, the oldest first."""
    state, kind = visit.word("state", AlertsWanted) or AlertsWanted.WAITING, visit.word("kind", AlertKind)
    wanted = AlertFilter(state, kind=kind)
    cursor = visit.form.get("cursor")
    page = await list_alerts(visit.core.worker_ports, visit.caller, wanted, cursor=cursor, limit=PAGE)
    values = {"alerts": page.items, "following": page.next_cursor, "state": state, "states": list(AlertsWanted)}
    return Page("alerts.html", values | {"kind": kind, "kinds": list(AlertKind), "actor": visit.caller.context().actor})


async def close(visit: Visit) -> Answer:
    """Close one, or ask a second person to agree."""
    reason = visit.asked(AlertClosing).reason
    alert = await close_alert(visit.core.worker_ports, visit.caller, visit.path_id("alert_id"), reason)
    waits = alert.state is AlertState.PROPOSED
    return Redirect(f"/alerts?state={alert.state}", "alert_waits" if waits else "alert_closed")


async def approve(visit: Visit) -> Answer:
    """Agree to close what another person proposed to close."""
    reason = visit.asked(AlertClosing).reason
    await approve_alert(visit.core.worker_ports, visit.caller, visit.path_id("alert_id"), reason)
    return Redirect("/alerts?state=CLOSED", "alert_closed")


async def reopen(visit: Visit) -> Answer:
    """Leave open what somebody proposed to close."""
    reason = visit.asked(AlertClosing).reason
    await reopen_alert(visit.core.worker_ports, visit.caller, visit.path_id("alert_id"), reason)
    return Redirect("/alerts", "alert_open")


SCREENS = (
    Screen("GET", "/alerts", list_page, Role.VIEWER),
    Screen("POST", "/alerts/{alert_id}/close", close, Role.OPERATOR),
    Screen("POST", "/alerts/{alert_id}/approve", approve, Role.APPROVER),
    Screen("POST", "/alerts/{alert_id}/reopen", reopen, Role.OPERATOR),
)
