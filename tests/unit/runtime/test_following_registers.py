"""Registers are fetched day by day: what is wrong with one keeps no other day's waiting, and ends nothing."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime
from typing import Any, cast
from uuid import UUID

import pytest

from adapters.runtime import errors
from adapters.runtime.core_client import CoreClient
from adapters.runtime.registers import follow_registers
from adapters.sbp.models import RegisterItem
from adapters.sbp.registers import line_of
from schemas.registers import RegisterFile, RegisterLine, RegistersWanted, RegisterWanted

ODD, FINE = date(2026, 11, 19), date(2026, 11, 20)


class Rail:
    """Has one day that cannot be read."""

    def __init__(self, fault: Exception) -> None:
        self.fault = fault
        self.asked: list[date] = []

    async def register(self, day: date) -> AsyncIterator[Sequence[RegisterLine]]:
        self.asked.append(day)
        if day == ODD:
            raise self.fault
        yield []


class Core:
    """Wants both days, again and again."""

    incarnation = UUID(int=2)

    async def ask(self, path: str, body: bytes) -> bytes:
        await asyncio.sleep(0)
        if path.endswith("/wanted"):
            days = [
                RegisterWanted(provider_account="a", environment="sandbox", business_day=day) for day in (ODD, FINE)
            ]
            return RegistersWanted(days=days).model_dump_json().encode()
        return RegisterFile.model_construct(file_id=UUID(int=1)).model_dump_json().encode()


@pytest.mark.parametrize("fault", [ValueError("nobody foresaw this"), errors.ProtocolViolation("an odd line")])
async def test_a_day_that_cannot_be_read_keeps_no_other_day_waiting(fault: Exception) -> None:
    rail = Rail(fault)
    following = asyncio.create_task(follow_registers(cast("CoreClient", Core()), cast("Any", rail), 0.001))
    async with asyncio.timeout(10):
        while rail.asked.count(FINE) < 2:  # noqa: ASYNC110 - the follower tells nobody
            await asyncio.sleep(0.001)
    assert not following.done()
    following.cancel()


@pytest.mark.parametrize("odd", [{"reference": "R" * 300}, {"line": 0}, {"type": "NEWS"}, {"amount": "1e99"}])
def test_an_odd_line_of_qp_is_a_violation_and_no_other_error(odd: dict[str, Any]) -> None:
    at = datetime(2026, 11, 20, tzinfo=UTC)
    told = {
        "line": 1,
        "transactionId": "T",
        "reference": "R",
        "type": "PAYOUT",
        "status": "COMPLETED",
        "amount": "1.50",
        "fee": "0",
        "date": at,
    }
    with pytest.raises(errors.ProtocolViolation):
        line_of(RegisterItem.model_validate(told | odd))
    assert line_of(RegisterItem.model_validate(told)).amount_minor == 150
