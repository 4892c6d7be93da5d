"""The bad scenarios of `./dev observe`: how each begins, which alerts it causes, how it ends."""
# ruff: noqa: S608  the statements hold one constant of ours

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg

from fleet.client import FleetClient
from fleet.stack.provision import with_database
from fleet.stack.stack import WORKER, Stack
from schemas.api import AutoConfirm, IntentRequest, WalletRequest
from schemas.operations import OperationType
from schemas.permits import Payee
from schemas.streams import results_stream
from wire.client import connect_redis

_PLANTED: Final = UUID("00000000-0000-7000-8000-00000000bad0")


@dataclass(frozen=True, slots=True)
class World:
    """The running system and who pays in it."""

    stack: Stack
    client: FleetClient
    wallet: UUID


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that goes wrong, and comes right again."""

    says: str
    alerts: tuple[str, ...]
    begin: Callable[[World], Awaitable[None]]
    end: Callable[[World], Awaitable[None]]


async def wallet_with(client: FleetClient, amount_minor: int) -> UUID:
    """Open a wallet and fund it."""
    made = await client.create_wallet(WalletRequest(owner="observe", currency="THB", external_id=uuid4().hex))
    fund = IntentRequest(
        operation=OperationType.MANUAL_ADJUSTMENT, wallet_id=made.id, amount_minor=amount_minor, currency="THB"
    )
    await client.create_intent(fund, idempotency_key=uuid4().hex)
    return made.id


async def pay(world: World, mobiles: Sequence[str]) -> None:
    """Ask for one payment to each payee, at once."""
    asked = (
        world.client.create_intent(
            IntentRequest(
                operation=OperationType.PAYOUT,
                wallet_id=world.wallet,
                amount_minor=100,
                currency="THB",
                payee=Payee(type="mobile", value=mobile),
                auto_confirm=AutoConfirm(max_fee_minor=500),
            ),
            idempotency_key=uuid4().hex,
        )
        for mobile in mobiles
    )
    await asyncio.gather(*asked)


async def _sql(world: World, *statements: str) -> None:
    if world.stack.postgres is None:
        raise RuntimeError("observe plants faults in the embedded PostgreSQL: unset DATABASE_URL")
    connection = await asyncpg.connect(with_database(world.stack.postgres.admin_url, world.stack.plan.database_name))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def _planted(*statements: str) -> Callable[[World], Awaitable[None]]:
    async def plant(world: World) -> None:
        await _sql(world, *statements)

    return plant


def _adapters(world: World) -> list[str]:
    return [name for name in world.stack.supervisor.pids() if name.startswith("promptpay-") and name[-1].isdigit()]


def _signal(world: World, names: Sequence[str], number: signal.Signals) -> None:
    for name in names:
        os.kill(world.stack.supervisor.pid(name), number)


async def _useless_results(world: World) -> None:
    client: Any = connect_redis(world.stack.info.redis_url, "observe")
    fields = {"v": "1", "id": "observe", "type": "nonsense", "body": "{}", "traceparent": ""}
    try:
        await client.xadd(results_stream("promptpay"), fields)
    finally:
        await client.aclose()


async def _stop_adapters(world: World) -> None:
    _signal(world, _adapters(world), signal.SIGSTOP)
    await pay(world, ["0812345678"] * 3)


async def _go_on_adapters(world: World) -> None:
    _signal(world, _adapters(world), signal.SIGCONT)


async def _stop_worker(world: World) -> None:
    _signal(world, [WORKER], signal.SIGSTOP)


async def _go_on_worker(world: World) -> None:
    _signal(world, [WORKER], signal.SIGCONT)


async def _doubts(world: World) -> None:
    # Fewer than would open the breaker: it would end the doubts by asking no more.
    await pay(world, [*["0812345678"] * 40, *["0899990002"] * 8])


async def _nothing(_: World) -> None:
    """It passes by itself."""


async def _fill_outbox(world: World) -> None:
    await _sql(
        world,
        "INSERT INTO fleet.outbox (job_id, tenant_id, rail, stream, body, not_before)"
        f" VALUES ('{_PLANTED}', '{_PLANTED}', 'away', '{{away}}:jobs', '{{}}', now())",
    )


SCENARIOS: Final = (
    Scenario(
        "a ledger is out of balance",
        ("LedgerImbalanced",),
        _planted(
            "INSERT INTO fleet.accounts (id, tenant_id, ledger, code, flags, credits_posted)"
            f" VALUES ('{_PLANTED}', '{_PLANTED}', 764, 1, 0, 250)"
        ),
        _planted(f"UPDATE fleet.accounts SET credits_posted = 0 WHERE id = '{_PLANTED}'"),
    ),
    Scenario(
        "an adapter reports what nobody can use",
        ("ResultsUnusable", "MoneyAlertOpen", "DeadLettersOpen"),
        _useless_results,
        _planted(
            "UPDATE fleet.alerts SET closed_at = now() WHERE closed_at IS NULL",
            "UPDATE fleet.dead_letters SET state = 'CLOSED' WHERE state = 'OPEN'",
        ),
    ),
    Scenario(
        "a person paused the rail and forgot it",
        ("RailPausedLong",),
        _planted(
            "INSERT INTO fleet.rail_pauses (rail, operation, paused_by, reason)"
            " VALUES ('promptpay', '*', 'observe', 'a scenario')"
        ),
        _planted("DELETE FROM fleet.rail_pauses WHERE paused_by = 'observe'"),
    ),
    Scenario("every adapter stands still", ("JobsStuck", "ProcessDown"), _stop_adapters, _go_on_adapters),
    Scenario("the worker stands still", ("ObserverSilent", "ProcessDown"), _stop_worker, _go_on_worker),
    Scenario(
        "jobs wait for a stream that nobody relays",
        ("OutboxStuck",),
        _fill_outbox,
        _planted(f"DELETE FROM fleet.outbox WHERE job_id = '{_PLANTED}'"),
    ),
    Scenario("the provider pays and does not answer", ("ProviderUnanswered",), _doubts, _nothing),
)
