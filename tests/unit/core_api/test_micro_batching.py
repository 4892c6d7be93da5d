"""Back-pressure makes batches; a neighbour's fault is nobody else's."""

import asyncio
from collections.abc import Sequence

import pytest

from core.domain.intents import ALLOWED, may_move
from core.services.payments import micro_batch
from core.services.payments.micro_batch import MicroBatcher
from schemas.events import TERMINAL_STATES, IntentState
from tests.support.waiting import PATIENCE_S


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
    async with asyncio.timeout(PATIENCE_S):
        assert await batcher.submit(1) == 1
    hangs.set()
    assert await first == 0


class _Runs:
    """Runs that end one by one, when they are told to; each keeps how many items it had."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._gates: list[asyncio.Event] = []

    async def run(self, items: Sequence[int]) -> list[int]:
        self.sizes.append(len(items))
        self._gates.append(asyncio.Event())
        await self._gates[-1].wait()
        return list(items)

    async def end(self) -> None:
        """End the latest run, and let those whom it answered go on."""
        self._gates[-1].set()
        await _turns()


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


_Asked = list[asyncio.Task[int]]


async def _one_run_under_way(running: int, waiting: int) -> tuple[MicroBatcher[int, int], _Runs, _Asked]:
    """Start a batcher whose first run has the numbers up to `running`; so many more wait for the next one."""
    runs = _Runs()
    batcher = MicroBatcher[int, int](runs.run, limit=100, in_flight=2, worth=50)
    asked = [asyncio.create_task(batcher.submit(number)) for number in range(running)]
    await _turns()
    asked += [asyncio.create_task(batcher.submit(number)) for number in range(running, running + waiting)]
    await _turns()
    return batcher, runs, asked


async def test_those_who_were_just_answered_come_back_into_the_run_of_those_who_waited() -> None:
    runs = _Runs()
    batcher = MicroBatcher[int, int](runs.run, limit=100, in_flight=2, worth=50)

    async def client(number: int) -> None:
        for _ in range(3):
            assert await batcher.submit(number) == number
            # Its next request is not there at once: one turn of the loop sends the answer, another brings it.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    clients = [asyncio.create_task(client(number)) for number in range(10)]
    await _turns()
    clients += [asyncio.create_task(client(number)) for number in range(10, 20)]
    await _turns()
    while not all(each.done() for each in clients):
        await runs.end()
        await asyncio.sleep(0)
    assert runs.sizes == [10, 20, 20, 10]


async def test_those_who_are_back_go_without_who_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batch, "_PATIENCE_S", 60)
    batcher, runs, asked = await _one_run_under_way(8, 1)
    await runs.end()
    assert runs.sizes == [8]
    asked += [asyncio.create_task(batcher.submit(9))]
    async with asyncio.timeout(5):
        while len(runs.sizes) < 2:  # noqa: ASYNC110 - bounded above
            await asyncio.sleep(0.001)
    await runs.end()
    assert await asyncio.gather(*asked) == list(range(10))
    assert runs.sizes == [8, 2]


async def test_nobody_waits_for_a_few_who_were_answered_however_many_wait() -> None:
    _, runs, asked = await _one_run_under_way(7, 33)
    await runs.end()
    assert runs.sizes == [7, 33]
    await runs.end()
    assert await asyncio.gather(*asked) == list(range(40))


async def test_a_few_who_came_during_a_run_wait_as_long_again_and_share_the_next_with_who_comes_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(micro_batch, "_PATIENCE_S", 60)
    monkeypatch.setattr(micro_batch, "_REST_LONGEST_S", 60)
    batcher, runs, asked = await _one_run_under_way(1, 1)
    await asyncio.sleep(0.2)
    ended_s = asyncio.get_running_loop().time()
    await runs.end()
    asked += [asyncio.create_task(batcher.submit(2))]
    await _turns()
    assert runs.sizes == [1]
    async with asyncio.timeout(PATIENCE_S):
        while len(runs.sizes) < 2:  # noqa: ASYNC110 - bounded above
            await asyncio.sleep(0.001)
    assert asyncio.get_running_loop().time() - ended_s >= 0.2
    await runs.end()
    assert await asyncio.gather(*asked) == [0, 1, 2]
    assert runs.sizes == [1, 2]


async def test_the_rest_is_over_once_several_wait_and_who_comes_while_nothing_is_run_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(micro_batch, "_PATIENCE_S", 60)
    monkeypatch.setattr(micro_batch, "_REST_LONGEST_S", 60)
    monkeypatch.setattr(micro_batch, "_RETURN_S", 0)
    batcher, runs, asked = await _one_run_under_way(1, 1)
    await asyncio.sleep(2)
    await runs.end()
    began_s = asyncio.get_running_loop().time()
    asked += [asyncio.create_task(batcher.submit(number)) for number in range(2, 9)]
    await _turns()
    assert runs.sizes == [1, 8]
    await runs.end()
    await asyncio.sleep(0.01)
    asked += [asyncio.create_task(batcher.submit(9))]
    await _turns()
    assert runs.sizes == [1, 8, 1]
    assert asyncio.get_running_loop().time() - began_s < 2, "too slow to tell"
    await runs.end()
    assert await asyncio.gather(*asked) == list(range(10))


async def test_the_patience_of_one_who_was_served_starts_no_second_run_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batch, "_PATIENCE_S", 1)
    monkeypatch.setattr(micro_batch, "_REST_LONGEST_S", 0)
    batcher, runs, asked = await _one_run_under_way(1, 1)
    await asyncio.sleep(0.6)
    await runs.end()
    await asyncio.sleep(0.01)
    asked += [asyncio.create_task(batcher.submit(2))]
    await asyncio.sleep(0.6)
    assert runs.sizes == [1, 1]
    await runs.end()
    await runs.end()
    assert await asyncio.gather(*asked) == [0, 1, 2]


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
