"""Webhooks out: signed, once or more, in order, retried and given up, and never to an address of the house."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from core.bootstrap import notifier
from core.bus.loop import forever
from core.bus.webhook_http import WebhookSender
from core.domain.webhooks import Schedule
from core.services.access.keys import Caller
from core.services.told.notify import Notifier, NotifyPace
from schemas.webhooks import WebhookEndpointRequest
from tests.integration.api.conftest import World, payout
from tests.support.receiver import Receiver, receiving
from tests.support.waiting import PATIENCE_S, until

PACE = NotifyPace(poll_s=0.02)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def developer(world: World) -> World:
    """The world of a developer, whose own machine may receive."""
    settings = world.settings.model_copy(update={"webhooks_to_private": True})
    webhooks = replace(world.core.webhooks, private=True)
    return replace(world, core=replace(world.core, settings=settings, webhooks=webhooks))


def sending(world: World, schedule: Schedule | None = None, call_s: float = 5, pace: NotifyPace = PACE) -> Notifier:
    """Return a notifier as the resolver runs it, in a hurry."""
    made = notifier(world.core)
    made._pace, made._schedule = pace, schedule or Schedule(0, 0, 3)
    made._sender = WebhookSender(private=world.core.settings.webhooks_to_private, total_s=call_s)
    return made


async def run_until(made: Notifier, true: Callable[[], object]) -> None:
    """Let the notifier work until something holds and it is idle."""

    async def work() -> None:
        await forever("the notifier", made.step)

    working = asyncio.create_task(work())
    try:
        await until(lambda: working.done() or true())
        assert not working.done(), working
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    await asyncio.gather(*made._busy.values(), return_exceptions=True)
    await made.finish()


async def one_step(made: Notifier) -> None:
    """Let the notifier send what is due now, once."""
    await made.step()
    await asyncio.gather(*made._busy.values())


async def endpoint(world: World, url: str, **more: Any) -> tuple[str, str]:
    """Name an endpoint as its tenant does; return its id and secret."""
    caller = Caller(world.key.id, world.tenant_id, "service", None, frozenset({"WEBHOOKS"}), None)
    made = await world.core.webhooks.create(caller, WebhookEndpointRequest.model_validate({"url": url} | more))
    return str(made.endpoint.id), made.secret


async def pay(world: World, count: int = 1, cancel: bool = True) -> list[str]:
    """Ask for payouts and cancel them; return their ids."""
    wallet = await world.funded_wallet(1000)
    await world.register()
    ids = []
    for n in range(count):
        key = f"{wallet}-{n}"
        ids.append((await world.api.post("/v1/intents", payout(wallet, comment="for anna"), key=key)).json()["id"])
        if cancel:
            await world.api.post(f"/v1/intents/{ids[-1]}/cancel", {})
    return ids


async def deliveries(world: World, endpoint_id: str, **query: str) -> list[dict[str, Any]]:
    """Return what the API shows of an endpoint's deliveries, oldest first."""
    answer = await world.api.get(f"/v1/webhook-endpoints/{endpoint_id}/deliveries", **query)
    assert answer.status_code == 200, answer.text
    return list(reversed(answer.json()["items"]))


async def test_every_event_arrives_once_signed_in_order_and_without_a_name(
    developer: World, receiver: Receiver
) -> None:
    made, secret = await endpoint(developer, receiver.url)
    (intent,) = await pay(developer)
    await run_until(sending(developer), lambda: len(receiver.received) >= 3)
    ours = [each for each in receiver.received if each.message["data"]["intent_id"] == intent]
    assert [each.message["type"] for each in ours] == ["intent.accepted", "intent.cancelled_by_client"]
    for each in receiver.received:
        Webhook(secret).verify(each.body, dict(each.headers))
        assert b"0812345678" not in each.body
        assert b"anna" not in each.body
    data = ours[1].message["data"]
    assert (data["seq"], data["state"], data["amount_minor"], data["currency"]) == (2, "CANCELLED", 100, "THB")
    assert ours[1].headers["webhook-id"] == f"evt_{intent}_2"
    shown = await deliveries(developer, made)
    assert [(each["state"], each["attempts"], each["status"]) for each in shown] == [("DELIVERED", 1, 204)] * 3
    assert len({each.headers["webhook-id"] for each in receiver.received}) == len(receiver.received) == 3


