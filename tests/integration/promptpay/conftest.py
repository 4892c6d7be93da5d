"""Money in, whole: a real core and ledger, the real rail and receiver, and the provider as a process of its own."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from adapters.promptpay.adapter import PromptPayRail
from adapters.runtime.callbacks import CallbackReceiver, CallbackSettings
from core.domain.ids import derive_id
from core.domain.operations import AccountCode, system_account
from fleet.stack.processes import free_port
from fleet.stack.provision import RoleUrls
from schemas.operations import JobKind
from tests.integration.permits.conftest import World, open_world
from tests.support.ipps import RunningIpps, rail_at, running_ipps
from tests.support.rails_at_work import AtWork, DirectCore
from tests.support.waiting import PATIENCE_S

RAIL = "promptpay"


@dataclass(slots=True)
class Street:
    """A shop with its wallet, the provider across the street, and the way between, a step at a time."""

    world: World
    rail: PromptPayRail
    control: httpx.AsyncClient
    receiver: CallbackReceiver
    core: DirectCore
    wallet: UUID

    async def top_up(self, amount_minor: int = 2_000) -> UUID:
        """Ask for a top-up and let its code be made; return the intent."""
        asked = {"operation": "TOPUP", "wallet_id": self.wallet, "amount_minor": amount_minor}
        intent: UUID = await self.world._accept(asked)
        await self.work(derive_id(intent, "job", JobKind.COLLECT))
        return intent

    async def work(self, job_id: UUID) -> None:
        """Do one job as the adapter does."""
        await AtWork(self.core, self.rail).work(job_id)

    async def poll(self) -> None:
        """Let the resolver ask about everything that waits, and the adapter answer."""
        await AtWork(self.core, self.rail).poll()

    async def reference(self, intent: UUID) -> str:
        """Return by which reference the provider knows the code."""
        return str((await self.world.job(derive_id(intent, "job", JobKind.COLLECT)))["reference"])

    async def pay(self, intent: UUID, manner: str = "never", **more: Any) -> str:
        """Let somebody pay the code; return the provider's transaction."""
        body = {"reference": await self.reference(intent), "manner": manner, **more}
        answer = await self.control.post("/_control/pay", json=body)
        assert answer.is_success, answer.text
        return str(answer.json()["psp_txid"])

    async def told(self, count: int) -> list[int]:
        """Wait until the provider has told so often, and return the answers it got."""
        before = self.answered
        async with asyncio.timeout(PATIENCE_S):
            while len(answers := await self._answers()) < before + count:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.03)
        self.answered = len(answers)
        return list(answers[before:])

    async def _answers(self) -> list[int]:
        return list((await self.control.get("/_control/webhooks")).json()["statuses"])

    answered: int = 0

    async def state(self, intent: UUID) -> str:
        return (await self.world.state(intent))[0]

    async def money(self) -> int:
        """Return what the wallet owns."""
        return (await self.world.money(self.wallet))[0]

    async def suspense(self) -> int:
        """Return what rests in suspense."""
        account = system_account(self.world.caller.tenant_id, "THB", AccountCode.SUSPENSE).id
        async with self.world.uow() as uow:
            found = await self.world.core.worker_ports.ledger.lookup_accounts(uow, [account])
        return found[account].posted_minor if account in found else 0


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningIpps]:
    """A provider that calls nobody back."""
    with running_ipps(tmp_path_factory.mktemp("ipps") / "book.sqlite") as running:
        yield running


@pytest.fixture
async def rail(simulator: RunningIpps) -> AsyncIterator[PromptPayRail]:
    """The rail on that provider."""
    rail = rail_at(simulator.url)
    yield rail
    await rail.close()


@pytest.fixture(scope="module")
def callback_port() -> int:
    """Where the provider calls back."""
    return free_port()


@pytest.fixture(scope="module")
def telling_ipps(tmp_path_factory: pytest.TempPathFactory, callback_port: int) -> Iterator[RunningIpps]:
    """A provider that calls back, and repeats what is not taken after a moment."""
    book = tmp_path_factory.mktemp("ipps") / "book.sqlite"
    url = f"http://127.0.0.1:{callback_port}/callbacks/ipps"
    options = ("--callback-url", url, "--callback-delay-s", "0.3", "--callback-retry-s", "0.2")
    with running_ipps(book, *options) as running:
        yield running


@pytest.fixture
async def street(
    fresh_database: RoleUrls, admin_connection: asyncpg.Connection, telling_ipps: RunningIpps, callback_port: int
) -> AsyncIterator[Street]:
    """A tenant whose top-ups go through PromptPay, with an empty wallet but for one satang."""
    rail = rail_at(telling_ipps.url, call_total_s=3, qr_lives_s=60)
    async with open_world(fresh_database, admin_connection) as world:
        core = DirectCore(world, RAIL)
        await AtWork(core, rail).begin("TOPUP", currency="THB")
        receiver = CallbackReceiver(rail, core, CallbackSettings(RAIL))
        await receiver.start("127.0.0.1", callback_port)
        async with httpx.AsyncClient(base_url=telling_ipps.url) as control:
            begun = len((await control.get("/_control/webhooks")).json()["statuses"])
            made = Street(world, rail, control, receiver, core, await world.wallet(1))
            made.answered = begun
            yield made
        await receiver.stop()
        await rail.close()
