"""Of several faults in what is sent, the first in docs/errors.md is answered: each pair of neighbours, over HTTP."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import orjson

from core.services.access.keys import LIMITS_SCOPE, REVIEW_SCOPE
from tests.integration.api.conftest import World, payout
from tests.support.signed import Signed

PAGE: Final = (Path(__file__).parents[3] / "docs" / "errors.md").read_text()
LISTED: Final = re.findall(r"^\| `(\w+)` \| \d+ \|", PAGE.split("## Other calls")[0], re.MULTILINE)


@dataclass
class Sent:
    """One request, to which faults are added."""

    client: Signed
    body: dict[str, Any]
    key: str = field(default_factory=lambda: uuid4().hex)
    nonce: str = field(default_factory=lambda: uuid4().hex)
    age_s: int = 0
    signed: bool = True
    secret: str | None = None
    media: str = "application/json"
    text: Callable[[bytes], bytes] = bytes
    path: str = "/v1/intents"

    async def code(self) -> str:
        """Send it and return the code that it is refused with."""
        raw = self.text(orjson.dumps(self.body))
        signer = self.client if self.secret is None else Signed(self.client.http, self.client.key_id, self.secret)
        headers = signer.headers("POST", self.path, raw, nonce=self.nonce, age_s=self.age_s)
        if not self.signed:
            del headers["Fleet-Signature"]
        headers |= {"Content-Type": self.media} | ({"Idempotency-Key": self.key} if self.key else {})
        answer = await self.client.http.post(self.path, content=raw, headers=headers)
        code: str = answer.json()["code"]
        return code


async def test_of_two_faults_in_what_is_sent_the_first_is_answered(world: World) -> None:
    wallet, foreign = await world.funded_wallet(1000), uuid4()
    of_users = await world.other(acts_for_users=True)
    elsewhere = await world.other(accounts=[foreign], acts_for_users=True)
    other_work = await world.other(operations=["EXCHANGE"], accounts=[foreign], acts_for_users=True)
    assert (await other_work.post("/v1/wallets", {}, nonce="burnt-nonce")).status_code == 403
    faults: dict[str, dict[str, Any]] = {
        "body_too_large": {"text": lambda raw: raw + b" " * 65_536},
        "unauthenticated": {"signed": False},
        "stale_timestamp": {"age_s": 301},
        "unauthenticated, by a wrong signature": {"secret": "wrong"},
        "replayed_nonce": {"nonce": "burnt-nonce"},
        "idempotency_key_missing": {"key": ""},
        "unsupported_media_type": {"media": "text/plain"},
        "malformed_json": {"text": lambda raw: raw[:-1]},
        "duplicate_field": {"text": lambda raw: raw[:-1] + b',"currency":"THB"}'},
        "invalid_request": {"body": payout(wallet, surprise=1)},
        "operation_not_permitted": {"client": other_work},
        "account_not_permitted": {"client": elsewhere},
        "on_behalf_of_missing": {"client": of_users},
    }
    order = list(faults)
    assert [name for name in order if "," not in name] == LISTED[: LISTED.index("idempotency_in_flight")]
    for place, (first, second) in enumerate(pairwise(order)):
        # What comes from the right of a pair stands beside all the faults after it, too.
        sent = Sent(world.api, payout(wallet))
        for name in reversed(order[place:]):
            for changed, value in faults[name].items():
                setattr(sent, changed, value)
        assert await sent.code() == first.partition(",")[0], (first, second)


async def test_a_key_that_was_used_is_looked_at_after_what_the_key_may_and_before_what_is_asked(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    confined = await world.other(accounts=[uuid4()])
    unknown = payout(wallet, currency="XXX")
    one, wrong = ({"idempotency_key": "twice", "intent": body} for body in (payout(wallet), unknown))
    # The first of a batch under a key is in flight while the second is looked at, whatever that one asks for.
    in_flight = (await world.api.post("/v1/intents:batch", {"items": [one, wrong]})).json()["results"]
    assert [in_flight[0]["status"], in_flight[1]["problem"]["code"]] == [201, "idempotency_in_flight"]
    refused = (await confined.post("/v1/intents:batch", {"items": [one, wrong]})).json()["results"]
    assert [each["problem"]["code"] for each in refused] == ["account_not_permitted"] * 2
    # Answered by now: another request under the key conflicts before its own faults are told.
    assert await Sent(world.api, unknown, key="twice").code() == "idempotency_conflict"
    assert await Sent(world.api, unknown).code() == "unknown_currency"
    after = LISTED[LISTED.index("account_not_permitted") :]
    assert after[2:5] == ["idempotency_in_flight", "idempotency_conflict", "unknown_currency"]


ANY: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("body_too_large", {"text": lambda raw: raw + b" " * 65_536}),
    ("unauthenticated", {"signed": False}),
    ("stale_timestamp", {"age_s": 301}),
    ("unauthenticated, by a wrong signature", {"secret": "wrong"}),
    ("replayed_nonce", {"nonce": "burnt-nonce"}),
)
"""What is said first of any call's request."""


