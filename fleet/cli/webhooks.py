"""`fleet webhooks`: where events are sent, what came of it, and sending again."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import typer
from pydantic import BaseModel, ValidationError

from fleet.cli.connection import with_client
from fleet.cli.moments import moment
from fleet.cli.output import CommandError, JsonFlag, invalid_field, print_fields, print_json, print_page, print_table
from schemas.events import EventType
from schemas.webhooks import DeliveryState, WebhookEndpointRequest, WebhookOrdering, WebhookSecret

app = typer.Typer(help="Webhooks: where events are sent, and what came of it.", no_args_is_help=True)


@app.command()
def create(
    url: str,
    type_: Annotated[
        list[EventType] | None, typer.Option("--type", help="An event type, such as settled; may repeat.")
    ] = None,
    ordering: Annotated[WebhookOrdering, typer.Option(help="What waits behind a failure.")] = WebhookOrdering.INTENT,
    as_json: JsonFlag = False,
) -> None:
    """Send events to an address from now on. The secret is shown this once."""
    try:
        asked = WebhookEndpointRequest(url=url, event_types=type_ or [], ordering=ordering)
    except ValidationError as error:
        raise invalid_field(error) from error
    _secret(with_client(lambda client: client.create_webhook_endpoint(asked)), as_json)


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """List endpoints, and how much waits or was given up."""
    found = with_client(lambda client: client.list_webhook_endpoints())
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    print_table(
        "webhook endpoints",
        ("id", "url", "types", "on", "pending", "dead"),
        [
            (each.id, each.url, ", ".join(each.event_types) or "all", each.enabled, each.pending_count, each.dead_count)
            for each in found.items
        ],
    )


@app.command()
def delete(endpoint_id: UUID, as_json: JsonFlag = False) -> None:
    """Take an endpoint away: what is due is not sent."""
    _show(with_client(lambda client: client.delete_webhook_endpoint(endpoint_id)), as_json)


@app.command()
def on(endpoint_id: UUID, as_json: JsonFlag = False) -> None:
    """Send again to an endpoint that was switched off: what waited goes first."""
    _show(with_client(lambda client: client.switch_webhook_endpoint(endpoint_id, enabled=True)), as_json)


@app.command()
def off(endpoint_id: UUID, as_json: JsonFlag = False) -> None:
    """Send nothing to an endpoint until it is switched on: what is due waits."""
    _show(with_client(lambda client: client.switch_webhook_endpoint(endpoint_id, enabled=False)), as_json)


@app.command()
def rotate(endpoint_id: UUID, as_json: JsonFlag = False) -> None:
    """Make a new secret; messages are signed with it and the one before until the next rotation."""
    _secret(with_client(lambda client: client.rotate_webhook_secret(endpoint_id)), as_json)


@app.command("test")
def try_(endpoint_id: UUID, as_json: JsonFlag = False) -> None:
    """Send a message of type `test`; `deliveries` shows what came of it."""
    _show(with_client(lambda client: client.test_webhook_endpoint(endpoint_id)), as_json)


@app.command()
def deliveries(
    endpoint_id: UUID, state: DeliveryState | None = None, cursor: str | None = None, as_json: JsonFlag = False
) -> None:
    """List what was sent, newest first, a page at a time."""
    page = with_client(
        lambda client: client.page_of_webhook_deliveries(endpoint_id, state=state, cursor=cursor),
    )
    columns = ("id", "type", "state", "attempts", "status", "error", "due")
    print_page(
        page, as_json, "deliveries", columns,
        lambda x: (x.id, x.type, x.state, x.attempts, x.status, x.error, x.due_at),
    )  # fmt: skip


@app.command()
def redrive(
    endpoint_id: UUID,
    since: Annotated[
        datetime | None, typer.Option(parser=moment, help="Replay everything from this moment on (UTC).")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this only what would happen is shown.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Send the dead deliveries again, or everything since a moment, under the ids that they had."""
    if not yes:
        found = with_client(lambda client: client.list_webhook_endpoints())
        endpoint = next((each for each in found.items if each.id == endpoint_id), None)
        if endpoint is None:
            raise CommandError("not_found", f"there is no endpoint {endpoint_id}: fleet webhooks list")
        what = (
            f"{endpoint.dead_count} dead deliveries" if since is None else f"everything since {since:%Y-%m-%d %H:%M:%S}"
        )
        document = {"endpoint_id": endpoint_id, "would_send": what, "dry_run": True}
        if as_json:
            print_json(document)
            return
        print_fields("redrive", document)
        typer.echo("nothing was changed: add --yes to send")
        return
    _show(with_client(lambda client: client.redrive_webhooks(endpoint_id, since=since)), as_json)


def _secret(made: WebhookSecret, as_json: bool) -> None:
    if as_json:
        print_json(made.model_dump(mode="json"))
        return
    print_fields("webhook endpoint", {"id": made.endpoint.id, "url": made.endpoint.url, "secret": made.secret})
    typer.echo("the secret is shown this once: keep it where the receiver verifies")


def _show(model: BaseModel, as_json: bool) -> None:
    document = model.model_dump(mode="json")
    if as_json:
        print_json(document)
    else:
        print_fields("webhook", document)
