"""An upgrade under load: processes of an earlier commit and of this one, side by side on this one's schema."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections import ChainMap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest

from core.store.database import Database
from core.store.migrate import load_migrations
from fleet.client import FleetClient
from fleet.demo.runner import Run, look
from fleet.stack.installation import Installation, ServiceKey
from fleet.stack.provision import RoleUrls, Secrets, role_urls, with_database
from fleet.stack.stack import API, WORKER, Stack, StackPlan
from fleet.stack.supervisor import ChildSpec
from tests.chaos.conftest import Fleet
from tests.chaos.test_rolling_restart import is_ready, over_promptpay, over_sbp, restart, send
from tests.support.more_processes import CoreProcess, core_process
from tests.support.waiting import until_async

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

OLD = "82a7d3e039634dc835854767bf03d8f836610a5f"
"""The commit whose code runs beside today's: its newest migration is 0046."""
ROOT = Path(__file__).resolve().parents[2]
# What brings a database to a commit's own schema and gives it its tenant and keys, by that commit's own code.
_INSTALL = """
import asyncio, sys
from pathlib import Path
from fleet.stack.installation import install
from fleet.stack.provision import Secrets, provision

async def main(home, admin_url, rails):
    kept = Secrets.load_or_create(Path(home) / "secrets.json")
    urls = await provision(admin_url, kept)
    await install(Path(home) / "keys.json", urls, kept.master_key, rails.split(","))

asyncio.run(main(*sys.argv[1:]))
"""


def code_of(tree: Path) -> dict[str, str]:
    """Return the environment in which Python imports the project from this tree, whatever directory it starts in."""
    return {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}


