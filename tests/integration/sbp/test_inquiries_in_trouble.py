"""What a payout comes to whose provider answers inquiries badly: a real core, the real rail, a real process.

The answer to the payout itself is lost each time, so that only inquiries tell. None that fails ends anything.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import orjson
import pytest

from adapters.runtime.execution import Executor
from adapters.runtime.http import provider_client
from adapters.runtime.messages import result_of
from adapters.runtime.timing import clock_s
from adapters.sbp.adapter import RAIL, SbpRail
from adapters.sbp.client import QpClient, read_json
from adapters.sbp.settings import SbpSettings
from core.api.internal import InternalPorts
from core.services.settling.permits import grant_permits
from core.services.settling.rails import register
from core.services.settling.resolve import resolve_due
from core.services.settling.settle import Delivery, settle_batch
from core.store.settling import attempts, rails
from core.store.settling.evidence import EvidenceStore
from fleet.stack.provision import RoleUrls
from schemas.api import IntentRequest, WalletRequest
from schemas.operations import OperationType
from schemas.permits import PermitRequest
from schemas.rails import Timing
from tests.integration.permits.conftest import NeverThrottled, World, long_open, lookup_job, open_world, pay_job
from tests.support.qp import BANK, PHONE, SECRET, RunningQp, running_qp

AMOUNT_MINOR, OWNED_MINOR = 1_050, 5_000
CHECK_LIVES_S = 20
Told = dict[str, Any]


class BentLine(QpClient):
    """Changes what QP says of a payout to who asks, as long as `bend` is set."""

    bend: Callable[[Told], Told] | None = None

    async def _ask(self, method: str, path: str, *more: Any) -> Any:
        if method == "GET" and "/payouts/" in path and self.bend is not None:
            told = (await self._http.get(path, headers=self._headers)).content
            bent = orjson.dumps(self.bend(read_json(told)))
            async with httpx.AsyncClient(
                transport=httpx.MockTransport(lambda _: httpx.Response(200, content=bent)), base_url="http://qp"
            ) as answers:
                return await QpClient(answers, SECRET)._ask(method, path, *more)
        return await super()._ask(method, path, *more)


@dataclass(slots=True)
class Desk:
    """A wallet of roubles whose payouts go by SBP, the adapter a step at a time, and the provider."""

    world: World
    rail: SbpRail
    line: BentLine
    qp: RunningQp
    wallet: UUID
    asked: list[str] = field(default_factory=list)
    """The verdict of each inquiry."""

    async def doubted_payout(self, fault: str) -> UUID:
        """Pay somebody and lose the answer; return the intent."""
        request = {
            "operation": "PAYOUT", "wallet_id": self.wallet, "amount_minor": AMOUNT_MINOR, "currency": "RUB",
            "payee": {"type": "phone_bank", "value": f"{PHONE}@{BANK}"}, "auto_confirm": {"max_fee_minor": 1_000},
        }  # fmt: skip
        intent: UUID = await _accepted(self.world, request)
        await self.work(lookup_job(intent))
        await self.qp.script(fault, reference=await self.reference(intent))
        assert await self.work(pay_job(intent)) == "UNKNOWN"
        return intent

    async def work(self, job_id: UUID) -> str:
        """Do one job as the adapter does, settle what it brought, and return the verdict."""
        ports = self.world.core.worker_ports
        granting = InternalPorts(attempts, rails, ports.vault, NeverThrottled(), EvidenceStore(ports.vault))
        asked = PermitRequest(request_id=uuid4(), incarnation=uuid4(), job_ids=[job_id])
        (granted,) = await grant_permits(self.world.uow, granting, RAIL, "key", asked)
        assert granted.answer == "GRANTED", granted
        registration = self.rail.registration()
        executed = await Executor(self.rail, RAIL, registration.timing.call_total_s).execute(granted, clock_s())
        result = result_of(RAIL, granted, executed, None, uuid4(), datetime.now(UTC))
        delivery = Delivery(RAIL, f"{{{RAIL}}}:results", "1-0", result.model_dump_json(), result=result)
        await settle_batch(ports, self.world.uow, [delivery])
        return str(result.verdict)

    async def send_again(self, intent: UUID) -> str:
        """Do the payout once more, as its job comes from the stream again; return the verdict."""
        await self.world.admin.execute(
            "UPDATE fleet.jobs SET busy_until = now(), not_before = now() WHERE intent_id = $1", intent
        )
        return await self.work(pay_job(intent))

    async def pass_time(self, seconds: float) -> None:
        """Move every stored time into the past by this much; the check's own expiry, which QP told, too."""
        await self.world.pass_time(seconds)
        await self.world.admin.execute(
            "UPDATE fleet.intents SET lookup = jsonb_set(lookup, '{expires_at}', to_jsonb((lookup->>'expires_at')"
            f"::timestamptz - interval '{seconds} seconds')) WHERE lookup IS NOT NULL"
        )

    async def ask(self) -> str:
        """Let the resolver ask about what is in doubt, and the provider answer; return the verdict."""
        await self.world.check_now()
        await resolve_due(self.world.core.worker_ports, self.world.uow, self.world.memory, 100)
        rows = await self.world.admin.fetch(
            "SELECT id FROM fleet.jobs WHERE kind IN ('inquire', 'cancel') AND closed_at IS NULL"
        )
        [(job_id,)] = rows
        self.asked.append(await self.work(job_id))
        return self.asked[-1]

    async def reference(self, intent: UUID) -> str:
        return str((await self.world.job(pay_job(intent)))["reference"])

    async def paid(self, intent: UUID) -> list[int]:
        return [each.amount_minor for each in self.qp.executed(await self.reference(intent))]

    async def is_held(self, intent: UUID) -> bool:
        """Whether the payment is neither settled nor failed and its money neither gone nor given back."""
        state, failure = await self.world.state(intent)
        open_ = state in ("AUTHORIZED", "DISPATCHED", "UNRESOLVED") and failure is None
        return open_ and await self.world.money(self.wallet) == (OWNED_MINOR, AMOUNT_MINOR)

    async def is_settled_once(self, intent: UUID) -> bool:
        settled = await self.world.state(intent) == ("SETTLED", None)
        left = await self.world.money(self.wallet) == (OWNED_MINOR - AMOUNT_MINOR, 0)
        return settled and left and await self.paid(intent) == [AMOUNT_MINOR]


