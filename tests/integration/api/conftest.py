"""An open core on a database of its own, with a tenant, keys, a route and a registered rail without lookup."""

import base64
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import orjson
import pytest

from core.api.public import public_app
from core.bootstrap import Core, open_core
from core.domain.context import Context
from core.services.keys import NewKey
from core.settings import Settings
from fleet.stack.provision import RoleUrls
from tests.support.signed import Signed

REGISTRATION = {
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


@dataclass(frozen=True, slots=True)
class World:
    """What a test of the API stands on."""

    core: Core
    api: Signed
    tenant_id: UUID
    key: NewKey
    admin: asyncpg.Connection

    async def other(self, **limits: Any) -> Signed:
        """Return a client under another key of the tenant."""
        key = await self.core.keys.create(_ROOT, tenant_id=self.tenant_id, name="other", **limits)
        return Signed(self.api.http, key.id, key.secret)

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

    async def counts(self) -> dict[str, int]:
        """Return the number of rows that a refused request must not change."""
        tables = ("intents", "intent_events", "idempotency_keys", "jobs", "outbox", "transfers", "subjects", "wallets")
        return {table: await self.admin.fetchval(f"SELECT count(*) FROM fleet.{table}") for table in tables}


_ROOT = Context(None, "test")


@pytest.fixture
async def world(fresh_database: RoleUrls, admin_connection: asyncpg.Connection) -> AsyncIterator[World]:
    """The core as the application and worker roles see it, spoken to over ASGI."""
    settings = Settings(
        DATABASE_URL=fresh_database.app,
        DATABASE_WORKER_URL=fresh_database.worker,
        REDIS_URL="redis://127.0.0.1:1/0",
        master_key=base64.b64encode(os.urandom(32)).decode(),
    )
    tenant = uuid4()
    await admin_connection.execute("INSERT INTO fleet.tenants (tenant_id, name) VALUES ($1, 'shop')", tenant)
    await admin_connection.execute(
        "INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account)"
        " VALUES ($1, 'PAYOUT', 'THB', 'noop', 'NOOP', 'main')",
        tenant,
    )
    await admin_connection.execute(
        "INSERT INTO fleet.rail_registrations (rail, version, body, body_hash) VALUES ('noop', 1, $1, 'x')",
        orjson.dumps(REGISTRATION).decode(),
    )
    async with open_core(settings) as core:
        transport = httpx.ASGITransport(public_app(core), raise_app_exceptions=False)
        key = await core.keys.create(_ROOT, tenant_id=tenant, name="shop")
        async with httpx.AsyncClient(transport=transport, base_url="http://core") as http:
            yield World(core, Signed(http, key.id, key.secret), tenant, key, admin_connection)