async def test_who_wants_to_hear_of_an_end_hears_of_those_that_come_at_once_too(
    developer: World, receiver: Receiver
) -> None:
    wallet, other = await developer.funded_wallet(100), await developer.funded_wallet(1)
    await endpoint(developer, receiver.url, event_types=["settled", "cancelled"])
    transfer = {"operation": "INTERNAL_P2P", "wallet_id": wallet, "counterparty_wallet_id": other}
    for key, amount_minor in (("paid", 40), ("too much", 500)):
        await developer.api.post("/v1/intents", transfer | {"amount_minor": amount_minor, "currency": "THB"}, key=key)
    (cancelled,) = await pay(developer)
    told = receiver.received
    await run_until(sending(developer), lambda: any(each.message["data"]["intent_id"] == cancelled for each in told))
    states = Counter((each.message["data"]["operation"], each.message["data"]["state"]) for each in told)
    assert states["INTERNAL_P2P", "SETTLED"] == states["PAYOUT", "CANCELLED"] == 1
    assert {state for _, state in states} == {"SETTLED", "CANCELLED"}


async def test_what_was_taken_and_not_kept_is_sent_again_under_the_same_id(
    developer: World, receiver: Receiver
) -> None:
    """A process that dies between the commit and the delivery, or between the delivery and its note."""
    made, _ = await endpoint(developer, receiver.url, event_types=["cancelled_by_client"])
    await pay(developer)
    died = sending(developer)
    upto = await died._settled()
    await died._deliveries.derive(upto, 10, 10)
    (taken,) = await died._deliveries.take([], 10, 10, 0.2)
    await died._attempt(taken)  # it was sent, and nobody noted it
    await run_until(sending(developer), lambda: len(receiver.received) == 2)
    assert receiver.received[0].headers["webhook-id"] == receiver.received[1].headers["webhook-id"]
    (shown,) = await deliveries(developer, made)
    assert (shown["state"], shown["attempts"]) == ("DELIVERED", 2)


async def test_a_failure_is_tried_again_and_holds_up_later_events_of_its_intent_alone(
    developer: World, receiver: Receiver
) -> None:
    await endpoint(developer, receiver.url)
    broken, fine = await pay(developer, 2)
    failed = 0

    def answer(request: Any) -> int:
        nonlocal failed
        if request.message["data"]["intent_id"] == broken and failed < 1:
            failed += 1
            return 500
        return 200

    receiver.answer = answer
    await run_until(sending(developer), lambda: len(receiver.received) >= 6)
    seen = [(each.message["data"]["intent_id"], each.message["data"]["seq"]) for each in receiver.received]
    assert [seq for intent, seq in seen if intent == broken] == [1, 1, 2]
    assert [seq for intent, seq in seen if intent == fine] == [1, 2]
    assert seen.index((fine, 2)) < seen.index((broken, 2)), "the other payment did not wait"


async def test_an_endpoint_that_keeps_its_whole_order_gets_nothing_before_what_failed(
    developer: World, receiver: Receiver
) -> None:
    await endpoint(developer, receiver.url, ordering="ENDPOINT")
    await pay(developer, 2)
    answers = iter([200, 500, 200, 200, 200, 200])
    receiver.answer = lambda _: next(answers, 200)
    await run_until(sending(developer), lambda: len(receiver.received) >= 6)
    positions = [int(each.message["data"]["event_id"]) for each in receiver.received]
    assert positions == sorted(positions)
    assert len(set(positions)) == 5


async def test_what_fails_for_long_is_given_up_with_an_alert_and_redriven_by_a_person(
    developer: World, receiver: Receiver
) -> None:
    made, _ = await endpoint(developer, receiver.url, event_types=["cancelled_by_client"])
    await pay(developer)
    receiver.answer = lambda _: 503
    hurried = Schedule(0, 0, 2)
    await run_until(sending(developer, hurried), lambda: len(receiver.received) == 2)
    (dead,) = await deliveries(developer, made, state="DEAD")
    assert (dead["attempts"], dead["status"]) == (2, 503)
    alerts = await developer.admin.fetch("SELECT severity, kind FROM fleet.alerts")
    assert [tuple(row) for row in alerts] == [("ticket", "webhook_dead")]
    receiver.answer = lambda _: 200
    answer = await developer.api.post(f"/v1/webhook-endpoints/{made}/redrive", {})
    assert (answer.status_code, answer.json()["redriven_count"]) == (202, 1)
    await run_until(sending(developer), lambda: len(receiver.received) == 3)
    assert [each["state"] for each in await deliveries(developer, made)] == ["DELIVERED"]


