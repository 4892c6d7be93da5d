"""Every process is killed at every step while payments flow; nothing is lost, paid twice or voided though paid."""

import re

import pytest

from tests.chaos.conftest import CANARY, Fleet, check

STEPS = [
    "api.before_commit",
    "api.after_commit",
    "relay.before_xadd",
    "relay.after_xadd",
    "permits.before_commit",
    "permits.after_commit",
    "adapter.before_permit",
    "adapter.after_permit",
    "adapter.during_call",
    "adapter.after_call",
    "adapter.after_publish",
    "settler.before_commit",
    "settler.after_commit",
    "resolver.before_commit",
]


@pytest.mark.timeout(150)
@pytest.mark.parametrize("step", STEPS)
async def test_a_kill_at_any_step_loses_nothing_and_pays_nothing_twice(fleet: Fleet, step: str) -> None:
    restarts = fleet.stack.supervisor.restarts.total()
    fleet.stack.arm(step)
    refused = step.startswith("resolver")  # its work is what is in doubt
    run = await fleet.pay(40, refused=refused)
    assert await fleet.until_struck(step), f"{step} was never reached: the test would prove nothing"
    assert fleet.stack.supervisor.restarts.total() > restarts
    await check(fleet, run, 40, refused=refused)


@pytest.mark.timeout(150)
@pytest.mark.parametrize("step", ["adapter.after_permit", "adapter.during_call", "adapter.after_call"])
async def test_a_kill_of_the_sbp_adapter_in_the_middle_of_payouts_pays_each_once(fleet: Fleet, step: str) -> None:
    fleet.stack.arm(step)
    run = await fleet.send(fleet.rouble_payments(20))
    assert await fleet.until_struck(step), f"{step} was never reached: the test would prove nothing"
    await check(fleet, run, 20)
    assert (await fleet.proof()).by_rail["sbp"].payments >= 20


async def test_no_log_names_a_payee_or_a_message_whatever_was_killed(fleet: Fleet) -> None:
    await check(fleet, await fleet.pay(10), 10)
    logs = {name: fleet.stack.supervisor.log(name).read_text() for name in fleet.stack.supervisor.pids()}
    assert {name for name, text in logs.items() if text} >= {"core-api", "core-worker"}
    for name, text in logs.items():
        assert CANARY not in text, name
        assert re.search(r"(?<![0-9a-zA-Z-])(?:08\d{8}|79\d{9})(?![0-9a-zA-Z-])", text) is None, name
