"""Whose turn it is: tenants share a lane's slots, however many jobs one of them has waiting. Pure."""

import heapq
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")
Owner = TypeVar("Owner", bound=Hashable)


def in_turn(waiting: Sequence[T], whose: Callable[[T], Owner], running: Mapping[Owner, int]) -> Sequence[T]:
    """Return what waits in the order in which slots are given: always to who has the fewest, then to who came first."""
    queues: dict[Owner, deque[T]] = {}
    for each in waiting:
        queues.setdefault(whose(each), deque()).append(each)
    if len(queues) < 2:
        return waiting
    order: list[T] = []
    turns = [(running.get(owner, 0), at, owner) for at, owner in enumerate(queues)]
    heapq.heapify(turns)
    while turns:
        slots, at, owner = turns[0]
        order.append(queues[owner].popleft())
        if queues[owner]:
            heapq.heapreplace(turns, (slots + 1, at, owner))
        else:
            heapq.heappop(turns)
    return order
