"""A core with dead letters in it: the world of the permit tests, and short ways to kill a job."""

from collections.abc import AsyncIterator, Callable
from uuid import UUID, uuid4

import asyncpg
import pytest

from core.services.on_call.dead_letters import receive
from fleet.stack.provision import RoleUrls
from schemas.dead_letters import DeadLetter
from schemas.streams import jobs_stream
from tests.integration.permits.conftest import RAIL, World, open_world, pay_job

_FILL = """
INSERT INTO fleet.dead_letters (id, tenant_id, stream, entry_id, rail, job_id, error_class, fingerprint, message,
    deliveries, body, operation, provider, reference, received_at)
SELECT gen_random_uuid(), $1, '{testrail}:jobs', n || '-0', 'rail' || n % 3, gen_random_uuid(), 'class_' || n % 7,
    'kind' || n % 50, 'the provider said number ' || n, 3, '', 'PAYOUT', 'p', 'REF' || n,
    now() - n * interval '1 second'
FROM generate_series(1, $2) n
"""


async def fill(admin: asyncpg.Connection, tenant_id: UUID, letters: int) -> None:
    """Keep so many letters of no job, a second apart, and let the planner know of them."""
    await admin.execute(_FILL, tenant_id, letters)
    await admin.execute("ANALYZE fleet.dead_letters")


async def bury(
    world: World,
    *intents: UUID,
    error_class: str = "poison",
    message: str = "it is poison",
    job_of: Callable[[UUID], UUID] = pay_job,
) -> list[UUID]:
    """Give the payments' jobs up, as their adapter does; return the letters in the order of the payments.

    `job_of` tells which job of a payment is meant.
    """
    letters = [
        DeadLetter(
            job_id=job_of(intent), rail=RAIL, stream=jobs_stream(RAIL), entry_id=f"{uuid4().int % 10**15}-0",
            error_class=error_class, fingerprint=f"{error_class}-print", message=message, deliveries=3,
            body='{"amount_minor":100,"currency":"THB","payee_masked":"08*","payee":"0812345678"}',
        )
        for intent in intents
    ]  # fmt: skip
    async with world.uow() as uow:
        await receive(uow, world.core.worker_ports.letters, letters)
    found = await world.admin.fetch(
        "SELECT id, entry_id FROM fleet.dead_letters WHERE entry_id = ANY ($1)", [each.entry_id for each in letters]
    )
    ids = {row["entry_id"]: row["id"] for row in found}
    return [ids[each.entry_id] for each in letters]


@pytest.fixture
async def world(fresh_database: RoleUrls, admin_connection: asyncpg.Connection) -> AsyncIterator[World]:
    """A core with a tenant and a registered rail that answers inquiries."""
    async with open_world(fresh_database, admin_connection) as world:
        await world.register(inquiry=True, deduplicates_reference=True, dedup_window_s=3600)
        yield world
