"""Reads that may be a little old, on a standby where one is named; on the primary where it is away or behind."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from core.domain.context import Context
from core.store.database import AWAY, Database
from core.store.unit_of_work import UnitOfWork

log = logging.getLogger(__name__)

_AVOIDED_S: Final = 5.0
"""How long the primary is read after the standby failed: nobody waits for its time-out again and again."""
# What was replayed last is old where nothing happens, too: then everything that came was replayed, if any comes at all.
_BEHIND_S: Final = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN 0
    WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0
    ELSE coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 1e9) END::float8
"""


class Replica:
    """A standby beside its primary. Histories, lists, statements and reports are read here; nothing that decides."""

    def __init__(self, primary: Database, standby: Database, behind_max_s: float) -> None:
        """Reads go to the primary where the standby's replay is behind by more than `behind_max_s` seconds."""
        self._primary, self._standby, self._behind_max_s = primary, standby, behind_max_s
        self._avoided_until_s = 0.0

    @asynccontextmanager
    async def unit_of_work(self, context: Context) -> AsyncIterator[UnitOfWork]:
        """Open a transaction that only reads. What fails once it is open fails as on the primary."""
        if await self._is_usable():
            async with self._standby.unit_of_work(context) as uow:
                yield uow
        else:
            async with self._primary.unit_of_work(context) as uow:
                yield uow

    async def _is_usable(self) -> bool:
        if time.monotonic() < self._avoided_until_s:
            return False
        try:
            async with self._standby.acquire() as connection:
                behind_s = await connection.fetchval(_BEHIND_S, timeout=2)
        except AWAY as error:
            self._avoid(type(error).__name__)
            return False
        if behind_s > self._behind_max_s:
            self._avoid(f"it is {behind_s:.0f} s behind")
            return False
        return True

    def _avoid(self, why: str) -> None:
        self._avoided_until_s = time.monotonic() + _AVOIDED_S
        log.warning("the primary is read instead of the standby: %s", why)