def unread(field: str, value: bytes) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Return what is said of a body that cannot be read; `field` with this value is one that it has."""
    return (
        ("unsupported_media_type", {"media": "text/plain"}),
        ("malformed_json", {"text": lambda raw: raw[:-1]}),
        ("duplicate_field", {"text": lambda raw: raw[:-1] + b',"' + field.encode() + b'":' + value + b"}"}),
        ("invalid_request", {"body": {field: orjson.loads(value), "surprise": 1}}),
    )


async def in_this_order(sent: Callable[[], Sent], *faults: tuple[str, dict[str, Any]]) -> None:
    """Let the call answer the first of each pair of neighbours, beside all the faults after it."""
    first_client = next(changed["client"] for _, changed in faults if "client" in changed)
    assert (await first_client.post("/v1/wallets", {}, nonce="burnt-nonce")).is_error
    order = [*ANY, *faults]
    for place, (first, _) in enumerate(order):
        asked = sent()
        for _, changes in reversed(order[place:]):
            for changed, value in changes.items():
                setattr(asked, changed, value)
        assert await asked.code() == first.partition(",")[0], (first, order[place + 1 :][:1])


async def test_a_call_of_its_own_right_is_refused_before_its_body_is_read_and_a_foreign_wallet_before_it_is_looked_for(
    world: World,
) -> None:
    wallet, foreign = await world.funded_wallet(1), [uuid4()]
    desk = await world.other(operations=[LIMITS_SCOPE])
    no_right = {"operations": ["EXCHANGE"], "accounts": foreign}
    await in_this_order(
        lambda: Sent(desk, {"tier": "gold"}, path=f"/v1/wallets/{wallet}/tier"),
        ("on_behalf_of_missing", {"client": await world.other(acts_for_users=True, **no_right)}),
        ("operation_not_permitted", {"client": await world.other(**no_right)}),
        *unread("tier", b'"gold"'),
        ("not_found, for what is no id", {"path": "/v1/wallets/mine/tier"}),
        ("account_not_permitted", {"client": await world.other(operations=[LIMITS_SCOPE], accounts=foreign)}),
        ("not_found", {"path": f"/v1/wallets/{uuid4()}/tier"}),
    )


async def test_a_payment_is_looked_for_before_what_the_key_may_do_with_it_and_its_state_is_told_last(
    world: World,
) -> None:
    wallet, foreign = await world.funded_wallet(1000), [uuid4()]
    paid = (await world.api.post("/v1/intents", payout(wallet), key="a")).json()["id"]
    no_right = {"operations": ["EXCHANGE"], "accounts": foreign}
    await in_this_order(
        lambda: Sent(world.api, {"amount_minor": 100, "fee_minor": 0}, path=f"/v1/intents/{paid}/confirm"),
        ("on_behalf_of_missing", {"client": await world.other(acts_for_users=True, **no_right)}),
        *unread("amount_minor", b"100"),
        ("not_found", {"path": f"/v1/intents/{uuid4()}/confirm"}),
        ("not_found, for a wallet that is not covered", {"client": await world.other(**no_right)}),
        ("operation_not_permitted", {"client": await world.other(operations=["EXCHANGE"])}),
        ("wrong_state", {}),
    )


async def test_who_may_not_decide_is_told_so_before_what_was_decided(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    maker = await world.other(operations=["PAYOUT", REVIEW_SCOPE])
    reviewer = await world.other(operations=[REVIEW_SCOPE])
    held = (await maker.post("/v1/intents", payout(wallet, requires_monitoring=True), key="a")).json()["id"]
    path = f"/v1/intents/{held}/review"
    assert (await reviewer.post(path, {"decision": "APPROVE"})).status_code == 200
    await in_this_order(
        lambda: Sent(reviewer, {"decision": "REJECT", "reason": "seen"}, path=path),
        ("on_behalf_of_missing", {"client": await world.other(operations=["EXCHANGE"], acts_for_users=True)}),
        ("operation_not_permitted", {"client": await world.other(operations=["EXCHANGE"])}),
        *unread("decision", b'"REJECT"'),
        ("not_found", {"path": f"/v1/intents/{uuid4()}/review"}),
        ("review_own_intent", {"client": maker}),
        ("wrong_state", {}),
    )
