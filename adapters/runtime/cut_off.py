"""Tells the core through Redis that it cannot be reached: what nobody can ask a permit for must not expire over it."""

import asyncio
import logging
import uuid
from typing import Final, Protocol

from redis.exceptions import RedisError

from schemas.envelope import Envelope
from schemas.rails import RAIL_CUT_OFF_TYPE, RailCutOff
from schemas.streams import results_stream
from wire.client import StreamServers

log = logging.getLogger(__name__)

EVERY_S: Final = 1.0


class Reached(Protocol):
    """Who knows whether the core answers."""

    @property
    def is_cut_off(self) -> bool:
        """Whether the last that was asked of the core was not answered."""
        ...


async def tell_cut_off(core: Reached, servers: StreamServers, rail: str, consumer: str) -> None:
    """Say so while the core does not answer, until cancelled. Where Redis is away, too, the core sees that itself."""
    body = RailCutOff(consumer=consumer).model_dump_json()
    while True:
        await asyncio.sleep(EVERY_S)
        if not core.is_cut_off:
            continue
        envelope = Envelope(str(uuid.uuid4()), RAIL_CUT_OFF_TYPE, body)
        try:
            await servers.of(rail).xadd(results_stream(rail), dict(envelope.to_fields().items()))
        except (RedisError, OSError) as error:
            log.warning("the core was not told that it cannot be reached: %s", type(error).__name__)