@pytest.fixture(scope="module")
def old_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The earlier commit's files. Skips where the history is not here, as in a tarball."""
    packed = subprocess.run(["git", "archive", OLD], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode:
        pytest.skip(f"the repository's history is not here, so the code of commit {OLD} cannot be run beside this")
    tree = tmp_path_factory.mktemp("old")
    subprocess.run(["tar", "-x", "-C", str(tree)], input=packed.stdout, check=True)
    return tree


class Upgraded(Stack):
    """A stack that the old code installed, and whose processes start from whatever tree `code` names at the time."""

    def __init__(self, plan: StackPlan, tree: Path) -> None:
        super().__init__(plan)
        self.code = code_of(tree)

    async def _install(self, admin_url: str, kept: Secrets) -> tuple[RoleUrls, Installation]:
        command = [sys.executable, "-c", _INSTALL, str(self.home), admin_url, ",".join(self.plan.rails)]
        await run(command, self.code)
        keys = {name: ServiceKey(**key) for name, key in json.loads((self.home / "keys.json").read_text()).items()}
        client = keys.pop("client")
        return role_urls(admin_url, kept), Installation(client, client, keys)  # that commit made no operator's key

    def _core(self, urls: RoleUrls, kept: Secrets, public: int, internal: int) -> list[ChildSpec]:
        return [self.from_tree(spec) for spec in super()._core(urls, kept, public, internal)]

    def _adapters(self, installation: Installation, kept: Secrets) -> list[ChildSpec]:
        # Who plays a provider is of no release: it goes by how this commit starts it.
        specs = super()._adapters(installation, kept)
        return [spec if spec.name.endswith("-simulator") else self.from_tree(spec) for spec in specs]

    def from_tree(self, spec: ChildSpec) -> ChildSpec:
        """Let the process be started from `code` as it is at each start."""
        return replace(spec, env=ChainMap(self.code, dict(spec.env)))

    async def migrate(self) -> list[str]:
        """Bring the schema to this commit's, by the documented command; return what was applied."""
        assert self.postgres is not None
        admin_url = with_database(self.postgres.admin_url, self.plan.database_name)
        told = await run(
            [sys.executable, "-m", "core.store.migrate"], code_of(ROOT) | {"DATABASE_ADMIN_URL": admin_url}
        )
        return [line.removeprefix("applied ") for line in told.splitlines()]


async def run(command: list[str], env: dict[str, str]) -> str:
    """Run to the end; return what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()
    return told.decode()


@asynccontextmanager
async def started(plan: StackPlan, tree: Path) -> AsyncIterator[Upgraded]:
    stack = Upgraded(plan, tree)
    try:
        await stack.start()
        yield stack
    finally:
        await stack.stop()


async def document_of(public_url: str) -> str:
    """Return how the API that answers there describes itself: as its own code has it."""
    async with httpx.AsyncClient(timeout=30) as http:
        return (await http.get(f"{public_url}/openapi.json")).text


async def under_way(runs: list[Run], others: list[Run], more: int) -> None:
    """Wait until this many more rounds of payments were begun over each of two rails."""
    wanted, wanted_of_others = len(runs) + more, len(others) + more

    async def begun() -> bool:
        return len(runs) >= wanted and len(others) >= wanted_of_others

    await until_async(begun, 120)


async def replace_all(stack: Upgraded, names: list[str], where: dict[str, str]) -> None:
    for name in names:
        try:
            await restart(stack, name, where[name])
        except TimeoutError as error:
            said = stack.supervisor.log(name).read_text(errors="replace")[-2000:]
            raise AssertionError(f"{name} of the new code is not ready: {said}") from error


async def test_processes_are_replaced_one_by_one_on_the_new_schema_and_no_payment_notices(old_tree: Path) -> None:
    known = {migration.name for migration in load_migrations()}
    with tempfile.TemporaryDirectory(prefix="fleet-upgrade-") as name:
        plan = StackPlan(Path(name), rails={"promptpay": 2, "sbp": 2}, provider_latency_ms=40)
        async with started(plan, old_tree) as stack:
            others = [core_process(stack, f"{role}-2", role) for role in ("api", "relay", "settler", "resolver")]
            where = await with_others(stack, others)
            old = await document_of(stack.info.public_url)
            database = await Database.connect(stack.info.database_url, max_size=4)
            numbers, ended, runs, in_roubles = itertools.count(), asyncio.Event(), list[Run](), list[Run]()
            info = stack.info
            client_of = partial(FleetClient, key_id=info.key_id, secret=info.key_secret, attempts=60, signs_keys=False)
            async with client_of(info.public_url) as first, client_of(others[0].public_url) as second:
                sending = [
                    asyncio.create_task(send(Fleet(stack, client, database, numbers), ended, of_rail, lines_of))
                    for client in (first, second)
                    for lines_of, of_rail in ((over_promptpay, runs), (over_sbp, in_roubles))
                ]
                await under_way(runs, in_roubles, 2)
                applied = await stack.migrate()
                assert len(applied) >= 10
                assert set(applied) <= known
                await under_way(runs, in_roubles, 2)  # the old code alone, on the new schema
                stack.code.update(code_of(ROOT))
                await replace_all(stack, ["api-2", "relay-2", "settler-2", "resolver-2"], where)
                assert await document_of(stack.info.public_url) == old
                assert await document_of(others[0].public_url) != old
                await under_way(runs, in_roubles, 4)  # the core's roles, old and new, and old adapters
                # An old core refuses capabilities that it does not know: adapters follow the API that they register at.
                await replace_all(stack, [API, "promptpay-2", "sbp-2"], where)
                assert await document_of(stack.info.public_url) == await document_of(others[0].public_url)
                await under_way(runs, in_roubles, 4)  # adapters, old and new, and a worker of the old code
                await replace_all(stack, [WORKER, "promptpay-1", "sbp-1"], where)
                await under_way(runs, in_roubles, 2)
                ended.set()
                await asyncio.gather(*sending)
                for each in (*runs, *in_roubles):
                    await look(database, each)
                proof = await Fleet(stack, first, database).proof()
            await database.close()
        both = [*runs, *in_roubles]
        sent = sum(len(each.accepted) for each in both)
        assert [each.refused for each in both if each.refused] == []
        assert sum(each.ends["SETTLED"] for each in both) == sent == 2 * len(both)
        assert proof.holds, proof
        assert proof.booked == sent


async def with_others(stack: Upgraded, others: list[CoreProcess]) -> dict[str, str]:
    """Start a second process of each role of the core; return where every process answers."""
    for other in others:
        await stack.supervisor.start(stack.from_tree(other.spec))
    where = {other.spec.name: other.base_url for other in others}
    where |= {each: url.removesuffix("/metrics") for each, url in stack.info.metrics.items()}
    for url in where.values():
        await until_async(partial(is_ready, url), 60)
    return where
