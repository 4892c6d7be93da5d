"""`fleet alerts`: what waits for a person about payments, and closing it with a reason."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

import typer
from pydantic import ValidationError

from fleet.cli.connection import with_operator
from fleet.cli.dry_run import Yes, show_dry_run
from fleet.cli.output import JsonFlag, invalid_field, print_fields, print_json, print_page
from schemas.alerts import AlertClosing, AlertKind, AlertList, AlertSeverity, AlertState, AlertsWanted, AlertView

app = typer.Typer(help="Alerts about payments: listed, and closed with a reason.", no_args_is_help=True)

Alert = Annotated[UUID, typer.Argument(help="The alert.")]
Reason = Annotated[str, typer.Option(help="Why; kept with the alert and in the audit journal.")]


@app.command("list")
def list_(
    state: Annotated[AlertsWanted, typer.Option(help="WAITING are open and proposed ones.")] = AlertsWanted.WAITING,
    severity: Annotated[AlertSeverity | None, typer.Option(help="page, which is about money, or ticket.")] = None,
    kind: Annotated[AlertKind | None, typer.Option(help="Only this kind, such as success_after_void.")] = None,
    intent: Annotated[UUID | None, typer.Option(help="Only this payment's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many a page.")] = 100,
    cursor: Annotated[str | None, typer.Option(help="Where the page before ended.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List alerts about payments, the oldest first, and whether what they tell of still stands."""
    given = {"severity": severity, "kind": kind, "intent_id": intent, "limit": limit, "cursor": cursor}
    query = {name: str(value) for name, value in given.items() if value is not None} | {"state": state.value}
    page = with_operator(lambda client: client.call("GET", "/v1/alerts", AlertList, query=query))
    columns = ("id", "severity", "kind", "payment", "detail", "age", "state", "proposed by", "stands because")
    print_page(
        page, as_json, "alerts", columns,
        lambda x: (
            x.id, x.severity, x.kind, x.intent_id, x.detail, timedelta(seconds=x.age_s), x.state, x.proposed_by,
            x.stands,
        ),
    )  # fmt: skip


@app.command()
def close(alert_id: Alert, *, reason: Reason, yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Close an alert; one that pages is about money, and is closed once a second person agrees."""
    _change("close", "close the alert", alert_id, reason, yes=yes, as_json=as_json)


@app.command()
def approve(alert_id: Alert, *, reason: Reason, yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Agree to close what another person proposed to close."""
    _change("approve", "agree to close the alert", alert_id, reason, yes=yes, as_json=as_json)


@app.command()
def reopen(alert_id: Alert, *, reason: Reason, as_json: JsonFlag = False) -> None:
    """Leave open what you, or with approval another person, proposed to close."""
    _change("reopen", "leave the alert open", alert_id, reason, yes=True, as_json=as_json)


def _change(step: str, told: str, alert_id: UUID, reason: str, *, yes: bool, as_json: bool) -> None:
    try:
        body = AlertClosing(reason=reason)
    except ValidationError as error:
        raise invalid_field(error) from error
    if not yes:
        show_dry_run(told, {"id": alert_id, "reason": reason}, as_json)
        return
    path = f"/v1/alerts/{alert_id}/{step}"
    view = with_operator(lambda client: client.call("POST", path, AlertView, body=body))
    if as_json:
        print_json(view.model_dump(mode="json"))
    else:
        print_fields("alert", view.model_dump())
    if view.state is AlertState.PROPOSED and not as_json:
        typer.echo(f"it waits for another person: fleet alerts approve {view.id} --reason R --yes")
