"""The system that `./dev observe` watches: who pays in it, and how its servers are reached to break something."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg

from fleet.client import FleetClient
from fleet.stack.provision import with_database
from fleet.stack.stack import Stack
from schemas.api import AutoConfirm, IntentRequest, IntentView, WalletRequest
from schemas.operations import OperationType
from schemas.permits import Payee
from wire.client import connect_redis

PHONES: Final = tuple(f"7916{number:07d}" for number in range(10))
"""Of payees of SBP who are paid at once."""
_LONGEST_S: Final = 90


def patience_s(seconds: float) -> float:
    """Return how long to wait for what takes less on a machine that does nothing else: longer while it is busy."""
    return seconds * min(5.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


@dataclass(slots=True)
class World:
    """The running system and who pays in it."""

    stack: Stack
    client: FleetClient
    wallet: UUID
    roubles: UUID
    second: tuple[str, str]
    """The key of the other person on call: its id and its secret."""
    holds: "asyncpg.Connection[asyncpg.Record] | None" = None
    """Who holds a lock, while a scenario wants it held."""
    entry: bytes = b""
    """The entry that a scenario added."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that goes wrong, and comes right again. One without an alert is there for the panels that it fills."""

    says: str
    alerts: tuple[str, ...]
    begin: Callable[[World], Awaitable[None]]
    end: Callable[[World], Awaitable[None]]
    meanwhile: Callable[[World], Awaitable[None]] | None = None
    """What goes on, again and again, until the alerts fire."""


async def wallet_with(client: FleetClient, amount_minor: int, currency: str = "THB") -> UUID:
    """Open a wallet and fund it."""
    made = await client.create_wallet(WalletRequest(owner="observe", currency=currency, external_id=uuid4().hex))
    fund = IntentRequest(
        operation=OperationType.MANUAL_ADJUSTMENT, wallet_id=made.id, amount_minor=amount_minor, currency=currency
    )
    await client.create_intent(fund, idempotency_key=uuid4().hex)
    return made.id


async def ask(world: World, mobile: str, *, confirmed: bool = True) -> IntentView:
    """Ask for one payment; one that is not `confirmed` waits for that once its payee was looked up."""
    asked = IntentRequest(
        operation=OperationType.PAYOUT,
        wallet_id=world.wallet,
        amount_minor=100,
        currency="THB",
        payee=Payee(type="mobile", value=mobile),
        auto_confirm=AutoConfirm(max_fee_minor=500) if confirmed else None,
    )
    return await world.client.create_intent(asked, idempotency_key=uuid4().hex)


async def pay(world: World, mobiles: Sequence[str]) -> None:
    """Ask for one payment to each payee, at once."""
    await asyncio.gather(*(ask(world, mobile) for mobile in mobiles))


async def pay_roubles(world: World, phones: Sequence[str] = PHONES) -> None:
    """Ask for one payment over SBP to each phone at a bank, at once."""
    asked = [
        IntentRequest(
            operation=OperationType.PAYOUT,
            wallet_id=world.roubles,
            amount_minor=10_000,
            currency="RUB",
            payee=Payee(type="phone_bank", value=f"{phone}@100000000004"),
            auto_confirm=AutoConfirm(max_fee_minor=500),
        )
        for phone in phones
    ]
    await asyncio.gather(*(world.client.create_intent(each, idempotency_key=uuid4().hex) for each in asked))


async def until(is_so: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until it is so. Raises TimeoutError that says `what` did not come."""
    longest_s = patience_s(_LONGEST_S)
    try:
        async with asyncio.timeout(longest_s):
            while not await is_so():  # noqa: ASYNC110  bounded by the time-out
                await asyncio.sleep(0.2)
    except TimeoutError as error:
        raise TimeoutError(f"within {longest_s:.0f} s there was no {what}") from error


async def letters_of(world: World, rails: Sequence[str]) -> None:
    """Wait until the core keeps an open letter of each rail. Raises TimeoutError."""

    async def of_each() -> bool:
        found = await value(world, "SELECT array_agg(DISTINCT rail) FROM fleet.dead_letters WHERE state = 'OPEN'")
        return set(rails) <= set(found or ())

    await until(of_each, f"letter of each of {', '.join(rails)}")


def admin_url(world: World) -> str:
    """Return the superuser's address of the fleet's database."""
    if world.stack.postgres is None:
        raise RuntimeError("observe plants faults in the embedded PostgreSQL: unset DATABASE_URL")
    return with_database(world.stack.postgres.admin_url, world.stack.plan.database_name)


async def value(world: World, query: str) -> Any:
    """Return one value of the database."""
    connection = await asyncpg.connect(admin_url(world))
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@asynccontextmanager
async def redis_of(world: World) -> AsyncIterator[Any]:
    """Open the streams' server as its admin."""
    client: Any = connect_redis(world.stack.info.redis_url, "observe")
    try:
        yield client
    finally:
        await client.aclose()


async def sql(world: World, *statements: str) -> None:
    """Run statements as the superuser."""
    connection = await asyncpg.connect(admin_url(world))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def planted(*statements: str) -> Callable[[World], Awaitable[None]]:
    """Return what runs these statements as the superuser."""

    async def plant(world: World) -> None:
        await sql(world, *statements)

    return plant


async def nothing(_: World) -> None:
    """It passes by itself."""


def send_signal(world: World, names: Sequence[str], number: signal.Signals) -> None:
    """Signal processes of the stack."""
    for name in names:
        os.kill(world.stack.supervisor.pid(name), number)


def adapters_of(world: World, rail: str) -> list[str]:
    """Return the rail's adapters by their names."""
    return [name for name in world.stack.supervisor.pids() if name.startswith(f"{rail}-") and name[-1].isdigit()]
