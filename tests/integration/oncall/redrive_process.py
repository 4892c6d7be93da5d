"""A process that runs redrives until no letter waits for its turn: what a test kills at a failpoint."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

from core.bootstrap import open_core
from core.domain.context import Context
from core.services.on_call.run_redrives import run_redrives
from core.settings import Settings

_LEFT = "SELECT count(*) FROM fleet.redrive_items WHERE state = 'WAITING'"


async def main() -> None:
    """Run until nothing waits."""
    async with open_core(Settings()) as core:

        def unit_of_work() -> AbstractAsyncContextManager[Any]:
            return core.worker_database.unit_of_work(Context(None, "core"))

        while True:
            await run_redrives(core.worker_ports, unit_of_work)
            async with core.worker_database.acquire() as connection:
                if not await connection.fetchval(_LEFT):
                    return
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main())
