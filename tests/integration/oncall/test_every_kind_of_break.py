"""Every kind of break in the catalogue is planted in books that were clean, on each rail, and is found and named.

Each kind has a payment, a wallet or a line of its own. A break may be told of by more than one comparison; no kind may
be missed, and a kind that is new in the catalogue fails here until it has a planting.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import pytest

from core.domain.registers import Account, absent_id
from core.services.recon.recon import reconcile_intents, reconcile_ledger
from fleet.stack.provision import RoleUrls
from schemas.registers import RegisterLine, RegisterStatus
from tests.integration.oncall import test_registers
from tests.integration.oncall.test_reconciliation import CONTEXT, PLANTED, plant
from tests.integration.oncall.test_registers import Day, age
from tests.integration.permits import conftest, test_collections
from tests.integration.permits.conftest import World, open_world, pay_job
from tests.integration.permits.test_collections import opened, told
from tests.integration.permits.test_payments_taken_back import BACK, STRAY
from tests.support.break_kinds import break_kinds

RAILS: Final = ("promptpay", "sbp", "bank")
"""What the bank brings as its register is what its statement booked."""
IN_THE_REGISTER: Final[dict[str, dict[str, object]]] = {
    "register_amount": {"amount_minor": 70},
    "register_fee": {"fee_minor": 7},
    "register_status": {"status": RegisterStatus.SETTLED},
}
"""What the register says otherwise of the payment that each of these kinds has."""
POST: Final = "(SELECT {what} FROM fleet.transfers WHERE user_data = '{payment}' AND flags & 4 = 4)"
IN_THE_LEDGER: Final = {
    "ledger_balance_differs": "UPDATE fleet.accounts SET credits_posted = credits_posted + 5 WHERE id = '{wallet}'",
    "ledger_flag_broken": "ALTER TABLE fleet.accounts DROP CONSTRAINT accounts_check;"
    "UPDATE fleet.accounts SET debits_posted = credits_posted + 9 WHERE id = '{wallet}'",
    "ledger_account_missing": "DELETE FROM fleet.accounts WHERE id = '{wallet}'",
    "ledger_chain_broken": "UPDATE fleet.transfers SET chain_id = '{payment}', chain_length = 2"
    f" WHERE id = {POST.replace('{what}', 'id')}",
    "ledger_resolution_unfounded": "DELETE FROM fleet.transfer_resolutions"
    f" WHERE pending_id = {POST.replace('{what}', 'pending_id')}",
}
UNBALANCED: Final = "ledger_ledger_unbalanced"
"""What the first of those comes to for the whole ledger."""
ENDS: Final = {"orphan_hold": "open", "hold_missing": "open", "ended_but_posted": "failed", "projection_drift": "sent",
               "register_status": "failed"}  # fmt: skip
"""How the payment of a kind ended, where it did not settle."""
OF_NO_PAYMENT: Final = {"register_missing_here", "payment_quarantined", UNBALANCED}
PLANTINGS: Final = (
    {*PLANTED, *IN_THE_REGISTER, *IN_THE_LEDGER, *OF_NO_PAYMENT}
    | {"register_duplicate", "register_missing_there", "register_absent"}
)  # fmt: skip


@dataclass(slots=True)
class Books:
    """A payment and a wallet for each kind, and the register in which an honest provider tells of all of them."""

    day: Day
    wallets: dict[str, UUID] = field(default_factory=dict)

    async def pay(self, kind: str) -> None:
        """Make the payment that a kind is planted in, and the register's line of it."""
        world, end = self.day.world, ENDS.get(kind, "settled")
        wallet = self.wallets[kind] = await world.wallet(1_000)
        intent = self.day.intents[kind] = await world.pay(wallet)
        if end == "open":
            return
        await world.sent(intent)
        if end == "sent":
            return
        place, job = len(self.day.intents), pay_job(intent)
        if end == "failed":
            await world.tell(job, "DECLINED", reason="payee_not_found")
        else:
            await world.tell(job, "SUCCEEDED", provider_tx_id=f"TX{place}")
        line = {
            "line": place, "provider_ref": f"TX{place}", "our_ref": (await world.job(job))["reference"],
            "operation": "PAYMENT", "direction": "OUT", "amount_minor": 100, "fee_minor": 0, "currency": "THB",
            "status": "FAILED" if end == "failed" else "SETTLED", "at": datetime.now(UTC),
        }  # fmt: skip
        self.day.lines.append(RegisterLine.model_validate(line))

    async def spoiled(self) -> list[RegisterLine]:
        """Return the register with every difference in it."""
        references = {(await self.day.world.job(pay_job(x)))["reference"]: kind for kind, x in self.day.intents.items()}
        lines = []
        for line in self.day.lines:
            kind = references[line.our_ref]
            if kind in ("register_missing_there", "register_absent"):
                continue
            lines.append(line.model_copy(update=IN_THE_REGISTER.get(kind, {})))
            if kind == "register_duplicate":
                lines.append(line.model_copy(update={"line": 901, "provider_ref": "TX901"}))
        stranger = {"line": 902, "provider_ref": "TX902", "our_ref": "NOT-OURS"}
        return [*lines, self.day.lines[0].model_copy(update=stranger)]


