"""The bad scenarios of `./dev observe`: how each begins, which alerts it causes, how it ends."""
# ruff: noqa: S608  the statements hold one constant of ours

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import httpx

from fleet.client import FleetClient, Refused, Unreachable
from fleet.stack.bank import OWN_ACCOUNT_ID, transfer_in
from fleet.stack.provision import with_database
from fleet.stack.stack import WORKER, Stack
from schemas.api import AutoConfirm, ConfirmRequest, IntentRequest, IntentView, WalletRequest
from schemas.envelope import ENVELOPE_VERSION, Envelope
from schemas.operations import OperationType
from schemas.permits import Payee
from schemas.results import RESULT_TYPE, Result, Verdict
from schemas.streams import CORE_GROUP, results_stream
from wire.client import connect_redis

_RAIL: Final = "promptpay"
_SIMULATOR: Final = f"{_RAIL}-simulator"
_WITHIN_S: Final = 90
_PLANTED: Final = UUID("00000000-0000-7000-8000-00000000bad0")


@dataclass(slots=True)
class World:
    """The running system and who pays in it."""

    stack: Stack
    client: FleetClient
    wallet: UUID
    roubles: UUID
    holds: "asyncpg.Connection[asyncpg.Record] | None" = None
    """Who holds a lock, while a scenario wants it held."""
    entry: bytes = b""
    """The entry that a scenario added."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that goes wrong, and comes right again."""

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


async def pay_roubles(world: World, count: int) -> None:
    """Ask for payments over SBP, to phones at a bank, at once."""
    asked = [
        IntentRequest(
            operation=OperationType.PAYOUT,
            wallet_id=world.roubles,
            amount_minor=10_000,
            currency="RUB",
            payee=Payee(type="phone_bank", value=f"7916{number:07d}@100000000004"),
            auto_confirm=AutoConfirm(max_fee_minor=500),
        )
        for number in range(count)
    ]
    await asyncio.gather(*(world.client.create_intent(each, idempotency_key=uuid4().hex) for each in asked))


def _admin_url(world: World) -> str:
    if world.stack.postgres is None:
        raise RuntimeError("observe plants faults in the embedded PostgreSQL: unset DATABASE_URL")
    return with_database(world.stack.postgres.admin_url, world.stack.plan.database_name)


async def _value(world: World, query: str) -> Any:
    connection = await asyncpg.connect(_admin_url(world))
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@asynccontextmanager
async def _redis(world: World) -> AsyncIterator[Any]:
    client: Any = connect_redis(world.stack.info.redis_url, "observe")
    try:
        yield client
    finally:
        await client.aclose()


async def _sql(world: World, *statements: str) -> None:
    connection = await asyncpg.connect(_admin_url(world))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def _planted(*statements: str) -> Callable[[World], Awaitable[None]]:
    async def plant(world: World) -> None:
        await _sql(world, *statements)

    return plant


_CLOSE_ALERTS: Final = _planted(
    "UPDATE fleet.alerts SET closed_at = now() WHERE closed_at IS NULL",
    "UPDATE fleet.dead_letters SET state = 'CLOSED' WHERE state = 'OPEN'",
)
"""What a person does in the end, of all that is open."""


def _adapters(world: World) -> list[str]:
    return [name for name in world.stack.supervisor.pids() if name.startswith(f"{_RAIL}-") and name[-1].isdigit()]


def _signal(world: World, names: Sequence[str], number: signal.Signals) -> None:
    for name in names:
        os.kill(world.stack.supervisor.pid(name), number)


async def _useless_results(world: World) -> None:
    fields = {"v": "1", "id": "observe", "type": "nonsense", "body": "{}", "traceparent": ""}
    async with _redis(world) as client:
        await client.xadd(results_stream(_RAIL), fields)


async def _looked_up(world: World, count: int) -> list[IntentView]:
    """Ask for payments and wait until each one's payee was looked up: confirmed, it holds its money."""
    asked = [await ask(world, "0812345678", confirmed=False) for _ in range(count)]
    waiting = "SELECT count(*) FROM fleet.intents WHERE state = 'AWAITING_CONFIRMATION'"
    async with asyncio.timeout(_WITHIN_S):
        while await _value(world, waiting) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    return asked


async def _confirm(world: World, asked: Sequence[IntentView]) -> None:
    for intent in asked:
        found = await world.client.get_intent(intent.id)
        await world.client.confirm_intent(
            intent.id, ConfirmRequest(amount_minor=found.amount_minor, fee_minor=found.fee_minor)
        )