async def _accepted(world: World, request: dict[str, object]) -> UUID:
    asked = IntentRequest.model_validate(request)
    return (await world.core.accept.accept(world.caller, f"sbp-{next(world.numbers)}", asked)).intent.id


@pytest.fixture(scope="module")
def qp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningQp]:
    with running_qp(tmp_path_factory.mktemp("asked") / "book.sqlite", "--check-lives-s", str(CHECK_LIVES_S)) as running:
        yield running


@pytest.fixture
async def desk(fresh_database: RoleUrls, admin_connection: asyncpg.Connection, qp: RunningQp) -> AsyncIterator[Desk]:
    chosen = SbpSettings.model_validate({"base_url": qp.url, "secret": SECRET})
    line = BentLine(provider_client(qp.url, call_total_s=1.5, connect_s=1.5, max_connections=5), SECRET)
    rail = SbpRail(line, chosen, Timing(send_by_s=1, call_total_s=4, claim_idle_s=8))
    async with open_world(fresh_database, admin_connection) as world:
        world.memory.open_since |= long_open(RAIL)
        await world.admin.execute(
            "INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account)"
            " VALUES ($1, 'PAYOUT', 'RUB', 'sbp', 'qp', 'qp-1')",
            world.caller.tenant_id,
        )
        async with world.uow() as uow:
            await register(uow, rails, rail.registration())
        view, _ = await world.core.wallets.create(world.caller, WalletRequest(owner="anna", currency="RUB"))
        owned = {"operation": "MANUAL_ADJUSTMENT", "wallet_id": view.id, "amount_minor": OWNED_MINOR, "currency": "RUB"}
        await _accepted(world, owned)
        yield Desk(world, rail, line, qp, view.id)
    await rail.close()


def unknown_status(told: Told) -> Told:
    return {**told, "status": {**told["status"], "value": "COMPLETED_MAYBE"}}


def another_amount(told: Told) -> Told:
    return {**told, "amount": orjson.Fragment("10.51")}


def another_reference(told: Told) -> Told:
    return {**told, "id": "S" * 20}


