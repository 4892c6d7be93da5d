"""A real nginx before a service that pays for the person who is signed in: whom else a browser names is not heard."""

import importlib.util
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import httpx
import pytest
from aiohttp import web

from fleet.client import FleetClient
from fleet.stack.processes import free_port
from fleet.stack.stack import Stack
from schemas.api import IntentRequest, WalletRequest
from tests.support.waiting import until_async

EXAMPLE = Path(__file__).parents[2] / "examples" / "nginx-auth-request"
FRONT_SECRET, SESSION_SECRET = "known to nginx and the service", "known to the service"
pytestmark = pytest.mark.needs("nginx")


def example() -> ModuleType:
    """Load the service of the example as it stands there."""
    spec = importlib.util.spec_from_file_location("nginx_auth_request_front", EXAMPLE / "front.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Door:
    """nginx with the service behind it."""

    module: ModuleType
    http: httpx.AsyncClient
    behind: str
    """The service's own address, which only nginx should know."""
    fleet: FleetClient


@dataclass
class Front:
    """The door, and two people with a wallet each."""

    door: Door
    anna: UUID
    boris: UUID

    def cookie(self, user: str = "anna", agent: str = "", lives_s: int = 60, secret: str = SESSION_SECRET) -> str:
        """Return the cookie of a session."""
        return "session=" + str(self.door.module.session(user, agent, int(time.time()) + lives_s, secret))

    async def pay(self, key: str, cookie: str | None = None, **headers: str) -> httpx.Response:
        """Ask, as a browser does, to move one baht out of Anna's wallet."""
        sent = {"Cookie": self.cookie() if cookie is None else cookie, "Idempotency-Key": key} | headers
        # The body names somebody, too; the service takes nobody's word for it.
        body = {"wallet_id": str(self.anna), "to_wallet_id": str(self.boris), "amount_minor": 100, "currency": "THB",
                "on_behalf_of": {"user": "boris"}}  # fmt: skip
        return await self.door.http.post("/transfers", json=body, headers=sent)

    async def balance(self) -> int:
        """Return what Anna has."""
        return (await self.door.fleet.get_wallet(self.anna)).available_minor


@contextmanager
def nginx_in(home: Path) -> Iterator[None]:
    """Run nginx on the configuration in a folder."""
    command = [str(shutil.which("nginx")), "-p", str(home), "-c", "nginx.conf", "-e", "stderr"]
    nginx = subprocess.Popen(command, cwd=home)
    try:
        yield
    finally:
        nginx.terminate()
        nginx.wait(10)


@pytest.fixture(scope="module")
async def door(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Door]:
    info, module, home = stack.info, example(), tmp_path_factory.mktemp("nginx")
    port, behind = free_port(), free_port()
    config = (EXAMPLE / "nginx.conf").read_text().replace("8480", str(port)).replace("8481", str(behind))
    (home / "nginx.conf").write_text(config)
    (home / "front_secret.conf").write_text(f'set $front_secret "{FRONT_SECRET}";\n')
    async with AsyncExitStack() as opened:
        fleet = await opened.enter_async_context(FleetClient(info.public_url, info.key_id, info.key_secret))
        runner = web.AppRunner(module.front(fleet, FRONT_SECRET, SESSION_SECRET), access_log=None)
        await runner.setup()
        opened.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", behind).start()
        opened.enter_context(nginx_in(home))
        http = await opened.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}"))
        await until_async(lambda: _answers(http))
        yield Door(module, http, f"http://127.0.0.1:{behind}", fleet)


@pytest.fixture
async def front(door: Door) -> Front:
    return Front(door, *await _wallets(door.fleet))


async def _answers(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/")).status_code == 401
    except httpx.TransportError:
        return False


async def _wallets(fleet: FleetClient) -> tuple[UUID, UUID]:
    found = []
    for owner in ("anna", "boris"):
        wallet = await fleet.create_wallet(WalletRequest(owner=owner, currency="THB"))
        funds: dict[str, Any] = {"operation": "MANUAL_ADJUSTMENT", "wallet_id": wallet.id, "amount_minor": 1000}
        request = IntentRequest.model_validate(funds | {"currency": "THB"})
        await fleet.create_intent(request, idempotency_key=f"fund-{wallet.id}")
        found.append(wallet.id)
    return found[0], found[1]


async def test_a_person_who_is_signed_in_pays_from_an_own_wallet_and_the_payment_tells_who(front: Front) -> None:
    answer = await front.pay("a", front.cookie("anna", "staff-17"))
    assert answer.status_code == 201, answer.text
    told = answer.json()
    assert (told["state"], told["on_behalf_of"]) == ("SETTLED", {"user": "anna", "agent": "staff-17"})
    repeated = await front.pay("a", front.cookie("anna", "staff-17"))
    assert repeated.json()["id"] == told["id"]
    assert await front.balance() == 900


async def test_no_header_of_a_browser_names_another_person(front: Front) -> None:
    forged = {"X-Sso-User": "anna", "X_Sso_User": "anna", "X-Sso-Agent": "root", "X-Front-Secret": "guess"}
    answer = await front.pay("b", front.cookie("boris"), **forged)
    assert (answer.status_code, answer.json()["code"]) == (403, "on_behalf_of_differs")
    # Of one's own wallet: an agent that the session does not name is not told of.
    own = await front.pay("c", front.cookie("anna"), **forged)
    assert own.json()["on_behalf_of"] == {"user": "anna", "agent": None}
    assert await front.balance() == 900


@pytest.mark.parametrize("cookie", ["", "session=anna::9999999999:" + "0" * 64, "session=anna", "old", "foreign"])
async def test_without_a_session_that_holds_nothing_is_passed_on(front: Front, cookie: str) -> None:
    known = {"old": front.cookie(lives_s=-1), "foreign": front.cookie(secret="another")}
    answer = await front.pay("d", known.get(cookie, cookie), **{"X-Sso-User": "anna"})
    assert answer.status_code == 401
    assert await front.balance() == 1000


async def test_the_verifier_and_the_service_are_reached_through_the_front_alone(front: Front) -> None:
    assert (await front.door.http.get("/verify", headers={"Cookie": front.cookie()})).status_code == 404
    async with httpx.AsyncClient(base_url=front.door.behind) as around:
        for headers in ({}, {"X-Front-Secret": "guess"}):
            answer = await around.post("/transfers", json={}, headers={"X-Sso-User": "anna"} | headers)
            assert answer.status_code == 403
