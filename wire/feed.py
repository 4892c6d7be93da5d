"""FastStream's part: every batch, however it was read, goes through one batch subscriber and its middlewares."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Any, Self

from faststream import AckPolicy
from faststream._internal.endpoint.subscriber import SubscriberUsecase
from faststream.redis import RedisBroker, StreamSub
from faststream.redis.message import BatchStreamMessage, RedisBatchStreamMessage
from faststream.redis.prometheus import RedisPrometheusMiddleware
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from wire.tracing import is_on, stream_middlewares

log = logging.getLogger(__name__)

Entry = tuple[bytes, Mapping[bytes, bytes]]


@cache
def _metrics() -> RedisPrometheusMiddleware:
    # One for the process: a registry takes each metric once, and a worker has two lanes.
    return RedisPrometheusMiddleware(registry=REGISTRY)


class _AsItIs(StreamSub):
    """A stream under its own name: FastStream copies the description deeply for every batch, to put a broker's prefix
    before the name, and ours has none. That was a quarter of what it takes for a batch.
    """

    def add_prefix(self, _: str) -> Self:
        return self


class BatchFeed:
    """Hands batches to `handle` by a FastStream subscriber. It reads nothing itself and creates no group.

    What `parse` makes of the entries and their delivery counts is what `handle` gets. FastStream logs an exception
    of either and goes on; nothing is acked, so the entries stay pending.
    """

    def __init__(
        self,
        client: Redis,
        stream: str,
        group: str,
        consumer: str,
        max_records: int,
        parse: Callable[[Sequence[Entry], Sequence[int]], list[Any]],
        handle: Callable[[list[Any]], Awaitable[None]],
    ) -> None:
        self._stream = stream
        acker: Any = client
        self._opening = asyncio.Lock()
        # Its own pool never opens a connection: every command goes through the consumer's client.
        self.broker = RedisBroker(
            apply_types=False, middlewares=[_metrics(), *stream_middlewares()], logger=log, log_level=logging.DEBUG
        )

        async def parse_raw(message: Any) -> RedisBatchStreamMessage:
            entries = list(zip(message["message_ids"], message["data"], strict=True))
            body: Any = parse(entries, message["delivery_counts"])
            first = message["message_ids"][0].decode()
            return RedisBatchStreamMessage(
                raw_message=message,
                body=body,
                batch_headers=_parents(entries) if is_on() else [],
                message_id=first,
                correlation_id=first,
                group=group,
                consumer=acker,
            )

        async def as_parsed(message: Any) -> Any:
            return message.body

        async def receive(batch: list[Any]) -> None:
            await handle(batch)

        receive.__name__ = f"handle_{group}"
        sub = _AsItIs(stream, group=group, consumer=consumer, batch=True, max_records=max_records)
        self._subscriber = self.broker.subscriber(
            stream=sub, parser=parse_raw, decoder=as_parsed, ack_policy=AckPolicy.MANUAL, no_reply=True
        )
        self._subscriber(receive)

    async def open(self) -> None:
        """Make the subscriber take batches. Repeating it is harmless."""
        async with self._opening:
            if self._subscriber.running:
                return
            await self.broker.connect()
            # The stream subscriber's own start would create the group and read: an adapter may not do the first.
            await SubscriberUsecase.start(self._subscriber)
            self._subscriber.running = True

    async def consume(self, entries: Sequence[Entry], delivery_counts: Sequence[int]) -> None:
        """Pass one batch through the middlewares, the parser and the handler."""
        message = BatchStreamMessage(
            type="bstream",
            channel=self._stream,
            data=[fields for _, fields in entries],  # type: ignore[misc]  # read only, so not copied
            message_ids=[entry for entry, _ in entries],
        )
        message["delivery_counts"] = list(delivery_counts)
        await self._subscriber.consume(message)

    async def close(self) -> None:
        """Wait for batches in the middlewares and end the broker."""
        await self.broker.stop()


def _parents(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """Return what FastStream links its span of a batch by: the spans that sent the entries."""
    return [
        {"correlation_id": entry.decode(), "traceparent": parent.decode(errors="replace")}
        for entry, fields in entries
        if (parent := fields.get(b"traceparent"))
    ]
