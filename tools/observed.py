"""The bad scenarios of `./dev observe`: how each begins, which alerts it causes, how it ends."""
# ruff: noqa: S608  the statements hold one constant of ours

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from typing import Final
from uuid import UUID, uuid4

import asyncpg
import httpx

from fleet.client import FleetClient, Refused, Unreachable
from fleet.stack.bank import OWN_ACCOUNT_ID, transfer_in
from fleet.stack.stack import WORKER
from schemas.api import ConfirmRequest, IntentView
from schemas.envelope import ENVELOPE_VERSION, Envelope
from schemas.results import RESULT_TYPE, Result, Verdict
from schemas.streams import CORE_GROUP, results_stream
from tools.observed_desk import close_what_is_open
from tools.observed_rails import RAILS_AND_OTHERS
from tools.observed_world import (
    PHONES,
    Scenario,
    World,
    adapters_of,
    admin_url,
    ask,
    letters_of,
    nothing,
    pay,
    pay_roubles,
    planted,
    redis_of,
    send_signal,
    sql,
    until,
    value,
)

_RAIL: Final = "promptpay"
_BOTH: Final = (_RAIL, "sbp")
_SIMULATOR: Final = f"{_RAIL}-simulator"
_PLANTED: Final = UUID("00000000-0000-7000-8000-00000000bad0")
_PROOF: Final = "hashtextextended('fleet.recon:ledger', 0)"
"""The lock under which one resolver alone proves the books."""


async def _useless_results(world: World) -> None:
    fields = {"v": "1", "id": "observe", "type": "nonsense", "body": "{}", "traceparent": ""}
    async with redis_of(world) as client:
        for rail in _BOTH:
            await client.xadd(results_stream(rail), fields)
    await letters_of(world, _BOTH)


async def _looked_up(world: World, count: int) -> list[IntentView]:
    """Ask for payments and wait until each one's payee was looked up: confirmed, it holds its money."""
    asked = [await ask(world, "0812345678", confirmed=False) for _ in range(count)]
    waiting = "SELECT count(*) FROM fleet.intents WHERE state = 'AWAITING_CONFIRMATION'"

    async def all_wait() -> bool:
        return bool(await value(world, waiting) >= count)

    await until(all_wait, "answer to every lookup")
    return asked


async def _confirm(world: World, asked: Sequence[IntentView]) -> None:
    """Confirm all at once: a breaker counts the failures of some seconds alone, however busy this machine is."""

    async def confirm(intent: IntentView) -> None:
        found = await world.client.get_intent(intent.id)
        await world.client.confirm_intent(
            intent.id, ConfirmRequest(amount_minor=found.amount_minor, fee_minor=found.fee_minor)
        )

    await asyncio.gather(*(confirm(intent) for intent in asked))


async def _stop_adapters(world: World) -> None:
    send_signal(world, adapters_of(world, _RAIL), signal.SIGSTOP)
    # More than the gate lets into the stream.
    await pay(world, ["0812345678"] * 60)


async def _go_on_adapters(world: World) -> None:
    send_signal(world, adapters_of(world, _RAIL), signal.SIGCONT)


async def _stop_worker(world: World) -> None:
    send_signal(world, [WORKER], signal.SIGSTOP)


async def _go_on_worker(world: World) -> None:
    send_signal(world, [WORKER], signal.SIGCONT)


async def _doubts(world: World) -> None:
    # Fewer than would open the breaker: it would end the doubts by asking no more.
    await pay(world, [*["0812345678"] * 12, *["0899990002"] * 2])
    await pay_roubles(world, [*PHONES, *["79990000002"] * 2])


async def _stop_provider(world: World) -> None:
    """Have payees looked up, stop the provider, and send: what was permitted is in doubt until its deadline."""
    asked = await _looked_up(world, 30)
    send_signal(world, [_SIMULATOR], signal.SIGSTOP)
    await _confirm(world, asked)


