"""The receiver of callbacks over real sockets: what is forged, stale, replayed or a stranger's has no effect."""

import gzip
import hashlib
import hmac
import ipaddress
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
from pydantic import ValidationError

from adapters.runtime.callbacks import (
    CallbackReceiver,
    CallbackRefused,
    CallbackSettings,
    Network,
    address_of,
    check_hmac,
)
from adapters.runtime.core_client import CoreRefusedError, CoreUnavailableError
from adapters.runtime.port import Callback, Verified
from adapters.runtime.settings import RuntimeSettings
from fleet.stack.processes import free_port
from schemas.collections import PaymentFate, ProviderPayment, ProviderPaymentAnswers, ProviderPaymentBatch
from schemas.rails import EvidenceItem

SECRET = "callback-secret"
LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"),)
PARTNER: tuple[Network, ...] = (ipaddress.ip_network("203.0.113.0/24"),)


@dataclass
class Rail:
    """A rail whose provider signs the raw body, and says when inside it."""

    async def verify(self, callback: Callback) -> Verified:
        check_hmac(SECRET, callback.body, callback.headers.get("x-signature", ""))
        try:
            told = orjson.loads(callback.body)
            fact = ProviderPayment.model_validate(told["fact"])
        except (orjson.JSONDecodeError, KeyError, ValidationError) as error:
            raise CallbackRefused("malformed", 422) from error
        return Verified([fact], told.get("event"), told["at"])


@dataclass
class Core:
    """What the receiver brought, in the order that it came."""

    fails: Exception | None = None
    order: list[str] = field(default_factory=list)
    batches: list[ProviderPaymentBatch] = field(default_factory=list)

    async def post_evidence(self, items: Sequence[EvidenceItem]) -> None:
        if self.fails is not None:
            raise self.fails
        self.order += [f"evidence {item.kind}" for item in items]

    async def post_payments(self, batch: ProviderPaymentBatch) -> ProviderPaymentAnswers:
        self.order.append("facts")
        self.batches.append(batch)
        return ProviderPaymentAnswers(fates=[PaymentFate.NOTED] * len(batch.facts))


