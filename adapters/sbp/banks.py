"""The list of banks: fetched at run time, kept, refreshed behind the payments' backs; an old one beats none."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from prometheus_client import Gauge

from adapters.runtime import errors
from adapters.sbp.models import Bank

log = logging.getLogger(__name__)

_FETCHED_AT: Final = Gauge(
    "fleet_sbp_banks_fetched_timestamp_seconds", "When the list of banks was fetched; its age is now minus this."
)


class BankList:
    """Finds a bank by its member id of 12 digits or its alias. Durations are seconds."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Sequence[Bank]]],
        *,
        fresh_s: float,
        retry_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch, self._fresh_s, self._retry_s, self._clock_s = fetch, fresh_s, retry_s, clock_s
        self._banks: dict[str, Bank] = {}
        self._fetched_s: float | None = None
        self._tried_s: float | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def age_s(self) -> float | None:
        """Return how old the list is; None where there is none yet."""
        return None if self._fetched_s is None else self._clock_s() - self._fetched_s

    async def find(self, name: str) -> Bank:
        """Return the bank. A list that is there is served whatever its age.

        Raises Rejected `payee_bank_unknown` where a list lacks the bank, NotSent where there is no list.
        """
        age_s = self.age_s
        if age_s is None:
            await self._refreshed()
        elif age_s >= self._fresh_s:
            self._refresh()
        bank = self._banks.get(name)
        if bank is None and (self._is_running() or self._may_ask()):
            # It may have joined since: the list is asked for once more before a payment is refused for good.
            await self._refreshed()
            bank = self._banks.get(name)
        if bank is None:
            raise errors.Rejected("payee_bank_unknown", "the payee's bank is not on the list of members")
        return bank

    async def close(self) -> None:
        """End a fetch that is under way."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def _may_ask(self) -> bool:
        return self._tried_s is None or self._clock_s() - self._tried_s >= self._retry_s

    def _is_running(self) -> bool:
        return self._running is not None and not self._running.done()

    def _refresh(self) -> asyncio.Task[None] | None:
        """Start a fetch, at most one at a time and not too often; return the one that runs."""
        if not self._is_running() and self._may_ask():
            self._tried_s = self._clock_s()
            self._running = asyncio.create_task(self._replace())
        return self._running

    async def _refreshed(self) -> None:
        running = self._refresh()
        if running is not None:
            # One caller's deadline must not end the fetch that others wait for.
            await asyncio.shield(running)
        if self._fetched_s is None:
            raise errors.NotSent("the list of banks is not to be had", reason="bank_list_missing")

    async def _replace(self) -> None:
        try:
            banks = await self._fetch()
        except Exception as error:  # noqa: BLE001 - whatever a fetch raises, the list from before stays
            log.warning("the list of banks was not fetched, its age is %s s: %s", self.age_s, error)
            return
        if not banks:
            log.warning("the list of banks came empty: the one from before stays, its age is %s s", self.age_s)
            return
        self._banks = {name: bank for bank in banks for name in (bank.member_id, bank.alias)}
        self._fetched_s = self._clock_s()
        _FETCHED_AT.set_to_current_time()
