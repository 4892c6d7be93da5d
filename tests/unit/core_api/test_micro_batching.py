"""Back-pressure makes batches; a neighbour's fault is nobody else's."""

import asyncio
from collections.abc import Sequence

import pytest

from core.domain.intents import ALLOWED, may_move
from core.services.payments.micro_batch import MicroBatcher
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


async def test_a_few_share_the_next_run_and_many_start_another_beside_it() -> None:
    runs: list[int] = []
    gates = [asyncio.Event() for _ in range(3)]

    async def run(items: Sequence[int]) -> list[int]:
        runs.append(len(items))
        await gates[len(runs) - 1].wait()
        return list(items)

    batcher = MicroBatcher[int, int](run, limit=10, in_flight=2, worth=5)
    asked = [asyncio.create_task(batcher.submit(0))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asked += [asyncio.create_task(batcher.submit(n)) for n in range(4)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert runs == [1]
    asked += [asyncio.create_task(batcher.submit(4))]
    for _ in range(5):
        await asyncio.sleep(0)
    assert runs == [1, 5]
    for gate in gates:
        gate.set()
    assert await asyncio.gather(*asked) == [0, 0, 1, 2, 3, 4]


async def test_a_run_that_hangs_holds_up_nobody_for_long() -> None:
    hangs = asyncio.Event()

    async def run(items: Sequence[int]) -> list[int]:
        if 0 in items:
            await hangs.wait()
        return list(items)

    batcher = MicroBatcher[int, int](run, limit=10, in_flight=2, worth=100)
    first = asyncio.create_task(batcher.submit(0))
    await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        assert await batcher.submit(1) == 1
    hangs.set()
    assert await first == 0


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