async def _stop_adapters(world: World) -> None:
    asked = await _looked_up(world, 5)
    _signal(world, _adapters(world), signal.SIGSTOP)
    await _confirm(world, asked)
    # More than the gate lets into the stream.
    await pay(world, ["0812345678"] * 60)


async def _go_on_adapters(world: World) -> None:
    _signal(world, _adapters(world), signal.SIGCONT)


async def _stop_worker(world: World) -> None:
    _signal(world, [WORKER], signal.SIGSTOP)


async def _go_on_worker(world: World) -> None:
    _signal(world, [WORKER], signal.SIGCONT)


async def _doubts(world: World) -> None:
    # Fewer than would open the breaker: it would end the doubts by asking no more.
    await pay(world, [*["0812345678"] * 12, *["0899990002"] * 2])


async def _nothing(_: World) -> None:
    """It passes by itself."""


async def _stop_provider(world: World) -> None:
    """Have payees looked up, stop the provider, and send: what was permitted is in doubt until its deadline."""
    asked = await _looked_up(world, 30)
    _signal(world, [_SIMULATOR], signal.SIGSTOP)
    await _confirm(world, asked)


async def _go_on_provider(world: World) -> None:
    _signal(world, [_SIMULATOR], signal.SIGCONT)
    async with asyncio.timeout(_WITHIN_S):
        # Inquiries bring every payment to its end; an alert is closed by a person.
        while await _value(world, "SELECT count(*) FROM fleet.intents WHERE state = 'UNRESOLVED'"):  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    await _CLOSE_ALERTS(world)


async def _tell_of_a_late_success(world: World) -> None:
    await pay(world, ["0899990008"])
    newest = "FROM fleet.intents ORDER BY id DESC LIMIT 1"
    async with asyncio.timeout(_WITHIN_S):
        while await _value(world, f"SELECT state {newest}") != "FAILED":  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    told = await _value(
        world, f"SELECT body FROM fleet.facts WHERE verdict = 'DECLINED' AND intent_id = (SELECT id {newest})"
    )
    paid = Result.model_validate_json(told).model_copy(update={"verdict": Verdict.SUCCEEDED, "reason": ""})
    async with _redis(world) as client:
        entry = Envelope(id=uuid4().hex, type=RESULT_TYPE, body=paid.model_dump_json())
        await client.xadd(results_stream(_RAIL), entry.to_fields())


async def _tell_of_tomorrow(world: World) -> None:
    """Publish a verdict in a version that no settler reads yet: it stays pending, for a newer one."""
    async with _redis(world) as client:
        entry = Envelope(id=uuid4().hex, type=RESULT_TYPE, body="{}", v=ENVELOPE_VERSION + 1)
        world.entry = await client.xadd(results_stream(_RAIL), entry.to_fields())


async def _take_it_back(world: World) -> None:
    async with _redis(world) as client:
        await client.xack(results_stream(_RAIL), CORE_GROUP, world.entry)
        await client.xdel(results_stream(_RAIL), world.entry)


async def _lose_outbox_rows(world: World) -> None:
    await _stop_worker(world)
    await pay(world, ["0812345678"] * 3)
    await _sql(world, f"DELETE FROM fleet.outbox WHERE rail = '{_RAIL}'")
    await _go_on_worker(world)


async def _read_the_wallet(world: World) -> None:
    info = world.stack.info
    async with FleetClient(info.public_url, info.key_id, info.key_secret, attempts=1) as hasty:
        for _ in range(10):
            with contextlib.suppress(Refused, Unreachable):
                await hasty.get_wallet(world.wallet)


async def _lock_outbox(world: World) -> None:
    world.holds = await asyncpg.connect(_admin_url(world))
    await world.holds.execute("BEGIN")
    await world.holds.execute("LOCK TABLE fleet.outbox IN ACCESS EXCLUSIVE MODE")


async def _unlock_outbox(world: World) -> None:
    if world.holds is not None:
        await world.holds.close()