async def _go_on_provider(world: World) -> None:
    send_signal(world, [_SIMULATOR], signal.SIGCONT)

    async def none_is_unresolved() -> bool:
        return not await value(world, "SELECT count(*) FROM fleet.intents WHERE state = 'UNRESOLVED'")

    # Inquiries bring every payment to its end; an alert is closed by a person.
    await until(none_is_unresolved, "end of every unresolved payment")
    await close_what_is_open(world)


async def _tell_of_a_late_success(world: World) -> None:
    await pay(world, ["0899990008"])
    newest = "FROM fleet.intents ORDER BY id DESC LIMIT 1"

    async def has_failed() -> bool:
        return bool(await value(world, f"SELECT state {newest}") == "FAILED")

    await until(has_failed, "end of a payment that is declined")
    told = await value(
        world, f"SELECT body FROM fleet.facts WHERE verdict = 'DECLINED' AND intent_id = (SELECT id {newest})"
    )
    paid = Result.model_validate_json(told).model_copy(update={"verdict": Verdict.SUCCEEDED, "reason": ""})
    async with redis_of(world) as client:
        entry = Envelope(id=uuid4().hex, type=RESULT_TYPE, body=paid.model_dump_json())
        await client.xadd(results_stream(_RAIL), entry.to_fields())


async def _tell_of_tomorrow(world: World) -> None:
    """Publish a verdict in a version that no settler reads yet: it stays pending, for a newer one."""
    async with redis_of(world) as client:
        entry = Envelope(id=uuid4().hex, type=RESULT_TYPE, body="{}", v=ENVELOPE_VERSION + 1)
        world.entry = await client.xadd(results_stream(_RAIL), entry.to_fields())


async def _take_it_back(world: World) -> None:
    async with redis_of(world) as client:
        await client.xack(results_stream(_RAIL), CORE_GROUP, world.entry)
        await client.xdel(results_stream(_RAIL), world.entry)


async def _lose_outbox_rows(world: World) -> None:
    await _stop_worker(world)
    await pay(world, ["0812345678"] * 3)
    await sql(world, f"DELETE FROM fleet.outbox WHERE rail = '{_RAIL}'")
    await _go_on_worker(world)


async def _read_the_wallet(world: World) -> None:
    info = world.stack.info
    async with FleetClient(info.public_url, info.key_id, info.key_secret, attempts=1) as hasty:
        for _ in range(10):
            with contextlib.suppress(Refused, Unreachable):
                await hasty.get_wallet(world.wallet)


async def _lock_outbox(world: World) -> None:
    world.holds = await asyncpg.connect(admin_url(world))
    await world.holds.execute("BEGIN")
    await world.holds.execute("LOCK TABLE fleet.outbox IN ACCESS EXCLUSIVE MODE")


async def _let_go(world: World) -> None:
    if world.holds is not None:
        await world.holds.close()


async def _hold_proofs(world: World) -> None:
    world.holds = await asyncpg.connect(admin_url(world))
    await world.holds.execute(f"SELECT pg_advisory_lock({_PROOF})")


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
    await sql(
        world,
        "INSERT INTO fleet.outbox (job_id, tenant_id, rail, stream, body, not_before)"
        f" VALUES ('{_PLANTED}', '{_PLANTED}', 'away', '{{away}}:jobs', '{{}}', now())",
    )


