"""The bus on real servers: jobs in PostgreSQL, streams in a healed Valkey."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from core.bus.gate import BacklogGate, GateBounds
from core.bus.healer import heal_rail
from core.bus.relay import StreamRelay
from core.bus.sweeper import Sweeper
from core.domain.context import Context
from core.domain.jobs import JobRow, mint_reference
from core.store.database import Database
from core.store.settling.dispatch import PostgresDispatch
from core.store.settling.jobs import insert_jobs
from fleet.stack.provision import RoleUrls
from schemas.ids import mint_id
from schemas.operations import JobKind, OperationType
from schemas.streams import ADAPTERS_GROUP, jobs_stream
from tests.support.warm_sessions import WarmDatabase
from wire.client import StreamServers

RAIL = "testrail"
JOBS = jobs_stream(RAIL)
NOW_MS = int(datetime.now(UTC).timestamp() * 1000)


@dataclass
class World:
    database: Database
    store: PostgresDispatch
    redis: Any
    servers: StreamServers

    def relay(self, bounds: GateBounds | None = None) -> StreamRelay:
        gate = BacklogGate(self.redis, JOBS, ADAPTERS_GROUP, bounds or GateBounds())
        return StreamRelay(self.store, self.redis, gate, RAIL, JOBS)

    async def queue(
        self,
        count: int,
        tenant: UUID | None = None,
        operation: OperationType = OperationType.PAYOUT,
        rail: str = RAIL,
    ) -> list[UUID]:
        jobs = []
        for _ in range(count):
            job_id = mint_id(NOW_MS)
            jobs.append(
                JobRow(
                    id=job_id,
                    tenant_id=tenant or uuid4(),
                    intent_id=mint_id(NOW_MS),
                    kind=JobKind.PAY,
                    operation=operation,
                    rail=rail,
                    provider="p",
                    provider_account="a",
                    environment="sandbox",
                    reference=mint_reference(job_id, 20),
                    amount_minor=5,
                    currency="THB",
                    deadline=datetime.now(UTC) + timedelta(hours=1),
                )
            )
        async with self.database.unit_of_work(Context(None, "test")) as uow:
            await insert_jobs(uow, jobs)
        return [job.id for job in jobs]

    def sweeper(self, age_s: float) -> Sweeper:
        return Sweeper(self.redis, self.store, RAIL, age_s)

    async def states(self) -> dict[UUID, str]:
        async with self.database.acquire() as connection:
            return {row["id"]: row["state"] for row in await connection.fetch("SELECT id, state FROM fleet.jobs")}

    async def streamed(self) -> list[str]:
        return [fields[b"id"].decode() for _, fields in await self.redis.xrange(JOBS)]


@pytest.fixture
async def world(fresh_database: RoleUrls, fresh_redis: str) -> AsyncIterator[World]:
    database = await WarmDatabase.connect(fresh_database.worker)
    servers = StreamServers(fresh_redis, "test")
    client = servers.of(RAIL)
    made = World(database, PostgresDispatch(database), client, servers)
    await heal_rail(client, made.store, RAIL)
    yield made
    await servers.aclose()
    await database.close()
