"""Events as a stream, over a real connection: live, resumed without loss or repeat, bounded, and over at the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from uuid import UUID, uuid4

import httpx
import pytest

from core.domain.context import Context
from core.services.problems import Refusal
from core.services.told.events import EventHub, Follower
from fleet.client import FleetClient, Refused
from schemas.events import EventView
from tests.integration.api.conftest import World, payout
from tests.support.live_api import serving
from tests.support.signed import Signed
from tests.support.waiting import PATIENCE_S, until


@pytest.fixture
async def url(world: World) -> AsyncIterator[str]:
    async with serving(world.core) as url:
        yield url


@pytest.fixture
async def client(world: World, url: str) -> AsyncIterator[FleetClient]:
    async with FleetClient(url, world.key.id, world.key.secret, attempts=2) as client:
        yield client


def hub_of(world: World) -> EventHub:
    return world.core.events.hub


async def test_a_stream_tells_a_payments_events_as_they_happen_and_ends_with_it(
    world: World, client: FleetClient
) -> None:
    wallet = await world.funded_wallet(1000)
    await world.register()
    intent = (await world.api.post("/v1/intents", payout(wallet), key="a")).json()["id"]
    seen: list[EventView] = []
    first = asyncio.Event()

    async def follow() -> None:
        async for event in client.events(intent):
            seen.append(event)
            first.set()

    following = asyncio.create_task(follow())
    await first.wait()
    await world.api.post(f"/v1/intents/{intent}/cancel", {})
    async with asyncio.timeout(PATIENCE_S):
        await following
    assert [(event.seq, event.type) for event in seen] == [(1, "accepted"), (2, "cancelled_by_client")]
    # What has ended and was heard to its end is answered at once: an EventSource comes no more after a 204.
    signed = Signed(httpx.AsyncClient(base_url=str(client._http.base_url)), world.key.id, world.key.secret)
    async with signed.http as http:
        path = f"/v1/intents/{intent}/events"
        headers = signed.headers("GET", path, b"") | {"Accept": "text/event-stream", "Last-Event-ID": seen[-1].id}
        assert (await http.get(path, headers=headers)).status_code == 204
    assert hub_of(world)._followers == set()


async def test_a_stream_of_all_is_woken_by_the_commit_and_told_only_what_it_asked_for(
    world: World, client: FleetClient
) -> None:
    hub_of(world).pace = replace(hub_of(world).pace, poll_s=30)
    wallet = await world.funded_wallet(1000)
    await world.register()
    cancelled: list[EventView] = []
    every: list[EventView] = []

    async def follow(kinds: list[str], into: list[EventView], count: int) -> None:
        async with aclosing(client.events(types=kinds)) as events:
            async for event in events:
                into.append(event)
                if len(into) == count:
                    return

    tasks = [asyncio.create_task(follow(["cancelled_by_client"], cancelled, 1)),
             asyncio.create_task(follow([], every, 2))]  # fmt: skip
    while len(hub_of(world)._followers) < 2 or not await world.admin.fetchval(  # noqa: ASYNC110
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%fleet_events%' AND datname = current_database()"
    ):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)  # both have read to the end: what wakes them now is the notification
    intent = (await world.api.post("/v1/intents", payout(wallet), key="a")).json()["id"]
    await world.api.post(f"/v1/intents/{intent}/cancel", {})
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*tasks)
    assert [(str(event.intent_id), event.type) for event in cancelled] == [(intent, "cancelled_by_client")]
    assert [event.type for event in every] == ["accepted", "cancelled_by_client"]


async def test_a_stream_that_broke_goes_on_behind_the_last_event_that_was_seen(
    world: World, client: FleetClient
) -> None:
    for n in range(3):
        await world.funded_wallet(n + 1)
    heard: list[str] = []
    after = "0"
    for _ in range(3):
        async with aclosing(client.events(after=after)) as events:
            async for event in events:
                heard.append(event.id)
                after = event.id
                break
    listed = (await world.api.get("/v1/events")).json()["items"]
    assert heard == [each["id"] for each in listed]


async def test_one_stream_too_many_is_refused_and_a_place_that_is_given_back_is_taken_again(
    world: World, client: FleetClient
) -> None:
    hub_of(world).pace = replace(hub_of(world).pace, open_max=1)
    await world.funded_wallet(1)
    async with aclosing(client.events(after="0")) as events:
        await anext(events)
        with pytest.raises(Refused, match="too_many_streams"):
            async with aclosing(client._stream_of_events("/v1/events", {}, "0")) as refused:
                await anext(refused)
    async with asyncio.timeout(PATIENCE_S):
        while hub_of(world)._followers:  # noqa: ASYNC110 - the server sees the end of a connection by itself
            await asyncio.sleep(0.01)
    async with aclosing(client.events(after="0")) as events:
        assert (await anext(events)).seq == 1


async def test_one_tenants_streams_leave_places_to_the_others(world: World) -> None:
    hub = hub_of(world)
    hub.pace = replace(hub.pace, open_max=9)
    first, second, third = (uuid4() for _ in range(3))

    def taken(tenant: UUID) -> list[Follower]:
        found: list[Follower] = []
        with suppress(Refusal):
            while True:
                found.append(hub.follow(tenant, None))
        with pytest.raises(Refusal) as refused:
            hub.follow(tenant, None)
        assert refused.value.code == "too_many_streams"
        return found

    places = [taken(tenant) for tenant in (first, second, third)]
    assert [len(each) for each in places] == [5, 2, 1], "at most as many as are free when one is asked for"
    for follower in (*places[1], *places[2]):
        hub.leave(follower)
        hub.leave(follower)
    assert len(taken(second)) == 2, "what was given back is there once"
    hub.close()


@asynccontextmanager
async def listening(url: str, client: Signed, path: str) -> AsyncIterator[tuple[list[str], asyncio.Task[None]]]:
    """Follow a stream; what is told, as its lines, and who listens, done once the stream has ended."""
    told: list[str] = []
    opened = asyncio.Event()

    async def listen() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            headers = client.headers("GET", path, b"") | {"Accept": "text/event-stream"}
            async with http.stream("GET", path, headers=headers) as answer:
                assert answer.status_code == 200
                async for line in answer.aiter_lines():
                    told.append(line)
                    if line.startswith("id:"):  # from here on it misses nothing
                        opened.set()

    listener = asyncio.create_task(listen())
    await asyncio.wait([listener, asyncio.create_task(opened.wait())], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield told, listener
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)


async def test_the_stream_of_a_key_that_was_revoked_tells_nothing_more_and_ends(world: World, url: str) -> None:
    wallet = await world.funded_wallet(10_000)
    await world.register()
    other = await world.other()
    # Signs of life are far between: what ends it is what it would have told.
    hub_of(world).pace = replace(hub_of(world).pace, keep_alive_s=600)
    waiting = (await world.api.post("/v1/intents", payout(wallet), key="before")).json()["id"]
    paths = ("/v1/events", f"/v1/intents/{waiting}/events")
    async with listening(url, other, paths[0]) as (all_told, every), listening(url, other, paths[1]) as (told, one):
        await until(lambda: "event: accepted" in told)
        await world.core.keys.revoke(Context(None, "test"), other.key_id)
        await asyncio.sleep(2.1)  # what is known of a key is looked up anew after two seconds
        await world.api.post("/v1/intents", payout(wallet), key="after")
        await world.api.post(f"/v1/intents/{waiting}/cancel", {})
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(every, one)
    assert [line for line in all_told + told if line.startswith("event:")] == ["event: accepted"]
    assert hub_of(world)._followers == set()


async def test_a_silent_stream_of_a_revoked_key_ends_with_the_next_sign_of_life(world: World, url: str) -> None:
    hub_of(world).pace = replace(hub_of(world).pace, keep_alive_s=0.2)
    other = await world.other()
    async with listening(url, other, "/v1/events") as (_, listener):
        await world.core.keys.revoke(Context(None, "test"), other.key_id)
        async with asyncio.timeout(PATIENCE_S):
            await listener


async def test_a_users_stream_tells_of_a_wallet_that_was_opened_after_it_began(world: World, url: str) -> None:
    await world.register()
    acting = await world.other(acts_for_users=True)
    acting.on_behalf_of = "anna"
    async with listening(url, acting, "/v1/events") as (told, _):
        await world.funded_wallet(100)
        await until(lambda: "event: accepted" in told)


async def test_a_silent_stream_shows_signs_of_life_and_ends_when_it_was_open_for_long_enough(
    world: World, url: str
) -> None:
    hub_of(world).pace = replace(hub_of(world).pace, keep_alive_s=0.05, longest_s=0.5)
    async with httpx.AsyncClient(base_url=url) as http:
        signed = Signed(http, world.key.id, world.key.secret)
        headers = signed.headers("GET", "/v1/events", b"") | {"Accept": "text/event-stream"}
        answer = await http.get("/v1/events", headers=headers, timeout=20)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.startswith("retry: 1000\n\n: still here\nid: 0\n\n")
    assert answer.text.count(": still here\n") >= 3


async def test_nobody_is_notified_while_nobody_listens(world: World) -> None:
    heard: list[object] = []
    await world.admin.add_listener("fleet_events", lambda *given: heard.append(given))
    wallet = await world.funded_wallet(1000)
    await world.register()
    await world.api.post("/v1/intents", payout(wallet), key="a")
    assert await world.admin.fetchval("SELECT 1") == 1
    assert heard == []
    await world.admin.execute("SELECT setval('fleet.events_wanted_until', extract(epoch FROM now())::bigint + 60)")
    await world.api.post("/v1/intents", payout(wallet), key="b")
    assert await world.admin.fetchval("SELECT 1") == 1
    assert len(heard) == 1
