"""The healer: groups, functions and the epoch token, put back within a second of any loss. Only the core heals."""

import logging
import secrets

from redis.asyncio import Redis

from core.services.settling.bus_ports import DispatchStore
from wire import functions

log = logging.getLogger(__name__)


def epoch_key(rail: str) -> str:
    """Return the key of the token by which a wiped server is told from the one that we know."""
    return f"{{{rail}}}:epoch"


async def heal_rail(client: Redis, store: DispatchStore, rail: str) -> bool:
    """Make one rail flow again; True where the server had lost what we wrote.

    The epoch rises before the token is written: a crash between the two raises it once more, which only makes
    the sweeper look again.
    """
    known = await store.stream_token(rail)
    # A rail that was never there lacks everything, and nobody has to know; one that lost it does.
    level = logging.INFO if known is None else logging.WARNING
    if await functions.load_functions(client):
        log.log(level, "functions loaded")
    created = await functions.ensure_groups(client, rail)
    if created:
        log.log(level, "groups created on %s", ", ".join(created))
    held: bytes | None = await client.get(epoch_key(rail))  # type: ignore[assignment] # answers are bytes
    if held is not None and known is not None and held.decode() == known:
        return False
    token = await store.raise_stream_epoch(rail, known, secrets.token_hex(8))
    await client.set(epoch_key(rail), token)
    log.log(level, "stream epoch of %s raised", rail)
    return True
