"""Signing in by a real provider on loopback, and its bearer tokens at the API; what it may not say is refused."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from starlette.types import ASGIApp

from core.api.bearers import PEOPLE_ROUTES
from core.api.public import public_app
from core.bootstrap import Core
from core.bus.issuer_http import HttpIssuer
from core.console.app import console_app
from core.domain.roles import Role
from core.services.access.identity import ClaimRules, roles_of
from core.services.on_call.run_redrives import run_redrives
from tests.integration.console.conftest import ConsoleWorld
from tests.integration.oncall.conftest import bury
from tests.integration.oncall.test_redrives import run
from tests.integration.permits.conftest import pay_job
from tests.support.browsing import Browser
from tests.support.commands import SETTINGS, fleet_command
from tests.support.issuer import AUDIENCE, CLIENT_ID, CLIENT_SECRET, LocalIssuer, local_issuer
from tests.support.live_api import serving
from tests.support.waiting import PATIENCE_S

_ROLES = "lookers=viewer,oncall=operator,leads=approver,heads=admin"


@dataclass
class Provided:
    """A console and an API that trust a provider."""

    console: ConsoleWorld
    issuer: LocalIssuer
    core: Core

    @cached_property
    def api(self) -> ASGIApp:
        """The application of the public listener, made once: its hundred routes take longer than a request."""
        return public_app(self.core)

    async def sign_in(self, *groups: str, **person: Any) -> Browser:
        """Sign somebody in by the provider; return their browser at the page that they came to."""
        self.issuer.person = {"sub": "1", "preferred_username": "Anna", "groups": list(groups)} | person
        browser = await self.console.stranger(mounts={self.issuer.url: httpx.AsyncHTTPTransport()})
        await browser.open("/sign-in/issuer")
        return browser

    async def call(self, method: str, path: str, token: str, **headers: str) -> httpx.Response:
        """Ask the API with a bearer token."""
        transport = httpx.ASGITransport(self.api, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as http:
            return await http.request(method, path, headers={"Authorization": f"Bearer {token}"} | headers)


@pytest.fixture
async def provided(console: ConsoleWorld) -> AsyncIterator[Provided]:
    """The console of the other tests, with a provider."""
    async with _provided(console) as made:
        yield made


@asynccontextmanager
async def _provided(console: ConsoleWorld) -> AsyncIterator[Provided]:
    async with local_issuer() as issuer:
        http_issuer = HttpIssuer(issuer.url, CLIENT_ID, CLIENT_SECRET, api_audience=AUDIENCE)
        rules = ClaimRules("preferred_username", "groups", roles_of(_ROLES))
        core = replace(console.world.core, issuer=http_issuer, claims=rules)
        console.app = console_app(core)
        yield Provided(console, issuer, core)


async def test_who_the_provider_vouches_for_is_signed_in_with_the_highest_role_of_their_groups(
    provided: Provided,
) -> None:
    browser = await provided.sign_in("lookers", "oncall", "gardeners")
    assert browser.page.url.path == "/"
    assert "anna (operator)" in browser.text
    assert len(provided.issuer.redeemed) == 1
    again = await provided.sign_in("lookers")
    assert "anna (viewer)" in again.text
    assert (await browser.open("/redrives/new", rail="x")).status_code == 403
    assert await provided.console.world.admin.fetchval("SELECT count(*) FROM fleet.people") == 1


async def test_who_has_no_role_or_was_revoked_here_or_has_a_local_persons_name_stays_out(provided: Provided) -> None:
    nobody = await provided.sign_in("gardeners")
    assert (nobody.page.status_code, "role_missing" in nobody.page.text) == (403, True)
    await provided.sign_in("heads")
    await provided.console.world.core.people.revoke("test", "anna")
    revoked = await provided.sign_in("heads")
    assert (revoked.page.status_code, "revoked" in revoked.page.text) == (401, True)
    await provided.console.person(Role.VIEWER, "boris")
    namesake = await provided.sign_in("heads", sub="2", preferred_username="boris")
    assert namesake.page.status_code == 409


async def test_a_sign_in_that_another_browser_began_is_refused(provided: Provided) -> None:
    browser = await provided.sign_in("heads")
    redirect = await browser.http.get("/sign-in/issuer")
    back = (await browser.http.get(redirect.headers["location"])).headers["location"]
    stranger = await provided.console.stranger()
    assert (await stranger.open(back)).status_code == 401
    assert (await stranger.open("/")).url.path == "/sign-in"
    # Nor does the right browser with a state of somebody else's.
    await browser.http.get("/sign-in/issuer")
    assert (await browser.open(back)).status_code == 401


async def test_a_code_is_worth_one_sign_in_of_the_browser_that_has_the_verifier(provided: Provided) -> None:
    browser = await provided.sign_in("heads")
    redirect = await browser.http.get("/sign-in/issuer")
    (code_of_ours,) = provided.issuer.redeemed
    state = httpx.URL(redirect.headers["location"]).params["state"]
    # A code that was redeemed, then one that was given for another verifier.
    assert (await browser.open("/sign-in/return", code=code_of_ours, state=state)).status_code == 401
    other = await (await provided.console.stranger(mounts={provided.issuer.url: httpx.AsyncHTTPTransport()})).http.get(
        "/sign-in/issuer"
    )
    async with httpx.AsyncClient() as http:
        stolen = httpx.URL((await http.get(other.headers["location"])).headers["location"]).params["code"]
    redirect = await browser.http.get("/sign-in/issuer")
    state = httpx.URL(redirect.headers["location"]).params["state"]
    assert (await browser.open("/sign-in/return", code=stolen, state=state)).status_code == 401


@pytest.mark.parametrize(
    "changed",
    [{"nonce": "another"}, {"nonce": None}, {"aud": "another"}, {"iss": "http://evil.test"}, {"exp": 1}, {"sub": None}],
    ids="-".join,
)
async def test_an_id_token_that_says_otherwise_signs_nobody_in(provided: Provided, changed: dict[str, Any]) -> None:
    provided.issuer.changed = changed
    browser = await provided.sign_in("heads")
    assert browser.page.status_code == 401
    assert await provided.console.world.admin.fetchval("SELECT count(*) FROM fleet.people") == 0


async def test_a_key_that_the_provider_does_not_publish_signs_nobody_in_and_a_new_one_that_it_does_does(
    provided: Provided,
) -> None:
    provided.issuer.signs_with = RSAKey.generate_key(2048, {"kid": "first"})
    assert (await provided.sign_in("heads")).page.status_code == 401
    provided.issuer.signs_with = None
    provided.issuer.rotate()
    issuer = provided.core.issuer
    assert isinstance(issuer, HttpIssuer)
    issuer._read_at_s -= 60
    assert (await provided.sign_in("heads")).page.status_code == 200


async def test_a_bearer_token_opens_the_routes_for_people_as_far_as_the_role_goes(provided: Provided) -> None:
    groups = dict(zip(Role, ("lookers", "oncall", "leads", "heads"), strict=True))
    some_id = "00000000-0000-7000-8000-000000000000"
    for (method, path), least in PEOPLE_ROUTES.items():
        address = "/".join(some_id if part.startswith("{") else part for part in path.split("/"))
        for place, (role, group) in enumerate(groups.items()):
            person = {"sub": str(place), "preferred_username": f"p{place}", "groups": [group]}
            answer = await provided.call(method, address, provided.issuer.token(**person))
            code = None if answer.is_success else answer.json().get("code")
            assert (code == "role_missing") == (not role.covers(least)), (method, path, role, answer.text)
            assert code not in ("unauthenticated", "operation_not_permitted", "internal"), (method, path, role)


async def test_every_other_route_refuses_people_of_every_role(provided: Provided) -> None:
    described = (await provided.call("GET", "/openapi.json", "nobody's")).json()["paths"]
    served = {(method.upper(), path) for path, methods in described.items() for method in methods}
    assert PEOPLE_ROUTES.keys() - served == set()
    assert {("POST", "/v1/intents"), ("POST", "/v1/wallets"), ("POST", "/v1/tenants")} < served - PEOPLE_ROUTES.keys()
    for place, group in enumerate(("lookers", "oncall", "leads", "heads")):
        token = provided.issuer.token(sub=str(place), preferred_username=f"p{place}", groups=[group])
        for method, path in sorted(served - PEOPLE_ROUTES.keys()):
            answer = await provided.call(method, re.sub(r"{\w+}", str(uuid4()), path), token)
            assert answer.json()["code"] == "operation_not_permitted", (method, path, group, answer.text)


async def test_a_bearer_token_of_another_audience_key_or_algorithm_is_nobodys(provided: Provided) -> None:
    person = {"groups": ["heads"]}
    claims = {"iss": provided.issuer.url, "aud": AUDIENCE, "exp": 4_000_000_000, "sub": "1"} | person
    shared = OctKey.import_key(CLIENT_SECRET * 2)
    bad = [
        provided.issuer.token(aud="console", **person),
        provided.issuer.token(exp=1, **person),
        provided.issuer.token(nonce="of a sign-in", **person),
        jwt.encode({"alg": "HS256"}, claims, shared),
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.",
        "nonsense",
    ]
    for token in bad:
        answer = await provided.call("GET", "/v1/dead-letters", token)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), token


async def test_one_of_the_systems_people_reads_a_tenants_payments_by_naming_it(provided: Provided) -> None:
    world = provided.console.world
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    token = provided.issuer.token(groups=["lookers"])
    there = await provided.call("GET", f"/v1/intents/{intent}", token, **{"Fleet-Tenant": str(world.caller.tenant_id)})
    assert there.json()["id"] == str(intent)
    assert (await provided.call("GET", f"/v1/intents/{intent}", token)).status_code == 404


async def test_the_stream_of_a_person_who_is_revoked_ends_with_the_next_sign_of_life(provided: Provided) -> None:
    world = provided.console.world
    intent = await world.pay(await world.wallet(1000))
    hub = provided.core.events.hub
    hub.pace = replace(hub.pace, keep_alive_s=0.2)
    token = provided.issuer.token(preferred_username="olaf", groups=["lookers"])
    headers = {"Authorization": f"Bearer {token}", "Fleet-Tenant": str(world.caller.tenant_id)}
    headers["Accept"] = "text/event-stream"
    told: list[str] = []
    async with serving(provided.core) as url, httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as http:
        path = f"/v1/intents/{intent}/events"
        async with asyncio.timeout(PATIENCE_S), http.stream("GET", path, headers=headers) as answer:
            async for line in answer.aiter_lines():
                told.append(line)
                if line == ": still here" and told.count(line) == 3:
                    await provided.core.people.revoke("person:petra", "olaf")
        assert "event: accepted" in told
        again = await http.get(path, headers=headers)
        assert (again.status_code, again.json()["code"]) == (401, "sign_in_refused")


async def test_the_command_line_works_with_a_persons_token_instead_of_a_key(
    provided: Provided, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    fleet = fleet_command(capsys, monkeypatch)
    async with serving(provided.core) as url:
        monkeypatch.setenv("FLEET_URL", url)
        monkeypatch.setenv("FLEET_TOKEN", provided.issuer.token(groups=["lookers"]))
        assert (await fleet("redrives", "list", "--json")).document["items"] == []
        asked = ("dlq", "redrive", "--rail", "testrail", "--reason", "it is back", "--incident", "INC-1")
        (await fleet(*asked)).must_fail(3, "role_missing")
        monkeypatch.setenv("FLEET_TOKEN", provided.issuer.token(groups=["oncall"]))
        assert (await fleet(*asked, "--json")).document["total"] == 0


async def test_letters_are_redriven_and_discarded_by_commands_with_the_tokens_of_two_people(
    provided: Provided, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = provided.console.world
    wallet = await world.wallet(1000)
    intent, rubbish = await world.pay(wallet), await world.pay(wallet)
    await bury(world, intent)
    await bury(world, rubbish, error_class="rubbish")
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLEET_STACK", str(tmp_path / "absent.json"))
    fleet = fleet_command(capsys, monkeypatch)
    why = ("--reason", "it is back", "--incident", "INC-1", "--yes", "--json")
    anna = provided.issuer.token(groups=["oncall"])
    ben = provided.issuer.token(groups=["leads"], sub="2", preferred_username="ben")
    async with serving(provided.core) as url:
        monkeypatch.setenv("FLEET_URL", url)
        monkeypatch.setenv("FLEET_TOKEN", anna)
        redriven = (await fleet("dlq", "redrive", "--fingerprint", "poison-print", *why)).document["id"]
        await run_redrives(world.core.worker_ports, world.uow)
        await world.sent(intent)
        await world.tell(pay_job(intent), "SUCCEEDED", provider_tx_id="TX1")
        await run(world)
        assert (await fleet("redrives", "show", redriven, "--json")).document["state"] == "DONE"
        discarded = (await fleet("dlq", "discard", "--fingerprint", "rubbish-print", *why)).document["id"]
        (await fleet("redrives", "approve", discarded, "--yes")).must_fail(3, "role_missing")
        monkeypatch.setenv("FLEET_TOKEN", ben)
        assert (await fleet("redrives", "approve", discarded, "--yes")).code == 0
        await run(world)
        assert (await fleet("redrives", "show", discarded, "--json")).document["state"] == "DONE"
    states = await world.admin.fetch("SELECT fingerprint, state FROM fleet.dead_letters ORDER BY fingerprint")
    assert [tuple(row) for row in states] == [("poison-print", "REDRIVEN"), ("rubbish-print", "CLOSED")]
    acts = await world.admin.fetch(
        "SELECT action, actor, subject FROM fleet.audit_entries WHERE subject LIKE 'redrive:%'"
    )
    told = {(row["action"], row["actor"], row["subject"].removeprefix("redrive:")) for row in acts}
    for act in (
        ("redrive_asked", "person:anna", redriven),
        ("redrive_asked", "person:anna", discarded),
        ("redrive_approved", "person:ben", discarded),
    ):
        assert act in told, told


async def test_letters_and_the_journal_are_read_and_proven_by_commands_with_a_persons_token(
    provided: Provided, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = provided.console.world
    intent = await world.pay(await world.wallet(1000))
    (letter,) = await bury(world, intent, message="gateway rejected the envelope")
    looked = "SELECT fleet.audit_append($1, '{anna}', '{looked}', '{x}', '{\"{}\"}')"
    await world.admin.execute(looked, [uuid4()])
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLEET_STACK", str(tmp_path / "absent.json"))
    fleet = fleet_command(capsys, monkeypatch)
    async with serving(provided.core) as url:
        monkeypatch.setenv("FLEET_URL", url)
        monkeypatch.setenv("FLEET_TOKEN", provided.issuer.token(groups=["lookers"]))
        found = (await fleet("dlq", "list", "--text", "rejected envelope", "--json")).document
        assert ([x["id"] for x in found["items"]], found["next_cursor"]) == ([str(letter)], None)
        assert (await fleet("dlq", "list", "--tenant", str(uuid4()), "--json")).document["items"] == []
        assert "poison-print" in (await fleet("dlq", "groups")).out
        shown = (await fleet("dlq", "show", str(letter), "--json")).document
        assert (shown["class"], shown["verdict"], shown["intent_id"]) == ("poison", "SAFE", str(intent))
        assert "gateway rejected" in (await fleet("dlq", "explain", str(letter))).out
        proof = (await fleet("audit", "verify", "--json")).document
        assert (proof["holds"], proof["tenants"]) == (True, len(proof["ends"]))
        end = proof["ends"][0]
        assert (await fleet("audit", "verify", "--expect", end)).code == 0
        forged = await fleet("audit", "verify", "--expect", end[:-1] + ("0" if end[-1] != "0" else "1"))
        assert forged.code == 1
        assert "is not the one that was noted" in forged.out
        (await fleet("audit", "verify", "--expect", "nonsense")).must_fail(3, "anchor_malformed")
        first = (await fleet("audit", "list", "--limit", "1", "--json")).document
        rest = (await fleet("audit", "list", "--cursor", first["next_cursor"], "--json")).document
        assert len(first["items"]) + len(rest["items"]) == proof["entries"]
        out = tmp_path / "audit.jsonl"
        assert (await fleet("audit", "export", "--out", str(out))).code == 0
        lines = [orjson.loads(line) for line in out.read_bytes().splitlines()]
        assert len(lines) == proof["entries"]
        assert f"{lines[-1]['tenant_id']}:{lines[-1]['seq']}:{lines[-1]['hash']}" in proof["ends"]
        (await fleet("audit", "export", "--out", str(tmp_path))).must_fail(2, "file_unwritable")
        monkeypatch.setenv("FLEET_TOKEN", provided.issuer.token(groups=["strangers"]))
        for command in ("dlq list", "dlq groups", f"dlq show {letter}", f"dlq explain {letter}", "audit list",
                        "audit verify", "audit export"):  # fmt: skip
            (await fleet(*command.split())).must_fail(3, "role_missing")
