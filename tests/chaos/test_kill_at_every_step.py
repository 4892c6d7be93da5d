"""Every process is killed at every step while payments flow; nothing is lost, paid twice or voided though paid."""

import json
import re
from uuid import UUID

import pytest

from fleet.webhooks import verify_webhook
from schemas.events import IntentState
from schemas.webhooks import WebhookEndpointRequest
from tests.chaos.conftest import CANARY, Fleet, check
from tests.support.receiver import receiving
from tests.support.selection import mostly_long
from tests.support.waiting import until

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
@pytest.mark.parametrize(
    "step", mostly_long(STEPS, "api.after_commit", "relay.after_xadd", "adapter.after_call", "settler.before_commit")
)
async def test_a_kill_at_any_step_loses_nothing_and_pays_nothing_twice(fleet: Fleet, step: str) -> None:
    restarts = fleet.stack.supervisor.restarts.total()
    fleet.stack.arm(step)
    refused = step.startswith("resolver")  # its work is what is in doubt
    run = await fleet.pay(40, refused=refused)
    assert await fleet.until_struck(step), f"{step} was never reached: the test would prove nothing"
    assert fleet.stack.supervisor.restarts.total() > restarts
    await check(fleet, run, 40, refused=refused)


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    "step", mostly_long(["adapter.after_permit", "adapter.during_call", "adapter.after_call"], "adapter.during_call")
)
async def test_a_kill_of_the_sbp_adapter_in_the_middle_of_payouts_pays_each_once(fleet: Fleet, step: str) -> None:
    fleet.stack.arm(step)
    run = await fleet.send(fleet.rouble_payments(20))
    assert await fleet.until_struck(step), f"{step} was never reached: the test would prove nothing"
    await fleet.until_decided(run, timeout_s=15)
    proof = await fleet.proof()
    assert proof.holds, proof
    assert (len(run.accepted), run.refused) == (20, [])
    # A call that a slow machine cut before it reached QP is parked, held, until its check runs out: QP has no cancel.
    assert run.ends["SETTLED"] + run.ends["UNRESOLVED"] == 20, run
    assert run.ends["SETTLED"] >= 15, run
    assert proof.by_rail["sbp"].payments >= run.ends["SETTLED"]


@pytest.mark.timeout(150)
@pytest.mark.parametrize("step", mostly_long(["notifier.before_send", "notifier.before_keep"], "notifier.before_keep"))
async def test_a_kill_loses_no_webhook_and_what_comes_twice_has_one_id(fleet: Fleet, step: str) -> None:
    """Between the commit and the webhook, and between the webhook and the note that it was taken."""
    async with receiving() as receiver:
        made = await fleet.client.create_webhook_endpoint(
            WebhookEndpointRequest(url=receiver.url, event_types=["settled"])
        )
        restarts = fleet.stack.supervisor.restarts.total()
        fleet.stack.arm(step)
        run = await fleet.pay(6)
        assert await fleet.until_struck(step), f"{step} was never reached: the test would prove nothing"
        assert run.ends["SETTLED"] == 6, run

        def told() -> set[UUID]:
            return {UUID(each.message["data"]["intent_id"]) for each in receiver.received}

        # What filled the wallets of a new stack is told as well.
        await until(lambda: told() >= set(run.accepted), 60)
        assert fleet.stack.supervisor.restarts.total() > restarts
        by_intent: dict[UUID, set[str]] = {}
        for each in receiver.received:
            message = verify_webhook([made.secret], each.headers, each.body)
            assert message.data is not None
            assert message.data.state is IntentState.SETTLED
            by_intent.setdefault(message.data.intent_id, set()).add(each.headers["webhook-id"])
        assert all(len(ids) == 1 for ids in by_intent.values()), "once or more, under one id"
        await fleet.client.delete_webhook_endpoint(made.endpoint.id)


async def test_no_log_names_a_payee_or_a_message_whatever_was_killed(fleet: Fleet) -> None:
    await check(fleet, await fleet.pay(10), 10)
    logs = {name: fleet.stack.supervisor.log(name).read_text() for name in fleet.stack.supervisor.pids()}
    assert {name for name, text in logs.items() if text} >= {"core-api", "core-worker"}
    kept = [json.loads((fleet.stack.home / file).read_text()) for file in ("secrets.json", "keys.json")]
    secrets = [*kept[0].values(), *(key["secret"] for key in kept[1].values())]
    assert len(secrets) >= 5
    for name, text in logs.items():
        assert CANARY not in text, name
        assert not [secret[:3] for secret in secrets if secret in text], name
        assert re.search(r"(?<![0-9a-zA-Z-])(?:08\d{8}|79\d{9})(?![0-9a-zA-Z-])", text) is None, name
