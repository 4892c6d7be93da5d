"""No body that names a field twice is taken at any address: two readers would take two values for it."""

import re
from uuid import uuid4

import httpx
import pytest

from core.api.serve import internal_app
from core.domain.context import Context
from core.services.access.keys import KNOWN_SCOPES
from core.services.access.people import SYSTEM_TENANT
from tests.integration.api.conftest import World, payout
from tests.integration.api.test_internal import NeverThrottled
from tests.support.signed import Signed

TWICE = b'{"reason": "first", "deeper": [{"amount_minor": 1, "\\u0061mount_minor": 1000}]}'


async def sent(client: Signed, method: str, path: str) -> httpx.Response:
    headers = client.headers(method, path, TWICE) | {"Content-Type": "application/json", "Idempotency-Key": uuid4().hex}
    return await client.http.request(method, path, content=TWICE, headers=headers)


async def test_every_address_that_takes_a_body_refuses_one_that_names_a_field_twice(world: World) -> None:
    transport = httpx.ASGITransport(internal_app(world.core, NeverThrottled()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://core") as http:
        key = await world.core.keys.create(Context(None, "test"), tenant_id=world.tenant_id, name="noop", rail="noop")
        root = await world.core.keys.create(
            Context(None, "test"), tenant_id=SYSTEM_TENANT, name="root", operations=sorted(KNOWN_SCOPES)
        )
        tenants = await world.other(operations=sorted(KNOWN_SCOPES))
        systems, walked = Signed(tenants.http, root.id, root.secret), 0
        before = await world.contents()
        for client in (tenants, Signed(http, key.id, key.secret)):
            paths = (await client.http.get("/openapi.json")).json()["paths"]
            for named, methods in paths.items():
                bodies = {
                    each: told["requestBody"]["content"] for each, told in methods.items() if "requestBody" in told
                }
                for method in (each.upper() for each, content in bodies.items() if "application/json" in content):
                    path = re.sub(r"{\w+}", lambda found: "noop" if found[0] == "{rail}" else str(uuid4()), named)
                    answer = await sent(client, method, path)
                    if answer.status_code == 403:
                        answer = await sent(systems, method, path)
                    problem = answer.json()
                    assert (answer.status_code, problem["code"]) == (400, "duplicate_field"), (method, path, problem)
                    assert problem["field"] == "amount_minor"
                    walked += 1
    assert walked > 40
    assert await world.contents() == before


@pytest.mark.parametrize(
    ("changed", "field", "remedy"),
    [
        ({"wallet_id": "my-wallet"}, "wallet_id", "a UUID, such as 0192f0c1-"),
        ({"wallet_id": 7}, "wallet_id", "a UUID, such as 0192f0c1-"),
        ({"currency": "thb"}, "currency", "the three capital letters of ISO 4217, such as THB"),
        ({"currency": None}, "currency", "has to be text"),
        ({"amount_minor": "100"}, "amount_minor", "write digits alone, without quotes"),
        ({"amount_minor": 0}, "amount_minor", "has to be more than 0"),
        ({"operation": "PAYOUTS"}, "operation", "'PAYOUT'"),
        ({"surprise": 1}, "surprise", "check how it is spelt"),
        ({"payee": {"type": "mobile"}}, "payee.value", "is missing"),
        ({"reference": "\n"}, "reference", "characters that it may not have"),
        ({"message": "x" * 141}, "message", "at most 140 characters"),
    ],
)
async def test_a_refusal_names_the_field_and_what_it_takes_in_words(
    world: World, changed: dict[str, object], field: str, remedy: str
) -> None:
    answer = (await world.api.post("/v1/intents", payout(str(uuid4()), **changed), key="k")).json()
    assert (answer["code"], answer["field"]) == ("invalid_request", field)
    assert answer["detail"].startswith(f"{field}: ")
    assert remedy in answer["detail"], answer
    assert "Input should" not in answer["detail"]