@pytest.fixture(params=[RAILS[0], *(pytest.param(rail, marks=pytest.mark.long) for rail in RAILS[1:])])
async def world(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    fresh_database: RoleUrls,
    admin_connection: asyncpg.Connection,
) -> AsyncIterator[World]:
    """A world whose rail is one of the three."""
    for module in (conftest, test_registers, test_collections):
        monkeypatch.setattr(module, "RAIL", request.param)
    monkeypatch.setattr(test_registers, "ACCOUNT", Account(request.param, "main", "sandbox"))
    async with open_world(fresh_database, admin_connection) as made:
        yield made


def test_every_kind_of_the_catalogue_has_a_planting() -> None:
    assert break_kinds() == PLANTINGS


async def test_each_kind_is_planted_found_and_named_and_none_is_found_on_clean_books(world: World) -> None:
    await opened(world)
    books = Books(await Day.opened(world, inquiry=True))
    for kind in sorted(PLANTINGS - OF_NO_PAYMENT):
        await books.pay(kind)
    day, ports = books.day, world.core.worker_ports
    before = day.day - timedelta(days=1)
    await day.bring()
    for run in (await day.compare(), await day.compare(before)):
        assert (run.clean, run.breaks) == (True, 0), run
    assert (await reconcile_intents(ports, CONTEXT)).found == {}
    assert (await reconcile_ledger(ports, CONTEXT)).found == {}

    await age(day, "register_missing_there")
    noon = day.start - timedelta(hours=12)
    absent = pay_job(day.intents["register_absent"])
    await world.admin.execute("UPDATE fleet.jobs SET closed_at = $2 WHERE id = $1", absent, noon)
    await day.bring(await books.spoiled())
    await day.compare()
    await day.compare(before)
    for kind, (statement, role, _) in PLANTED.items():
        await plant(world, *statement.format(**{role: day.intents[kind]}).split(";"))
    for kind, statement in IN_THE_LEDGER.items():
        await plant(world, *statement.format(wallet=books.wallets[kind], payment=day.intents[kind]).split(";"))
    await reconcile_intents(ports, CONTEXT)
    await reconcile_ledger(ports, CONTEXT)
    assert await told(world, STRAY) == ["SUSPENDED"]
    assert await told(world, BACK | {"amount_minor": 200}, BACK | {"amount_minor": 300}) == ["REVERSED", "QUARANTINED"]

    rows = await world.admin.fetch(
        "SELECT id, kind, subject_id, intent_id, rail, reference, amount_minor FROM fleet.breaks"
    )
    assert {row["kind"] for row in rows} == break_kinds()
    named = {(row["kind"], each) for row in rows for each in (row["subject_id"], row["intent_id"]) if each is not None}
    of_wallets = {"ledger_balance_differs", "ledger_flag_broken", "ledger_account_missing"}
    for kind in sorted(PLANTINGS - OF_NO_PAYMENT - {"register_absent", "ledger_resolution_unfounded"}):
        subject = books.wallets[kind] if kind in of_wallets else day.intents[kind]
        assert (kind, subject) in named, (kind, rows)
    post = await world.admin.fetchval(
        "SELECT id FROM fleet.transfers WHERE user_data = $1 AND flags & 4 = 4",
        day.intents["ledger_resolution_unfounded"],
    )
    assert ("ledger_resolution_unfounded", post) in named
    assert absent_id(test_registers.ACCOUNT, before) in {row["id"] for row in rows}
    (stranger,) = [row for row in rows if row["kind"] == "register_missing_here"]
    assert (stranger["reference"], stranger["rail"]) == ("NOT-OURS", conftest.RAIL)
