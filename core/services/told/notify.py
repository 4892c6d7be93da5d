"""Deliver webhooks: every event of the log once or more to every endpoint that wants it, in each intent's order.

A delivery is derived from the log by a cursor for each endpoint that stops where an older event may still commit, so
what was committed is delivered whoever dies in between: the log is the queue, and PostgreSQL keeps every attempt.
"""

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Protocol
from uuid import UUID

import orjson
from standardwebhooks import Webhook

from core.domain.webhooks import Schedule
from core.telemetry import catalogue
from schemas.events import IntentState
from schemas.webhooks import DeliveryState, WebhookData, WebhookMessage
from wire.failpoints import failpoint

_log = logging.getLogger(__name__)
_ERROR_LONGEST: Final = 200
TEST_TYPE: Final = "test"
"""The type of a delivery that no intent caused."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one attempt met: a status, or why there was none."""

    status: int | None
    error: str | None
    retry_after_s: int | None = None

    @property
    def taken(self) -> bool:
        """Whether the receiver has it."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery that this process has taken, with the event and the intent that it tells of."""

    endpoint_id: UUID
    tenant_id: UUID
    url: str
    secrets: tuple[bytes, ...]
    """Sealed."""
    position: int
    intent_id: UUID
    seq: int
    type: str
    attempts: int
    """Which attempt this is, from 1; also the fence of whoever has taken it."""
    at: datetime | None
    state: str | None
    intent: Mapping[str, Any] | None

    @property
    def message_id(self) -> str:
        """The webhook-id: the same at every attempt and every replay."""
        return message_id(self.intent_id, self.seq)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is written after an attempt. `wait_s` is None where there is no next one."""

    delivery: Delivery
    state: DeliveryState
    answer: Answer
    wait_s: float | None = None


class Deliveries(Protocol):
    """The queue of deliveries, under the worker role."""

    async def wanted(self) -> bool:
        """Whether anything is sent to anybody at all."""
        ...

    async def derive(self, upto: int, limit: int, pending_max: int) -> int:
        """Write the deliveries of events up to a position; return how many endpoints have more to come."""
        ...

    async def take(self, without: Sequence[UUID], each: int, endpoints: int, lease_s: float) -> list[Delivery]:
        """Take due deliveries of endpoints but those in `without`, the head of each intent alone.

        `endpoints` is how many places are free, those of `without` being busy: a tenant has at most as many as are
        left beside its own.
        """
        ...

    async def keep(self, outcomes: Sequence[Outcome]) -> None:
        """Write what became of deliveries that are still this process's; dead ones raise an alert."""
        ...

    async def disable(self, endpoint_id: UUID, reason: str) -> None:
        """Send nothing more to an endpoint, and say so."""
        ...


