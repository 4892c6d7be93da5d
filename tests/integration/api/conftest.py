"""An open core on a database of its own, with a tenant, keys, a route and a registered rail without lookup."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import orjson
import pytest

from core.api.public import public_app
from core.bootstrap import Core
from core.domain.context import Context
from core.domain.ids import derive_id
from core.services.access.keys import NewKey
from core.services.settling.settle import Delivery, settle_batch
from core.settings import Settings
from fleet.stack.provision import RoleUrls
from schemas.operations import JobKind
from schemas.results import Result
from tests.support.signed import Signed
from tests.support.warm_sessions import warm_core, warm_settings

REGISTRATION: dict[str, Any] = {
    "rail": "noop",
    "provider": "NOOP",
    "provider_account": "main",
    "operations": {
        "PAYOUT": {
            "inquiry": True,
            "deduplicates_reference": True,
            "not_found_horizon_s": 120,
            "max_amount_minor": 10_000_000,
            "currencies": ["THB"],
        }
    },
    "payee_types": {"mobile": {"pattern": "0[0-9]{9}", "example": "0812345678", "remedy": "ten digits from 0"}},
    "timing": {"send_by_s": 5, "call_total_s": 10, "claim_idle_s": 60},
}


def payout(wallet: str, amount_minor: Any = 100, **changed: Any) -> dict[str, Any]:
    """A valid payout, changed."""
    payee = {"type": "mobile", "value": "0812345678"}
    body = {"operation": "PAYOUT", "wallet_id": wallet, "amount_minor": amount_minor, "currency": "THB"}
    return body | {"payee": payee} | changed


@dataclass(frozen=True, slots=True)
class World:
    """What a test of the API stands on."""

    settings: Settings
    core: Core
    api: Signed
    tenant_id: UUID
    key: NewKey
    admin: asyncpg.Connection

    async def other(self, **limits: Any) -> Signed:
        """Return a client under another key of the tenant."""
        key = await self.core.keys.create(_ROOT, tenant_id=self.tenant_id, name="other", **limits)
        return Signed(self.api.http, key.id, key.secret)

    async def at_both(self, second: Signed, count: int, **limits: Any) -> list[Signed]:
        """Return clients with a key each, hence transactions of their own, at this core and the second in turns."""
        keys = [await self.other(**limits) for _ in range(count)]
        return [Signed((self.api, second)[n % 2].http, key.key_id, key.secret) for n, key in enumerate(keys)]

    async def funded_wallet(self, amount_minor: int) -> str:
        """Open a wallet that holds this much."""
        answer = await self.api.post("/v1/wallets", {"owner": "anna", "currency": "THB"})
        wallet_id: str = answer.json()["id"]
        body = {
            "operation": "MANUAL_ADJUSTMENT",
            "wallet_id": wallet_id,
            "amount_minor": amount_minor,
            "currency": "THB",
        }
        funded = await self.api.post("/v1/intents", body, key=f"fund-{wallet_id}")
        assert funded.json()["state"] == "SETTLED", funded.text
        return wallet_id

    async def register(self, **capabilities: Any) -> None:
        """Register the rail anew with these capabilities changed; the core has not remembered the earlier ones."""
        await register(self.admin, **capabilities)
        self.forget_routes()

    def forget_routes(self) -> None:
        """Do to what the core remembers of routes and rails what a second does; `test_routes` waits for the second."""
        self.core.ports.routes._routes.clear()
        self.core.ports.routes._terms.clear()

    def forget_fees(self) -> None:
        """Do to what the core remembers of fee rules what a second does."""
        self.core.ports.fees._kept.clear()

    async def looked_up(self, wallet: str, *, key: str = "looked-up", expires_s: int = 300, **changed: Any) -> str:
        """Ask for a payout whose payee the rail finds, for a fee of 5; return the intent's id."""
        answer = await self.api.post("/v1/intents", payout(wallet, **changed), key=key)
        assert answer.json()["state"] == "VALIDATED", answer.text
        intent_id: str = answer.json()["id"]
        now = datetime.now(UTC)
        result = Result.model_validate(
            {
                "job_id": derive_id(UUID(intent_id), "job", JobKind.LOOKUP),
                "rail": "noop",
                "kind": "lookup",
                "fence": 0,
                "verdict": "FOUND",
                "basis": "LOOKUP",
                "lookup": {"lookup_id": "L1", "fee_minor": 5, "expires_at": now + timedelta(seconds=expires_s)},
                "payee_name_masked": "So*** K.",
                "observed_at": now,
            }
        )
        delivery = Delivery("noop", "{noop}:results", "1-0", result.model_dump_json(), result=result)
        worker = self.core.worker_database
        await settle_batch(self.core.worker_ports, lambda: worker.unit_of_work(_ROOT), [delivery])
        return intent_id

    async def contents(self) -> dict[str, str | None]:
        """Return a digest of the rows of every table, but the nonces': each request burns one, refused or not."""
        tables = await self.admin.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'fleet'::regnamespace AND relkind IN ('r', 'p')"
            " AND NOT relispartition AND relname <> 'request_nonces' ORDER BY relname"
        )
        text = "SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM fleet.{} t"
        return {row["relname"]: await self.admin.fetchval(text.format(row["relname"])) for row in tables}


_ROOT = Context(None, "test")
ROUTES_FRESH_S = 1.1


async def register(admin: asyncpg.Connection, **capabilities: Any) -> None:
    """Write the next version of the rail's registration."""
    operations = {"PAYOUT": REGISTRATION["operations"]["PAYOUT"] | capabilities}
    await admin.execute(
        "INSERT INTO fleet.rail_registrations (rail, version, body, body_hash)"
        " SELECT 'noop', count(*) + 1, $1, 'x' FROM fleet.rail_registrations",
        orjson.dumps(REGISTRATION | {"operations": operations}).decode(),
    )


@pytest.fixture
async def world(fresh_database: RoleUrls, admin_connection: asyncpg.Connection) -> AsyncIterator[World]:
    """The core as the application and worker roles see it, spoken to over ASGI."""
    async with open_world(fresh_database, admin_connection) as world:
        yield world


@pytest.fixture
async def second(world: World) -> AsyncIterator[Signed]:
    """The same key at another core, with pools, caches and batches of its own, as another process would be."""
    async with warm_core(world.settings) as core:
        transport = httpx.ASGITransport(public_app(core), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://second") as http:
            yield Signed(http, world.key.id, world.key.secret)


@asynccontextmanager
async def open_world(urls: RoleUrls, admin_connection: asyncpg.Connection) -> AsyncIterator[World]:
    """Open a world on a database of its own."""
    settings = warm_settings(urls)
    tenant = uuid4()
    await admin_connection.execute("INSERT INTO fleet.tenants (tenant_id, name) VALUES ($1, 'shop')", tenant)
    await admin_connection.execute(
        "INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account)"
        " VALUES ($1, 'PAYOUT', 'THB', 'noop', 'NOOP', 'main')",
        tenant,
    )
    await register(admin_connection)
    async with warm_core(settings) as core:
        transport = httpx.ASGITransport(public_app(core), raise_app_exceptions=False)
        key = await core.keys.create(
            _ROOT, tenant_id=tenant, name="shop", operations=["*", "MANUAL_ADJUSTMENT", "ADJUSTMENT_ALONE"]
        )
        async with httpx.AsyncClient(transport=transport, base_url="http://core") as http:
            yield World(settings, core, Signed(http, key.id, key.secret), tenant, key, admin_connection)
