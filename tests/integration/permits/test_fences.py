"""The fence that a permit's answer names is the one that is committed."""

import contextlib
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest

from core.domain.context import Context
from core.store.settling.attempts import lock_jobs, write_attempts
from schemas.permits import PermitMode
from tests.integration.permits.conftest import RAIL, World, pay_job


@pytest.mark.parametrize("fence", [1, 2, 3])
async def test_a_permit_is_written_under_the_next_fence_or_not_at_all(world: World, fence: int) -> None:
    await world.register(inquiry=True)
    intent = await world.pay(await world.wallet(1000))
    job_id = pay_job(intent)
    await world.sent(intent)
    context = Context(None, "test")
    with pytest.raises(asyncpg.RaiseError, match="0 of 1 permits") if fence != 2 else contextlib.nullcontext():
        async with world.core.worker_database.unit_of_work(context) as uow:
            _, locked = await lock_jobs(uow, RAIL, [job_id])
            assert locked[job_id].job.fence == 1
            await write_attempts(
                uow,
                {job_id: (PermitMode.SEND, fence)},
                request_id=uuid4(),
                incarnation=uuid4(),
                service_key_id="fk_it's",
                busy=timedelta(milliseconds=1_500),
            )
    rows = await world.admin.fetch("SELECT fence FROM fleet.attempts WHERE job_id = $1 ORDER BY fence", job_id)
    assert [row["fence"] for row in rows] == ([1, 2] if fence == 2 else [1])
    assert await world.admin.fetchval("SELECT fence FROM fleet.jobs WHERE id = $1", job_id) == len(rows)