async def test_what_is_redriven_has_all_of_its_attempts_anew(developer: World, receiver: Receiver) -> None:
    made, _ = await endpoint(developer, receiver.url)
    await developer.api.post(f"/v1/webhook-endpoints/{made}/test", {})
    receiver.answer = lambda _: 503
    for _ in range(2):
        await one_step(sending(developer, Schedule(0, 0, 2)))
    (dead,) = await deliveries(developer, made)
    assert (dead["state"], dead["attempts"]) == ("DEAD", 2)
    await developer.api.post(f"/v1/webhook-endpoints/{made}/redrive", {})
    await one_step(sending(developer, Schedule(0, 0, 2)))
    (again,) = await deliveries(developer, made)
    assert (again["state"], again["attempts"]) == ("PENDING", 1)


async def test_everything_since_a_moment_is_sent_again_under_the_same_ids(developer: World, receiver: Receiver) -> None:
    made, _ = await endpoint(developer, receiver.url)
    since = datetime.now(UTC).isoformat()
    await pay(developer)
    await run_until(sending(developer), lambda: len(receiver.received) == 3)
    answer = await developer.api.post(f"/v1/webhook-endpoints/{made}/redrive", {"since": since})
    assert answer.json()["replays_from"] is not None, answer.text
    await run_until(sending(developer), lambda: len(receiver.received) == 6)
    ids = [each.headers["webhook-id"] for each in receiver.received]
    assert sorted(ids[:3]) == sorted(ids[3:])


async def test_a_slow_receiver_holds_up_no_other(developer: World, receiver: Receiver) -> None:
    async with receiving() as slow:
        slow.silent = True
        await endpoint(developer, slow.url)
        await endpoint(developer, receiver.url)
        await pay(developer, 3)
        working = sending(developer, call_s=5)
        await run_until(working, lambda: len(receiver.received) == 7)
    assert 1 <= len(slow.received) <= working._pace.calls_at_once


async def test_one_tenants_slow_receivers_leave_places_to_the_others(developer: World, receiver: Receiver) -> None:
    neighbour = uuid4()
    await developer.admin.execute("INSERT INTO fleet.tenants (tenant_id, name) VALUES ($1, 'next door')", neighbour)

    async def named(tenant_id: UUID, url: str) -> UUID:
        """Name an endpoint of a tenant that a test waits for; return its id."""
        caller = Caller("fk_test", tenant_id, "service", None, frozenset({"WEBHOOKS"}), None)
        made = await developer.core.webhooks.create(caller, WebhookEndpointRequest.model_validate({"url": url}))
        await developer.core.webhooks.test(caller, made.endpoint.id)
        return made.endpoint.id

    async with receiving() as slow:
        slow.silent = True
        ours = {await named(developer.tenant_id, slow.url) for _ in range(6)}
        working = sending(developer, call_s=30, pace=replace(PACE, endpoints_at_once=8))
        for _ in range(3):
            await working.step()
        assert len(ours & working._busy.keys()) == 4, "at most as many as are free beside them, however often it asks"
        theirs = {await named(neighbour, receiver.url) for _ in range(3)}
        taken = await working._deliveries.take(list(working._busy), 40, 4, 0)
        assert len({each.endpoint_id for each in taken} & theirs) == len(taken) == 2
        async with asyncio.timeout(PATIENCE_S):
            while len(receiver.received) < 3:
                await working.step()
        assert len(ours & working._busy.keys()) == 4
        await working.finish()


