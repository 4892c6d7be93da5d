"""From stream entries to use cases: parse what came in, run the use case, say what may be acked."""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from redis.exceptions import RedisError

from core.services.on_call import dead_letters
from core.services.settling import settle
from core.services.settling.bus_ports import Parked, ParkingStore
from core.services.settling.settle import SettlePorts
from core.telemetry.catalogue import DEAD_LETTERS, PAYMENT_SECONDS, UNUSABLE, VERDICTS
from schemas.dead_letters import DEAD_LETTER_TYPE, UNKNOWN_VERSION, DeadLetter
from schemas.envelope import UnknownVersionError, raw_fields, version_of
from schemas.rails import RAIL_CUT_OFF_TYPE, RailCutOff
from schemas.results import RESULT_TYPE, Result
from schemas.streams import control_stream, jobs_stream, results_dlq_stream, whole_stream
from wire.client import StreamServers
from wire.consumer import Delivery
from wire.failpoints import failpoint
from wire.tracing import Traced, begin_each, end_each, is_on

log = logging.getLogger(__name__)

UnitOfWorkFactory = Callable[[], AbstractAsyncContextManager[Any]]

CUT_OFF_HOLDS_S: Final = 10.0
"""How long an adapter's word counts that it does not reach the core: it says so every second."""

_RESULT: TypeAdapter[Result] = TypeAdapter(Result)
_DEAD_LETTER: TypeAdapter[DeadLetter] = TypeAdapter(DeadLetter)


class ResultsReceiver:
    """Settles a batch of verdicts; what is unusable is kept in PostgreSQL first and then mirrored for watchers."""

    def __init__(
        self, ports: SettlePorts, parking: ParkingStore, unit_of_work: UnitOfWorkFactory, servers: StreamServers
    ) -> None:
        self._ports, self._parking, self._unit_of_work, self._servers = ports, parking, unit_of_work, servers

    async def __call__(self, rail: str, deliveries: Sequence[Delivery]) -> Sequence[str]:
        """Return the entry ids that may be acked."""
        parked = [each for each in (_parked(rail, one) for one in deliveries) if each is not None]
        if parked:
            async with self._unit_of_work() as uow:
                await self._parking.keep_parked(uow, parked)
        away = {each.entry_id for each in parked} | await self._note_cut_off(rail, deliveries)
        readable = [_result(rail, each) for each in deliveries if each.entry_id not in away]
        traced = _traced(deliveries)
        acked = [*away, *(await self._settle(rail, readable) if readable else ())]
        end_each(traced)
        return acked

    async def _note_cut_off(self, rail: str, deliveries: Sequence[Delivery]) -> set[str]:
        """Keep that adapters of the rail run and do not reach the core; return the entries that say so."""
        told = {each.entry_id: said for each in deliveries if (said := _cut_off(each)) is not None}
        if told:
            async with self._unit_of_work() as uow:
                began = await self._ports.rails.note_waits(uow, rail, ["*"], "adapters", CUT_OFF_HOLDS_S)
            if began:
                log.error("rail %s waits: its adapter %s does not reach the core", rail, *list(told.values())[-1:])
        return set(told)

    async def _settle(self, rail: str, deliveries: Sequence[settle.Delivery]) -> Sequence[str]:
        settled = await settle.settle_batch(self._ports, self._committing, deliveries)
        _count(rail, settled)
        for delivery, error in settled.unusable:
            fields: dict[Any, Any] = {
                "v": "1",
                "id": delivery.entry_id,
                "type": RESULT_TYPE,
                "body": delivery.body,
                "error": error,
            }
            try:
                await self._servers.of(rail).xadd(results_dlq_stream(rail), fields, maxlen=10_000, approximate=True)
            except RedisError as refused:
                # PostgreSQL holds it: a mirror that cannot be written must not hold up the verdicts behind it.
                log.warning("an unusable result of %s is not mirrored: %s", rail, type(refused).__name__)
        return [delivery.entry_id for delivery in settled.acked]

    @asynccontextmanager
    async def _committing(self) -> AsyncIterator[Any]:
        async with self._unit_of_work() as uow:
            yield uow
            failpoint("settler.before_commit")