class Sender(Protocol):
    """Sends one message over HTTP."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer: ...


class Opener(Protocol):
    """Opens sealed secrets."""

    def open_bytes(self, ciphertext: bytes, *, bound_to: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class NotifyPace:
    """Bounds of one process; durations in seconds."""

    poll_s: float = 0.5
    derive_batch: int = 1000
    pending_max: int = 5000
    """Above so many due deliveries of an endpoint the log waits: it is the queue."""
    endpoints_at_once: int = 32
    each: int = 40
    """How many deliveries of one endpoint are taken at once."""
    calls_at_once: int = 8
    """Calls to one endpoint at the same time."""
    call_s: int = 15

    @property
    def lease_s(self) -> int:
        """How long a taken batch may take before another process may send it: every call at its slowest, and one."""
        return (self.each // self.calls_at_once + 1) * self.call_s


class Notifier:
    """Derives deliveries and sends them; each endpoint has a task of its own, so a slow one holds up no other.

    All of a tenant's that are slow leave places to other tenants.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        settled: Callable[[], Any],
        sender: Sender,
        opener: Opener,
        schedule: Schedule | None = None,
        pace: NotifyPace | None = None,
    ) -> None:
        self._deliveries, self._settled, self._sender, self._opener = deliveries, settled, sender, opener
        self._schedule, self._pace = schedule or Schedule(), pace or NotifyPace()
        self._busy: dict[UUID, asyncio.Task[None]] = {}

    async def step(self) -> float:  # poll_s, or 0
        """Derive what is new and start sending what is due; return how long to wait for the next step."""
        pace = self._pace
        if not (self._busy or await self._deliveries.wanted()):
            return pace.poll_s
        more = await self._deliveries.derive(await self._settled(), pace.derive_batch, pace.pending_max)
        room = pace.endpoints_at_once - len(self._busy)
        taken = await self._deliveries.take(list(self._busy), pace.each, room, pace.lease_s) if room > 0 else []
        by_endpoint: dict[UUID, list[Delivery]] = defaultdict(list)
        for delivery in taken:
            by_endpoint[delivery.endpoint_id].append(delivery)
        for endpoint_id, batch in by_endpoint.items():
            task = asyncio.create_task(self._serve(endpoint_id, batch))
            self._busy[endpoint_id] = task
            task.add_done_callback(partial(self._ended, endpoint_id))
        if self._busy:
            await asyncio.wait(self._busy.values(), timeout=pace.poll_s, return_when=asyncio.FIRST_COMPLETED)
            return 0
        return 0 if more else pace.poll_s

    def _ended(self, endpoint_id: UUID, _: asyncio.Task[None]) -> None:
        self._busy.pop(endpoint_id, None)

    async def finish(self) -> None:
        """Stop sending; what was under way is due again after its lease."""
        for task in list(self._busy.values()):
            task.cancel()
        await asyncio.gather(*self._busy.values(), return_exceptions=True)

    async def _serve(self, endpoint_id: UUID, batch: Sequence[Delivery]) -> None:
        free = asyncio.Semaphore(self._pace.calls_at_once)

        async def one(delivery: Delivery) -> Outcome:
            async with free:
                return await self._attempt(delivery)

        try:
            outcomes = await asyncio.gather(*map(one, batch))
            failpoint("notifier.before_keep")
            await self._deliveries.keep(outcomes)
            if any(outcome.answer.status == _GONE for outcome in outcomes):
                await self._deliveries.disable(endpoint_id, "the receiver answered 410 Gone")
        except Exception as error:  # noqa: BLE001 - the deliveries are due again after their lease
            _log.warning("what became of %d deliveries could not be kept: %s", len(batch), type(error).__name__)

    async def _attempt(self, delivery: Delivery) -> Outcome:
        headers, body = self._message(delivery)
        failpoint("notifier.before_send")
        answer = await self._sender.send(delivery.url, headers, body)
        if answer.taken:
            catalogue.WEBHOOKS.labels("delivered").inc()
            return Outcome(delivery, DeliveryState.DELIVERED, answer)
        told_s = answer.retry_after_s
        wait_s = self._schedule.wait_s(delivery.attempts, random.random(), told_s)  # noqa: S311 - jitter
        if wait_s is None or answer.status == _GONE:
            catalogue.WEBHOOKS.labels("dead").inc()
            return Outcome(delivery, DeliveryState.DEAD, answer)
        catalogue.WEBHOOKS.labels("failed").inc()
        return Outcome(delivery, DeliveryState.PENDING, answer, wait_s)

    def _message(self, delivery: Delivery) -> tuple[dict[str, str], bytes]:
        body = message_of(delivery)
        now = datetime.now(UTC)
        signatures = []
        for sealed in delivery.secrets:
            secret = self._opener.open_bytes(sealed, bound_to=binding(delivery.endpoint_id)).decode()
            signatures.append(Webhook(secret).sign(delivery.message_id, now, body.decode()))
        headers = {
            "content-type": "application/json",
            "user-agent": "psp-fleet-webhooks/1",
            "webhook-id": delivery.message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }
        return headers, body


_GONE: Final = 410


def message_id(intent_id: UUID, seq: int) -> str:
    """Return the webhook-id of an event."""
    return f"evt_{intent_id}_{seq}"


def binding(endpoint_id: UUID) -> str:
    """Return what an endpoint's sealed secret is bound to."""
    return f"webhook-endpoint:{endpoint_id}"


def message_of(delivery: Delivery) -> bytes:
    """Return the body: ids, amounts and states. Who pays or is paid is for a signed request to ask."""
    if delivery.intent is None or delivery.state is None:
        message = WebhookMessage(type=TEST_TYPE, timestamp=delivery.at or datetime.fromtimestamp(time.time(), UTC))
    else:
        data = WebhookData(
            event_id=str(delivery.position),
            intent_id=delivery.intent_id,
            seq=delivery.seq,
            state=IntentState(delivery.state),
            **delivery.intent,
        )
        message = WebhookMessage(type=f"intent.{delivery.type}", timestamp=delivery.at or datetime.now(UTC), data=data)
    return orjson.dumps(message.model_dump(mode="json", exclude_none=True))