async def test_both_secrets_sign_after_a_rotation_and_the_oldest_no_longer_after_the_next(
    developer: World, receiver: Receiver
) -> None:
    made, first = await endpoint(developer, receiver.url)
    secrets = [first]
    for count in (1, 2, 3):
        await developer.api.post(f"/v1/webhook-endpoints/{made}/test", {})
        await run_until(sending(developer), lambda count=count: len(receiver.received) == count)  # type: ignore[misc]
        secrets.append((await developer.api.post(f"/v1/webhook-endpoints/{made}/rotate", {})).json()["secret"])
    assert receiver.types == ["test"] * 3
    signed = [
        {n for n, secret in enumerate(secrets) if _verifies(secret, each.body, each.headers)}
        for each in receiver.received
    ]
    assert signed == [{0}, {0, 1}, {1, 2}]


def _verifies(secret: str, body: bytes, headers: Any) -> bool:
    try:
        Webhook(secret).verify(body, dict(headers))
    except WebhookVerificationError:
        return False
    return True


async def test_a_receiver_that_is_gone_is_switched_off_and_what_waits_is_kept(
    developer: World, receiver: Receiver
) -> None:
    made, _ = await endpoint(developer, receiver.url)
    receiver.answer = lambda _: 410
    await pay(developer)
    await run_until(sending(developer), lambda: len(receiver.received) >= 1)
    shown = (await developer.api.get(f"/v1/webhook-endpoints/{made}")).json()
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "the receiver answered 410 Gone")


async def test_nothing_is_sent_to_an_address_of_the_house(world: World, receiver: Receiver) -> None:
    """The name is public when it is saved; what it stands for when it is called is what counts."""
    made, _ = await endpoint(world, "https://hooks.example/x")
    await world.api.post(f"/v1/webhook-endpoints/{made}/test", {})

    async def rebound(host: str, port: int) -> list[str]:
        return ["8.8.8.8", "127.0.0.1"]

    working = sending(world)
    working._sender = WebhookSender(private=False, total_s=5, resolve=rebound)
    await one_step(working)
    (shown,) = await deliveries(world, made)
    assert (shown["status"], shown["error"]) == (None, "refused: 127.0.0.1 is not an address of the public internet")
    answer = await world.api.post("/v1/webhook-endpoints", {"url": receiver.url})
    assert (answer.status_code, answer.json()["code"]) == (422, "webhook_url_refused")
    assert receiver.received == []


async def test_a_redirect_is_a_failure_and_is_not_followed(developer: World, receiver: Receiver) -> None:
    async with receiving() as elsewhere:
        made, _ = await endpoint(developer, receiver.url)
        receiver.answer, receiver.headers = lambda _: 302, f"Location: {elsewhere.url}\r\n"
        await developer.api.post(f"/v1/webhook-endpoints/{made}/test", {})
        await one_step(sending(developer, Schedule()))
        assert (len(receiver.received), elsewhere.received) == (1, [])
    (shown,) = await deliveries(developer, made)
    assert (shown["state"], shown["status"]) == ("PENDING", 302)


async def test_a_key_of_some_wallets_and_one_without_the_scope_name_no_endpoint(world: World) -> None:
    for more in ({"accounts": [UUID(int=1)]}, {"operations": ["PAYOUT"]}):
        narrow = await world.other(**more)
        answer = await narrow.post("/v1/webhook-endpoints", {"url": "https://hooks.example"})
        assert (answer.status_code, answer.json()["code"]) == (403, "operation_not_permitted")


async def test_a_deleted_endpoint_is_sent_nothing_more(developer: World, receiver: Receiver) -> None:
    made, _ = await endpoint(developer, receiver.url)
    await pay(developer)
    answer = await developer.api.delete(f"/v1/webhook-endpoints/{made}")
    assert answer.status_code == 200, answer.text
    await one_step(sending(developer))
    assert receiver.received == []
    assert (await developer.api.get(f"/v1/webhook-endpoints/{made}")).status_code == 404


async def test_what_waits_for_an_endpoint_that_is_deleted_meanwhile_is_never_sent(
    developer: World, receiver: Receiver
) -> None:
    made, _ = await endpoint(developer, receiver.url)
    receiver.answer = lambda _: 500
    await pay(developer)
    await one_step(sending(developer))
    before = len(receiver.received)
    assert before, "one delivery was tried and is due again"
    await endpoint(developer, receiver.url)  # it begins with later events, and keeps the notifier at work
    assert (await developer.api.delete(f"/v1/webhook-endpoints/{made}")).status_code == 200
    await one_step(sending(developer))
    assert len(receiver.received) == before
