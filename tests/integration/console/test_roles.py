"""Every address of the console by every role: generated from the routes that are really served."""

import re
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from core.console.app import roles_by_route
from core.console.pages import SCREENS
from core.domain.roles import Role
from tests.integration.console.conftest import ConsoleWorld
from tests.integration.console.test_pages import looking
from tests.integration.oncall.conftest import bury
from tests.integration.permits.conftest import RAIL
from tests.integration.permits.test_collections import opened
from tests.integration.permits.test_suspense import parked

ELSEWHERE = ("/streams", "/reconciliation/")
"""Pages that need a server of streams, or a register: their rows are those of test_streams and test_reconciliation."""
_FILLED = {"name": "console.css", "rail": "testrail"}


def _address(path: str) -> str:
    return re.sub(r"{(\w+)}", lambda part: _FILLED.get(part[1], str(uuid4())), path)


async def _asked(http: httpx.AsyncClient, method: str, address: str, token: str) -> httpx.Response:
    if method == "GET":
        return await http.get(address)
    return await http.post(address, data={"form_token": token})


async def test_every_address_answers_to_its_role_and_to_no_lesser_one(console: ConsoleWorld) -> None:
    table = roles_by_route(console.app)
    assert len(table) == len(SCREENS) > 30
    stranger = await console.stranger()
    people = {role: await console.person(role) for role in Role}
    tokens = {}
    for role, browser in people.items():
        await browser.open("/")
        tokens[role] = browser.form("/sign-out").fields["form_token"]  # one for as long as they are signed in
    for (method, path), least in table.items():
        if path in ("/sign-out", "/sign-in", "/sign-in/issuer", "/sign-in/return"):
            continue  # what they do is told by tests of their own
        for role, browser in people.items():
            answer = await _asked(browser.http, method, _address(path), tokens[role])
            refused = answer.status_code == 403 and "role_missing" in answer.text
            assert refused == (least is not None and not role.covers(least)), (method, path, role, answer.status_code)
            assert answer.status_code < 500, (method, path, role)
        if least is not None:
            answer = await _asked(stranger.http, method, _address(path), "")
            assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in"), (method, path)


async def test_every_page_opens_on_a_real_row_for_whoever_may_see_it(console: ConsoleWorld) -> None:
    world = console.world
    await opened(world)
    item = await parked(world)
    payments = [await world.pay(await world.wallet(10_000)) for _ in range(2)]
    letters = await bury(world, *payments)
    await world.admin.execute(
        "INSERT INTO fleet.breaks (id, tenant_id, kind, detail) VALUES ($1, $1, 'projection_drift', 'planted')",
        world.caller.tenant_id,
    )
    people = {role: await looking(console, role) for role in Role}
    olga = people[Role.OPERATOR]
    asked = {"error_class": "poison", "action": "DISCARD", "reason": "rubbish", "incident": "INC-1"}
    await olga.open("/redrives/new", **asked)
    await olga.send("/redrives")
    rows = {
        "intent_id": payments[0], "letter_id": letters[0], "redrive_id": olga.page.url.path.rpartition("/")[2],
        "break_id": world.caller.tenant_id, "item_id": item, "rail": RAIL, "name": "console.css",
    }  # fmt: skip
    seen = set()
    for (method, path), least in roles_by_route(console.app).items():
        if method != "GET" or path.startswith(("/sign-in", *ELSEWHERE)):
            continue
        address = re.sub(r"{(\w+)}", lambda part: str(rows[part[1]]), path)
        for role, browser in people.items():
            answer = await browser.http.get(address, params=asked if path == "/redrives/new" else {})
            allowed = least is None or role.covers(least)
            assert answer.status_code == (200 if allowed else 403), (path, role, answer.text[-300:])
        seen.add(path)
    assert {"/intents/{intent_id}", "/redrives/{redrive_id}", "/suspense/{item_id}", "/breaks/{break_id}"} < seen


async def test_what_changes_something_is_asked_for_by_post_and_takes_more_than_a_viewer(console: ConsoleWorld) -> None:
    harmless = {"/sign-in", "/sign-out", "/tenant"}
    for (method, path), least in roles_by_route(console.app).items():
        assert method in ("GET", "POST")
        if method == "POST" and path not in harmless:
            assert least is not None, path
            assert least is not Role.VIEWER, path


async def test_no_get_of_anybody_writes_anything(console: ConsoleWorld) -> None:
    admin = await console.person(Role.ADMIN)
    counted = (
        "SELECT (SELECT count(*) FROM fleet.audit_entries) + (SELECT count(*) FROM fleet.redrives)"
        " + (SELECT count(*) FROM fleet.people) + (SELECT count(*) FROM fleet.rail_pauses)"
        " + (SELECT count(*) FROM fleet.intent_events) + (SELECT count(*) FROM fleet.breaks)"
    )
    before = await console.world.admin.fetchval(counted)
    for method, path in roles_by_route(console.app):
        if method == "GET" and not path.startswith("/sign-in"):
            await admin.http.get(_address(path))
    assert await console.world.admin.fetchval(counted) == before


def test_a_route_that_has_not_said_its_role_is_refused() -> None:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_api_route("/forgotten", lambda: None)
    with pytest.raises(LookupError):
        roles_by_route(app)
