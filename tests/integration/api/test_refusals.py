"""Requests that are refused whole, and batches of which parts are: a stable code each, and nothing changed."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from core.services.access.keys import KNOWN_SCOPES
from tests.integration.api.conftest import World, payout


def items(*bodies: Any) -> dict[str, Any]:
    """A batch of these bodies, each under a key of its own."""
    return {"items": [{"idempotency_key": f"i{n}", "intent": body} for n, body in enumerate(bodies)]}


async def test_a_batch_of_bad_items_answers_each_with_its_code_and_changes_nothing(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    dollars = (await world.api.post("/v1/wallets", {"owner": "anna", "currency": "USD"})).json()["id"]
    adjustment = {"operation": "MANUAL_ADJUSTMENT", "payee": {"type": "mobile", "value": "0812345678"}}
    cases: list[tuple[Any, str]] = [
        (payout(wallet, 0), "invalid_request"),
        (payout(wallet, -1), "invalid_request"),
        (payout(wallet, 1.0), "invalid_request"),
        (payout(wallet, 10**15 + 1), "invalid_request"),
        (payout(wallet, 10**15), "amount_out_of_bounds"),
        (payout(wallet, currency="thb"), "invalid_request"),
        (payout(wallet, currency="XXX"), "unknown_currency"),
        (payout(dollars), "currency_mismatch"),
        (payout(dollars, currency="USD"), "no_route"),
        (payout(wallet, surprise=1), "invalid_request"),
        (payout(wallet, payee=None), "payee_missing"),
        (payout(wallet, **adjustment), "payee_not_expected"),
        (payout(wallet, operation="TOPUP"), "payee_not_expected"),
        (payout(wallet, operation="TOPUP", payee=None), "no_route"),
        (payout(wallet, operation="DEPOSIT", payee=None, requires_monitoring=True), "no_route"),
        (payout(wallet, operation="EXCHANGE"), "counterparty_missing"),
        (payout(wallet, message="x" * 141), "invalid_request"),
        (payout(wallet, reference="\n"), "invalid_request"),
        (payout(wallet, message="U+0000: \0"), "invalid_request"),
        (None, "invalid_request"),
        ("text", "invalid_request"),
    ]
    before = await world.contents()
    answer = await world.api.post("/v1/intents:batch", items(*(body for body, _ in cases)))
    results = answer.json()["results"]
    assert answer.status_code == 200
    assert [result["index"] for result in results] == list(range(len(cases)))
    assert [result["problem"]["code"] for result in results] == [code for _, code in cases]
    assert await world.contents() == before


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed_json"),
        (b"[1, 2", "malformed_json"),
        (b"\xff\xfe{}", "malformed_json"),
        (b"[]", "invalid_request"),
        (b"null", "invalid_request"),
        (b'{"items": []}', "invalid_request"),
        (b'{"items": [1]}', "invalid_request"),
        (b'{"items": {}}', "invalid_request"),
        (orjson.dumps(items(*([{}] * 1001))), "invalid_request"),
        (b'{"items": [{}], "surprise": 1}', "invalid_request"),
        (b"[" * 60_000, "malformed_json"),
    ],
)
async def test_a_batch_that_cannot_be_read_is_refused_whole(world: World, body: bytes, code: str) -> None:
    before = await world.contents()
    answer = await world.api.post("/v1/intents:batch", body)
    assert (answer.json()["code"], answer.headers["content-type"]) == (code, "application/problem+json")
    assert answer.status_code == (400 if code == "malformed_json" else 422)
    assert await world.contents() == before


async def test_an_oversized_body_that_does_not_tell_its_length_is_not_read_on(world: World) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 10**8:
            sent += 10_000
            yield b" " * 10_000

    answer = await world.api.http.post("/v1/intents", content=endless())
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_other_media_types_missing_keys_and_wrong_methods_are_problems_too(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    before = await world.contents()
    raw = orjson.dumps(payout(wallet))
    for key in ("", "x" * 129, "a b", "é"):
        headers = world.api.headers("POST", "/v1/intents", raw) | {"Content-Type": "application/json"}
        sent = {name.encode(): text.encode("latin-1") for name, text in (headers | {"Idempotency-Key": key}).items()}
        refused = await world.api.http.post("/v1/intents", content=raw, headers=sent)
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_missing")
    headers = world.api.headers("POST", "/v1/intents", raw) | {"Idempotency-Key": "k", "Content-Type": "text/plain"}
    refused = await world.api.http.post("/v1/intents", content=raw, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")
    for method, path, status, code in (
        ("DELETE", "/v1/intents", 405, "method_not_allowed"),
        ("PUT", f"/v1/wallets/{wallet}", 405, "method_not_allowed"),
        ("GET", "/v2/intents", 404, "not_found"),
        ("GET", "/v1/intents/", 404, "not_found"),
        ("POST", "/internal/v1/permits", 404, "not_found"),
    ):
        answer = await world.api.http.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        assert "/openapi.json" in answer.json()["detail"], "a refusal names the remedy"
        assert ("allow" in answer.headers) == (status == 405)
    assert await world.contents() == before


async def test_no_refusal_repeats_the_payee(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    for payee in ({"type": "mobile", "value": "0898765432x"}, {"type": "0898765432", "value": "1"}):
        answer = await world.api.post("/v1/intents", payout(wallet, payee=payee), key="k")
        assert answer.status_code == 422
        assert "0898765432" not in answer.text


async def test_a_text_that_cannot_be_stored_is_refused_and_what_only_looks_like_it_is_kept(world: World) -> None:
    wallet, other = await world.funded_wallet(1000), await world.funded_wallet(1)
    body = {"operation": "INTERNAL_P2P", "wallet_id": wallet, "counterparty_wallet_id": other, "amount_minor": 1}
    before = await world.contents()
    refused = await world.api.post("/v1/intents", body | {"currency": "THB", "comment": "a\x00b"}, key="nul")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert await world.contents() == before
    kept = await world.api.post("/v1/intents", body | {"currency": "THB", "comment": r"a\u0000b"}, key="nul")
    assert kept.json()["comment"] == r"a\u0000b"


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_a_moment_that_utc_has_no_year_for_is_refused(world: World, moment: str) -> None:
    wallet = await world.funded_wallet(1)
    asked = [
        ("/v1/intents", "created_after"),
        ("/v1/intents", "created_before"),
        (f"/v1/wallets/{wallet}/balance", "at"),
        ("/v1/dead-letters", "received_after"),
        ("/v1/dead-letters", "received_before"),
    ]
    operator = await world.other(operations=sorted(KNOWN_SCOPES))
    for path, field in asked:
        answer = await operator.get(path, **{field: moment})
        assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "invalid_request", field)
    made = (await operator.post("/v1/webhook-endpoints", {"url": "https://example.com/x"})).json()["endpoint"]["id"]
    answer = await operator.post(f"/v1/webhook-endpoints/{made}/redrive", {"since": moment})
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "invalid_request", "since")


async def test_a_name_that_cannot_be_stored_names_nothing(world: World) -> None:
    refused = await world.api.get("/v1/intents", reference="\0")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert refused.json()["field"] == "reference"
    path = "/v1/owners/%00/wallets"
    nobody = await world.api.http.get(path, headers=world.api.headers("GET", path, b""))
    assert (nobody.status_code, nobody.json()["code"]) == (404, "not_found")


async def test_a_value_without_a_name_is_refused_in_words_whatever_it_is(world: World) -> None:
    for value in ("1", "\0"):
        refused = (await world.api.get("/v1/intents", **{"": value})).json()
        assert (refused["code"], refused["detail"].partition(":")[0]) == ("invalid_request", "body"), refused