@dataclass
class Door:
    core: Core
    url: str
    receiver: CallbackReceiver

    async def post(self, body: bytes, **headers: str) -> int:
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        sent = {"x-signature": signature} | {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient() as client:
            return (await client.post(self.url, content=body, headers=sent)).status_code


def a_callback(event: str | None = "E1", age_s: int = 0, transaction: str = "T1") -> bytes:
    fact = {
        "provider_account": "main",
        "transaction_id": transaction,
        "status": "SUCCEEDED",
        "amount_minor": 100,
        "currency": "THB",
        "source": "CALLBACK",
        "confirmed": True,
        "occurred_at": datetime.now(UTC).isoformat(),
    }
    return orjson.dumps({"event": event, "at": int(time.time()) - age_s, "fact": fact})


async def opened(**settings: Any) -> Door:
    core, port = Core(), free_port()
    receiver = CallbackReceiver(Rail(), core, CallbackSettings("testrail", **settings))
    await receiver.start("127.0.0.1", port)
    return Door(core, f"http://127.0.0.1:{port}/from/provider", receiver)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = await opened(max_body_bytes=2_000)
    yield door
    await door.receiver.stop()


async def test_a_genuine_callback_is_kept_then_taken_then_acknowledged(door: Door) -> None:
    assert await door.post(a_callback()) == 200
    assert door.core.order == ["evidence callback", "facts"]
    (batch,) = door.core.batches
    assert (batch.event_id, batch.facts[0].transaction_id) == ("E1", "T1")
    assert batch.facts[0].evidence_id is not None


@pytest.mark.parametrize("signature", ["", "00", "0" * 64, "é", "not hexadecimal"])
async def test_a_forged_callback_has_no_effect(door: Door, signature: str) -> None:
    if signature.isascii():
        assert await door.post(a_callback(), x_signature=signature) == 401
    with pytest.raises(CallbackRefused):
        check_hmac(SECRET, a_callback(), signature)
    assert door.core.order == []


@pytest.mark.parametrize("age_s", [301, -330, 86_400])
async def test_a_stale_callback_and_one_of_the_future_have_no_effect(door: Door, age_s: int) -> None:
    assert await door.post(a_callback(age_s=age_s)) == 401
    assert door.core.order == []
    assert await door.post(a_callback(age_s=290)) == 200


async def test_a_replayed_callback_is_acknowledged_without_effect(door: Door) -> None:
    body = a_callback()
    assert [await door.post(body) for _ in range(3)] == [200] * 3
    assert len(door.core.batches) == 1
    # Without an id of the provider's, the same bytes are the same event.
    nameless = a_callback(event=None, transaction="T2")
    assert [await door.post(nameless) for _ in range(2)] == [200] * 2
    assert len(door.core.batches) == 2
    # The same id with other facts is not ours to judge: the core remembers for good what it stood for.
    assert await door.post(a_callback(transaction="T3")) == 200
    assert [batch.event_id for batch in door.core.batches].count("E1") == 2


async def test_reordered_callbacks_are_each_taken_with_their_own_time(door: Door) -> None:
    for event in ("E3", "E1", "E2"):
        assert await door.post(a_callback(event=event, transaction=event)) == 200
    assert [batch.event_id for batch in door.core.batches] == ["E3", "E1", "E2"]


async def test_what_is_too_large_or_not_understood_is_refused_before_anything_is_kept(door: Door) -> None:
    assert await door.post(b"x" * 2_001) == 413
    assert await door.post(b"{}") == 422
    assert door.core.order == []


@pytest.mark.parametrize("fault", [CoreUnavailableError("away"), CoreRefusedError(503, "full")])
async def test_what_the_core_did_not_keep_is_not_acknowledged_and_is_taken_when_it_comes_again(
    door: Door, fault: Exception
) -> None:
    body = a_callback()
    door.core.fails = fault
    assert await door.post(body) == 503
    door.core.fails = None
    assert await door.post(body) == 200
    assert len(door.core.batches) == 1


async def test_only_the_providers_networks_are_let_in() -> None:
    door = await opened(allowed=PARTNER)
    assert await door.post(a_callback()) == 403
    # Who is no proxy of ours may say what it likes.
    assert await door.post(a_callback(), x_forwarded_for="203.0.113.7") == 403
    assert door.core.order == []
    await door.receiver.stop()


async def test_behind_a_trusted_proxy_the_last_address_that_is_none_counts() -> None:
    door = await opened(allowed=PARTNER, trusted_proxies=LOOPBACK)
    assert await door.post(a_callback()) == 403  # the proxy tells nobody's address
    assert await door.post(a_callback(), x_forwarded_for="203.0.113.7, 198.51.100.1") == 403  # spoofed in front
    assert await door.post(a_callback(), x_forwarded_for="nonsense") == 403
    assert await door.post(a_callback(), x_forwarded_for="198.51.100.1, 203.0.113.7, 127.0.0.9") == 200
    assert len(door.core.batches) == 1
    await door.receiver.stop()


@pytest.mark.parametrize(
    "told",
    ["::ffff:203.0.113.7", "203.0.113.7:4711", "[::ffff:203.0.113.7]:443", '"203.0.113.7"', "[::ffff:203.0.113.7]"],
)
async def test_a_fronts_way_of_writing_an_address_decides_nothing(told: str) -> None:
    door = await opened(allowed=PARTNER, trusted_proxies=LOOPBACK)
    assert await door.post(a_callback(), x_forwarded_for=f"198.51.100.1, {told}, ::ffff:127.0.0.9") == 200
    spoofed = f"{told}, 198.51.100.1:80", f"{told}, nonsense", f"{told}, [198.51.100.1", f"{told}, 1.2.3.4:x"
    for each in spoofed:
        assert await door.post(a_callback(event="E2"), x_forwarded_for=each) == 403
    assert len(door.core.batches) == 1
    await door.receiver.stop()


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:65535", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:", None),
        ("203.0.113.7:port", None),
        ("[2001:db8::1]443", None),
        ("host.example:80", None),
        ("", None),
    ],
)
def test_an_address_is_read_with_its_port_or_without(told: str, address: str | None) -> None:
    found = address_of(told)
    assert (str(found) if found is not None else None) == address


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "identity, gzip"])
async def test_a_body_that_is_packed_is_refused_by_name_and_not_as_forged(door: Door, encoding: str) -> None:
    packed = gzip.compress(a_callback())
    assert await door.post(packed, content_encoding=encoding) == 415
    assert door.core.order == []
    assert await door.post(a_callback(), content_encoding="identity") == 200


def test_networks_that_are_none_are_refused_at_start() -> None:
    told = {"REDIS_URL": "redis://r", "CORE_INTERNAL_URL": "http://u", "CORE_KEY_ID": "k", "CORE_KEY_SECRET": "s"}
    RuntimeSettings.model_validate(told | {"FLEET_CALLBACK_ALLOWED": "203.0.113.0/24, 2001:db8::/32"})
    with pytest.raises(ValidationError):
        RuntimeSettings.model_validate(told | {"FLEET_CALLBACK_PROXIES": "our proxy"})
