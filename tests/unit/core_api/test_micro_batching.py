"""Back-pressure makes batches; a neighbour's fault is nobody else's."""

import asyncio
from collections.abc import Sequence

import pytest

from core.domain.intents import ALLOWED, may_move
from core.services.micro_batch import MicroBatcher
from schemas.events import TERMINAL_STATES, IntentState


async def test_arrivals_during_a_run_share_the_next_one() -> None:
    runs: list[int] = []
    gate = asyncio.Event()

    async def run(items: Sequence[int]) -> list[int]:
        runs.append(len(items))
        await gate.wait()
        return [item * 2 for item in items]

    batcher = MicroBatcher[int, int](run, limit=10, in_flight=1)
    first = asyncio.create_task(batcher.submit(0))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(batcher.submit(n)) for n in range(1, 16)]
    await asyncio.sleep(0.01)
    gate.set()
    assert await first == 0
    assert await asyncio.gather(*others) == [n * 2 for n in range(1, 16)]
    assert runs == [1, 10, 5]


async def test_one_bad_item_fails_alone_and_a_shared_fault_is_not_repeated() -> None:
    runs: list[int] = []

    async def run(items: Sequence[int]) -> list[int]:
        runs.append(len(items))
        if 13 in items:
            raise ValueError("13")
        if 99 in items:
            raise OSError("away")
        return list(items)

    batcher = MicroBatcher[int, int](run, limit=10, in_flight=1)
    answers = await asyncio.gather(*(batcher.submit(n) for n in (1, 13, 2)), return_exceptions=True)
    assert (answers[0], answers[2]) == (1, 2)
    assert isinstance(answers[1], ValueError)
    runs.clear()
    away = await asyncio.gather(*(batcher.submit(n) for n in (1, 99)), return_exceptions=True)
    assert [type(answer) for answer in away] == [OSError, OSError]
    assert runs == [2]


@pytest.mark.parametrize("end", sorted(TERMINAL_STATES))
def test_no_terminal_state_is_ever_left(end: IntentState) -> None:
    assert not any(may_move(end, target) for target in ALLOWED)