@pytest.mark.parametrize("word", ["timeout", "error", "garbage"])
async def test_an_inquiry_that_fails_ends_nothing_and_the_next_one_settles(desk: Desk, word: str) -> None:
    intent = await desk.doubted_payout("error_after")
    await desk.qp.script(f"inquiry_{word}", reference=await desk.reference(intent), times=1)
    assert await desk.ask() == "UNKNOWN"
    assert await desk.is_held(intent)
    assert await desk.ask() == "SUCCEEDED"
    assert await desk.is_settled_once(intent)
    await desk.world.prove()


@pytest.mark.parametrize("bend", [unknown_status, another_reference])
async def test_an_answer_that_is_not_listed_or_is_about_another_payout_ends_nothing_and_is_asked_again(
    desk: Desk, bend: Callable[[Told], Told]
) -> None:
    intent, desk.line.bend = await desk.doubted_payout("reset_after"), bend
    assert [await desk.ask(), await desk.ask()] == ["UNKNOWN", "UNKNOWN"]
    assert await desk.is_held(intent)
    desk.line.bend = None
    assert await desk.ask() == "SUCCEEDED"
    assert await desk.is_settled_once(intent)
    await desk.world.prove()


async def test_an_inquiry_that_tells_of_another_amount_is_quarantined_and_the_money_stays_held(desk: Desk) -> None:
    intent, desk.line.bend = await desk.doubted_payout("error_after"), another_amount
    assert await desk.ask() == "SUCCEEDED"
    assert await desk.is_held(intent)
    assert await desk.world.alerts() == [("page", "amount_differs")]
    unapplied = "SELECT quarantine FROM fleet.facts WHERE applied_at IS NULL"
    assert await desk.world.admin.fetchval(unapplied) == "amount_differs"
    await desk.pass_time(100_000)
    assert await desk.ask() == "SUCCEEDED"
    assert (await desk.world.state(intent))[0] == "UNRESOLVED", "neither paid nor failed: a person decides"
    assert await desk.is_held(intent)
    await desk.world.prove()


async def test_not_found_before_the_horizon_is_no_end_and_the_payout_is_sent_again_under_its_reference(
    desk: Desk,
) -> None:
    intent = await desk.doubted_payout("error_before")
    reference = await desk.reference(intent)
    assert await desk.ask() == "NOT_FOUND"
    assert await desk.is_held(intent)
    assert await desk.send_again(intent) == "SUCCEEDED"
    assert await desk.reference(intent) == reference
    assert await desk.is_settled_once(intent)
    await desk.world.prove()


async def test_not_found_counts_after_the_horizon_and_once_its_check_has_run_out_and_gives_the_money_back(
    desk: Desk,
) -> None:
    intent = await desk.doubted_payout("error_before")
    assert await desk.ask() == "NOT_FOUND"
    await desk.qp.script("reset_before", reference=await desk.reference(intent))
    assert await desk.send_again(intent) == "UNKNOWN"
    horizon_s = desk.rail.registration().operations[OperationType.PAYOUT].not_found_horizon_s
    await desk.pass_time(max(horizon_s, CHECK_LIVES_S) + 1)
    assert await desk.is_held(intent)
    assert await desk.ask() == "NOT_FOUND"
    assert await desk.world.state(intent) == ("FAILED", "not_found")
    assert await desk.world.money(desk.wallet) == (OWNED_MINOR, 0)
    assert await desk.paid(intent) == []
    await desk.world.prove()


async def test_what_no_inquiry_ever_answers_is_parked_with_an_alert_and_asked_on_until_one_does(desk: Desk) -> None:
    intent = await desk.doubted_payout("error_after")
    for word in ("error", "garbage", "timeout"):
        await desk.qp.script(f"inquiry_{word}", reference=await desk.reference(intent), times=1)
        await desk.ask()
        await desk.pass_time(100_000)
    assert desk.asked == ["UNKNOWN"] * 3
    assert (await desk.world.state(intent))[0] == "UNRESOLVED"
    assert await desk.is_held(intent)
    assert await desk.world.alerts() == [("page", "unresolved")]
    assert await desk.ask() == "SUCCEEDED"
    assert await desk.is_settled_once(intent)
    await desk.world.prove()
