"""`fleet intents ask` on a payment whose answer was lost: the provider is asked at once, and its answer decides."""

from datetime import timedelta
from typing import Any

import pytest

from fleet.cli.output import ExitCode
from fleet.stack.provision import RoleUrls
from tests.integration.permits.conftest import World, pay_job
from tests.support.commands import SETTINGS, Fleet, fleet_command

PAID: dict[str, Any] = {"amount_minor": 100, "currency": "THB", "provider_tx_id": "T1"}


@pytest.fixture
def fleet(fresh_database: RoleUrls, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """The command of a person on call, at the world's database."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_WORKER_URL", fresh_database.worker)
    return fleet_command(capsys, monkeypatch)


async def test_an_unresolved_payment_is_asked_about_at_once_and_settles_by_the_answer(
    world: World, fleet: Fleet
) -> None:
    await world.register(inquiry=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.tell(pay_job(intent), "UNKNOWN")
    await world.pass_time(10_000)
    await world.resolve()
    assert (await world.state(intent))[0] == "UNRESOLVED"
    await world.admin.execute(
        "UPDATE fleet.jobs SET next_check_at = now() + $1 WHERE intent_id = $2", timedelta(hours=1), intent
    )
    await world.resolve()
    questions = "SELECT count(*) FROM fleet.jobs WHERE intent_id = $1 AND kind = 'inquire'"
    before = await world.admin.fetchval(questions, intent)

    asked = await fleet("intents", "ask", str(intent))

    assert (asked.code, asked.out, asked.err) == (ExitCode.DONE, "the provider is asked\n", "")
    await world.resolve()
    assert await world.admin.fetchval(questions, intent) == before + 1, "without waiting for the hour"
    newest = await world.admin.fetchval(
        "SELECT id FROM fleet.jobs WHERE intent_id = $1 AND kind = 'inquire' ORDER BY created_at DESC, id DESC LIMIT 1",
        intent,
    )
    await world.tell(newest, "SUCCEEDED", kind="inquire", fence=0, basis="REFERENCE_STATUS", **PAID)
    assert (await world.state(intent))[0] == "SETTLED"
    assert await world.money(wallet) == (900, 0)
    await world.prove()
    (await fleet("intents", "ask", str(intent))).must_fail(ExitCode.REFUSED, "nothing_to_ask")
