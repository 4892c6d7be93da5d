"""From stream entries to use cases: parse what came in, run the use case, say what may be acked."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from pydantic import TypeAdapter, ValidationError
from redis.asyncio import Redis

from core.services import dead_letters, settle
from core.services.settle import SettlePorts
from core.telemetry.catalogue import DEAD_LETTERS, UNUSABLE, VERDICTS
from schemas.dead_letters import DEAD_LETTER_TYPE, DeadLetter
from schemas.envelope import UnknownVersionError
from schemas.results import RESULT_TYPE, Result
from schemas.streams import results_dlq_stream
from wire.consumer import Delivery
from wire.failpoints import failpoint

UnitOfWorkFactory = Callable[[], AbstractAsyncContextManager[Any]]

_RESULT: TypeAdapter[Result] = TypeAdapter(Result)
_DEAD_LETTER: TypeAdapter[DeadLetter] = TypeAdapter(DeadLetter)


class ResultsReceiver:
    """Settles a batch of verdicts; what is unusable is kept in PostgreSQL first and then mirrored for watchers."""

    def __init__(self, ports: SettlePorts, unit_of_work: UnitOfWorkFactory, client: Redis) -> None:
        self._ports, self._unit_of_work, self._client = ports, unit_of_work, client

    async def __call__(self, rail: str, deliveries: Sequence[Delivery]) -> Sequence[str]:
        """Return the entry ids that may be acked."""
        settled = await settle.settle_batch(self._ports, self._committing, [_result(rail, each) for each in deliveries])
        _count(rail, settled)
        for delivery, error in settled.unusable:
            fields: dict[Any, Any] = {
                "v": "1",
                "id": delivery.entry_id,
                "type": RESULT_TYPE,
                "body": delivery.body,
                "error": error,
            }
            await self._client.xadd(results_dlq_stream(rail), fields, maxlen=10_000, approximate=True)
        return [delivery.entry_id for delivery in settled.acked]

    @asynccontextmanager
    async def _committing(self) -> AsyncIterator[Any]:
        async with self._unit_of_work() as uow:
            yield uow
            failpoint("settler.before_commit")


class DeadLettersReceiver:
    """Keeps dead letters in PostgreSQL; an entry that is no dead letter is kept as one, raw."""

    def __init__(self, store: dead_letters.Letters, unit_of_work: UnitOfWorkFactory) -> None:
        self._store, self._unit_of_work = store, unit_of_work

    async def __call__(self, rail: str, deliveries: Sequence[Delivery]) -> Sequence[str]:
        """Return the entry ids that may be acked: all, once they are committed."""
        async with self._unit_of_work() as uow:
            await dead_letters.receive(uow, self._store, [_letter(rail, each) for each in deliveries])
        DEAD_LETTERS.labels(rail).inc(len(deliveries))
        return [each.entry_id for each in deliveries]


def _count(rail: str, settled: settle.Settled) -> None:
    for verdict, count in Counter(each.result.verdict for each in settled.acked if each.result is not None).items():
        VERDICTS.labels(rail, verdict).inc(count)
    if settled.unusable:
        UNUSABLE.labels(rail).inc(len(settled.unusable))


def _result(rail: str, delivery: Delivery) -> settle.Delivery:
    envelope = delivery.envelope
    body = envelope.body if envelope is not None else delivery.raw
    result, error = None, ""
    if isinstance(delivery.error, UnknownVersionError):
        error = "unknown_version"
    elif envelope is None or envelope.type != RESULT_TYPE:
        error = "not_a_result"
    else:
        try:
            result = _RESULT.validate_json(body)
        except ValidationError:
            error = "unparseable"
    return settle.Delivery(rail, delivery.stream, delivery.entry_id, body, delivery.deliveries, result, error)


def _letter(rail: str, delivery: Delivery) -> DeadLetter:
    envelope = delivery.envelope
    if envelope is not None and envelope.type == DEAD_LETTER_TYPE:
        try:
            return _DEAD_LETTER.validate_json(envelope.body)
        except ValidationError:
            pass
    return DeadLetter(
        job_id=None,
        rail=rail,
        stream=delivery.stream,
        entry_id=delivery.entry_id,
        error_class="unreadable_dead_letter",
        fingerprint="unreadable_dead_letter",
        message="an entry of the dead-letter stream is no dead letter",
        deliveries=delivery.deliveries,
        body=envelope.body if envelope is not None else delivery.raw,
    )