class DeadLettersReceiver:
    """Keeps dead letters in PostgreSQL; an entry that is no dead letter is kept as one, raw.

    What an adapter gave up only because nobody reads its schema version yet is no dead letter: it is parked.
    """

    def __init__(self, store: dead_letters.Letters, parking: ParkingStore, unit_of_work: UnitOfWorkFactory) -> None:
        self._store, self._parking, self._unit_of_work = store, parking, unit_of_work

    async def __call__(self, rail: str, deliveries: Sequence[Delivery]) -> Sequence[str]:
        """Return the entry ids that may be acked: all, once they are committed."""
        letters, parked = [], []
        for each in deliveries:
            entry = _parked(rail, each)
            if entry is None:
                letter = _letter(rail, each)
                entry = _parked_by_adapter(letter)
                if entry is None:
                    letters.append(letter)
                    continue
            parked.append(entry)
        async with self._unit_of_work() as uow:
            await self._parking.keep_parked(uow, parked)
            await dead_letters.receive(uow, self._store, letters)
        DEAD_LETTERS.labels(rail).inc(len(letters))
        return [each.entry_id for each in deliveries]


def _count(rail: str, settled: settle.Settled) -> None:
    for verdict, count in Counter(each.result.verdict for each in settled.acked if each.result is not None).items():
        VERDICTS.labels(rail, verdict).inc(count)
    for ended in settled.ended:
        PAYMENT_SECONDS.labels(ended.rail, ended.outcome).observe(ended.age_s)
    if settled.unusable:
        UNUSABLE.labels(rail).inc(len(settled.unusable))


def _traced(deliveries: Sequence[Delivery]) -> list[Traced]:
    """Begin a span for each verdict; what raises before its end is tried again, and told by that trial."""
    if not is_on():
        return []
    envelopes = [each.envelope for each in deliveries if each.envelope is not None]
    told = [{"job_id": each.id} for each in envelopes]
    return begin_each("settle", "CONSUMER", [each.traceparent for each in envelopes], told)


def read_result(rail: str, stream: str, entry_id: str, body: str, deliveries: int) -> settle.Delivery:
    """Return a result as it is settled; one that is none says so."""
    result, error = None, ""
    try:
        result = _RESULT.validate_json(body)
    except ValidationError:
        error = "unparseable"
    return settle.Delivery(rail, stream, entry_id, body, deliveries, result, error)


def _cut_off(delivery: Delivery) -> str | None:
    """Return the name of the adapter whose entry says that it does not reach the core; None for any other entry."""
    if delivery.envelope is None or delivery.envelope.type != RAIL_CUT_OFF_TYPE:
        return None
    try:
        return RailCutOff.model_validate_json(delivery.envelope.body).consumer
    except ValidationError:
        return None


def _result(rail: str, delivery: Delivery) -> settle.Delivery:
    envelope = delivery.envelope
    if envelope is None or envelope.type != RESULT_TYPE:
        body = envelope.body if envelope is not None else delivery.raw
        return settle.Delivery(
            rail, delivery.stream, delivery.entry_id, body, delivery.deliveries, None, "not_a_result"
        )
    return read_result(rail, delivery.stream, delivery.entry_id, envelope.body, delivery.deliveries)


def _letter(rail: str, delivery: Delivery) -> DeadLetter:
    envelope = delivery.envelope
    if envelope is not None and envelope.type == DEAD_LETTER_TYPE:
        try:
            letter = _DEAD_LETTER.validate_json(envelope.body)
        except ValidationError:
            pass
        else:
            # An adapter speaks for its own rail alone: what names another's streams or jobs is not believed.
            if letter.rail == rail and _whole(letter.stream) in (jobs_stream(rail), control_stream(rail)):
                return letter
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


def _whole(stream: str) -> str:
    try:
        return whole_stream(stream)
    except ValueError:
        return ""


def _parked(rail: str, delivery: Delivery) -> Parked | None:
    """Return an entry of the core's own streams that only a newer core can read."""
    if not isinstance(delivery.error, UnknownVersionError):
        return None
    version = delivery.error.version
    return Parked(rail, delivery.stream, delivery.entry_id, None, version, delivery.raw)


def _parked_by_adapter(letter: DeadLetter) -> Parked | None:
    """Return the entry that an adapter could not read, if it is one indeed; its job is what its id names."""
    if letter.error_class != UNKNOWN_VERSION:
        return None
    try:
        fields = raw_fields(letter.body)
        return Parked(letter.rail, letter.stream, letter.entry_id, _uuid(fields), version_of(fields), letter.body)
    except ValueError:
        return None


def _uuid(fields: Mapping[bytes, bytes]) -> UUID | None:
    try:
        return UUID(fields.get(b"id", b"").decode())
    except ValueError:
        return None