SCENARIOS: Final = (
    Scenario(
        "a ledger is out of balance",
        ("LedgerImbalanced",),
        planted(
            "INSERT INTO fleet.accounts (id, tenant_id, ledger, code, flags, credits_posted)"
            f" VALUES ('{_PLANTED}', '{_PLANTED}', 764, 1, 0, 250)"
        ),
        planted(f"UPDATE fleet.accounts SET credits_posted = 0 WHERE id = '{_PLANTED}'"),
    ),
    Scenario(
        "an adapter reports what nobody can use",
        ("ResultsUnusable", "MoneyAlertOpen", "DeadLettersOpen"),
        _useless_results,
        close_what_is_open,
    ),
    Scenario(
        "a person paused the rails and forgot it",
        ("RailPausedLong",),
        planted(
            "INSERT INTO fleet.rail_pauses (rail, operation, paused_by, reason)"
            " VALUES ('promptpay', '*', 'observe', 'a scenario'), ('sbp', '*', 'observe', 'a scenario')"
        ),
        planted("DELETE FROM fleet.rail_pauses WHERE paused_by = 'observe'"),
    ),
    Scenario(
        "adapters have not reached the core for long",
        ("RailWaitsLong",),
        planted(
            "INSERT INTO fleet.rail_waits (rail, operation, cause, began_at, holds_until)"
            " SELECT rail, '*', 'adapters', now() - interval '20 minutes', now() + interval '1 hour'"
            " FROM unnest(ARRAY['promptpay', 'sbp']) rail"
        ),
        planted("DELETE FROM fleet.rail_waits WHERE began_at < now() - interval '20 minutes'"),
    ),
    Scenario(
        "every adapter stands still",
        ("JobsStuck", "ProcessDown", "GateClosed"),
        _stop_adapters,
        _go_on_adapters,
    ),
    Scenario("core-worker stands still", ("ObserverSilent", "ProcessDown"), _stop_worker, _go_on_worker),
    Scenario(
        "jobs wait for a stream that nobody relays",
        ("OutboxStuck",),
        _fill_outbox,
        planted(f"DELETE FROM fleet.outbox WHERE job_id = '{_PLANTED}'"),
    ),
    Scenario("the provider pays and does not answer", ("ProviderUnanswered",), _doubts, nothing, _doubts),
    Scenario(
        "the provider is away, with payments on their way to it",
        (
            "BreakerOpen",
            "UnresolvedOverdue",
            # What was never sent is given back at its deadline: money that is in doubt alone is held for long.
            "HoldOld",
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
        close_what_is_open,
    ),
    Scenario("a verdict is of a version that no settler reads", ("ResultsStuck",), _tell_of_tomorrow, _take_it_back),
    Scenario("jobs are in no outbox and in no stream", ("PaymentsStranded",), _lose_outbox_rows, nothing),
    Scenario(
        "the API may not read its own schema",
        ("ApiErrors",),
        planted("REVOKE USAGE ON SCHEMA fleet FROM fleet_app"),
        planted("GRANT USAGE ON SCHEMA fleet TO fleet_app"),
        _read_the_wallet,
    ),
    Scenario("a lock on a table stops the relay", ("LoopStalled",), _lock_outbox, _let_go),
    Scenario(
        "a register has not come, and the break that tells of it grows old",
        ("RegisterLate", "BreakOld"),
        planted(
            "INSERT INTO fleet.register_days (rail, provider_account, environment, business_day, wanted_at)"
            " VALUES ('away', 'main', 'sandbox', current_date, now() - interval '7 hours')",
            "INSERT INTO fleet.breaks (id, tenant_id, kind, detail, rail, provider_account, environment, business_day,"
            f" first_seen_at) VALUES ('{_PLANTED}', '{_PLANTED}', 'register_absent', 'a scenario', 'away', 'main',"
            " 'sandbox', current_date, now() - interval '4 days')",
        ),
        planted(
            "DELETE FROM fleet.register_days WHERE rail = 'away'",
            f"UPDATE fleet.breaks SET state = 'GONE', ended_at = now() WHERE id = '{_PLANTED}'",
        ),
    ),
    Scenario("a bank's statement does not add up", ("StatementGap",), _bad_statement, nothing),
    Scenario("nobody proves the books: who began does not end", ("BooksUnproven",), _hold_proofs, _let_go),
    *RAILS_AND_OTHERS,
)