async def _bad_statement(world: World) -> None:
    bank = next(place for place in world.stack.places if place.rail == "bank")
    async with httpx.AsyncClient(base_url=bank.url, timeout=30, trust_env=False) as http:
        path = f"/_mock/accounts/{OWN_ACCOUNT_ID}"
        (await http.patch(path, json={"behaviour": "statement-gap"})).raise_for_status()
        for number in range(2):
            await transfer_in(bank.url, f"observe-{number}", 700 + number)
        (await http.post("/_mock/advance", params={"days": 1})).raise_for_status()
        (await http.patch(path, json={"behaviour": "accept"})).raise_for_status()


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
        _CLOSE_ALERTS,
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
    Scenario(
        "every adapter stands still",
        ("JobsStuck", "ProcessDown", "GateClosed", "HoldOld"),
        _stop_adapters,
        _go_on_adapters,
    ),
    Scenario("core-worker stands still", ("ObserverSilent", "ProcessDown"), _stop_worker, _go_on_worker),
    Scenario(
        "jobs wait for a stream that nobody relays",
        ("OutboxStuck",),
        _fill_outbox,
        _planted(f"DELETE FROM fleet.outbox WHERE job_id = '{_PLANTED}'"),
    ),
    Scenario("the provider pays and does not answer", ("ProviderUnanswered",), _doubts, _nothing, _doubts),
    Scenario(
        "the provider is away, with payments on their way to it",
        (
            "BreakerOpen",
            "UnresolvedOverdue",
            "MoneyAlertOpen",
            "PaymentsBurnFast",
            "PaymentsBurnSlow",
            "PaymentsBurnLong",
        ),
        _stop_provider,
        _go_on_provider,
    ),
    Scenario(
        "an adapter tells late that a voided payment was paid",
        ("PaidAfterVoid",),
        _tell_of_a_late_success,
        _CLOSE_ALERTS,
    ),
    Scenario("a verdict is of a version that no settler reads", ("ResultsStuck",), _tell_of_tomorrow, _take_it_back),
    Scenario("jobs are in no outbox and in no stream", ("PaymentsStranded",), _lose_outbox_rows, _nothing),
    Scenario(
        "the API may not read its own schema",
        ("ApiErrors",),
        _planted("REVOKE USAGE ON SCHEMA fleet FROM fleet_app"),
        _planted("GRANT USAGE ON SCHEMA fleet TO fleet_app"),
        _read_the_wallet,
    ),
    Scenario("a lock on a table stops the relay", ("LoopStalled",), _lock_outbox, _unlock_outbox),
    Scenario(
        "a register has not come, and the break that tells of it grows old",
        ("RegisterLate", "BreakOld"),
        _planted(
            "INSERT INTO fleet.register_days (rail, provider_account, environment, business_day, wanted_at)"
            " VALUES ('away', 'main', 'sandbox', current_date, now() - interval '7 hours')",
            "INSERT INTO fleet.breaks (id, tenant_id, kind, detail, rail, provider_account, environment, business_day,"
            f" first_seen_at) VALUES ('{_PLANTED}', '{_PLANTED}', 'register_absent', 'a scenario', 'away', 'main',"
            " 'sandbox', current_date, now() - interval '4 days')",
        ),
        _planted(
            "DELETE FROM fleet.register_days WHERE rail = 'away'",
            f"UPDATE fleet.breaks SET state = 'GONE', ended_at = now() WHERE id = '{_PLANTED}'",
        ),
    ),
    Scenario("a bank's statement does not add up", ("StatementGap",), _bad_statement, _nothing),
)

BY_PROMTOOL: Final = {
    "EvidenceDropped": "an adapter gives evidence up only where 5,000 pieces wait, or the core refuses it",
    "BankMessageRefused": "mock-bank sends nothing that cannot be read",
    "BooksUnproven": "no proof of the ledger for two days: the moment of the last one is the process's own, and no row",
}
"""Alerts that no scenario causes, and why: their rules are proven by promtool's unit tests alone."""

_NOT_OF_SBP: Final = "the scenarios strike PromptPay's dashboard, which shows it; the query is the same"
MAY_BE_EMPTY: Final = {
    "Paused sbp": _NOT_OF_SBP,
    "Dead letters sbp": _NOT_OF_SBP,
    "Doubts sbp": _NOT_OF_SBP,
    "Came again": "no adapter dies with entries in hand: tests/chaos kills them",
    "Put back": "no entry is lost from a stream that keeps its others: tests/chaos flushes streams",
    "Parked": "no adapter reads an older contract than the core writes: tests/integration/bus parks such entries",
    "Given up": "no adapter fails for as long as it takes to give a job up",
    "Lines compared": "the day of a register has not ended while this runs",
    "Comparing a day": "the day of a register has not ended while this runs",
    "Core unreachable": "the API is never away: permits are asked of it",
}
"""Panels, with the rail where it is chosen, that say 0 where nothing was counted, and why none of it happens here."""
