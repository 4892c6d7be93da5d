"""Chains that are alike are sent folded, and written as each would be for itself."""

from collections.abc import Sequence

import asyncpg
import pytest

from core.domain.context import Context
from core.domain.ledger import Transfer, TransferFlags, TransferResult
from core.store.database import Database
from core.store.ledger.ledger import PostgresLedger
from core.store.ledger.ledger_rows import chain_columns, transfer_columns
from tests.support.ledger_world import LedgerWorld, linked

_ROWS = """
SELECT id, tenant_id, debit_account_id, credit_account_id, amount_minor, ledger, code, flags, pending_id, timeout_s,
    user_data, chain_id, chain_length
FROM fleet.transfers ORDER BY array_position($1::uuid[], id)
"""
_FEW, _MANY = 2, 9


def _chains(world: LedgerWorld, number: int) -> list[Transfer]:
    """Return so many payments of a principal and two parts of a fee, of amounts of their own."""
    chains = []
    for each in range(number):
        principal = world.move(world.bank, world.wallet, 100 + each)
        fee = world.move(world.bank, world.clearing, 1 + each, code=principal.code + 1)
        rest = world.move(world.bank, world.purse, 2, code=principal.code + 1)
        chains += linked(principal, fee, rest)
    return chains


async def _written(admin: asyncpg.Connection, transfers: Sequence[Transfer]) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await admin.fetch(_ROWS, [each.id for each in transfers])]


@pytest.mark.parametrize("number", [_FEW, _MANY])
async def test_chains_that_are_alike_are_written_as_each_for_itself(
    ledger: PostgresLedger, world: LedgerWorld, admin_connection: asyncpg.Connection, number: int
) -> None:
    chains = _chains(world, number)
    assert await ledger.apply(None, chains) == [TransferResult.OK] * len(chains)
    assert await _written(admin_connection, chains) == list(zip(*transfer_columns(chains), strict=True))


async def test_holds_that_are_chains_alike_are_ended_as_chains(
    ledger: PostgresLedger, world: LedgerWorld, admin_connection: asyncpg.Connection
) -> None:
    holds = _chains(world, _MANY)
    for each in holds:
        each.flags |= TransferFlags.PENDING
    assert set(await ledger.apply(None, holds)) == {TransferResult.OK}
    ends = [world.post(each, code=each.code) for each in holds]
    ends = [each for place in range(0, len(ends), 3) for each in linked(*ends[place : place + 3])]
    assert set(await ledger.apply(None, ends)) == {TransferResult.OK}
    assert await _written(admin_connection, holds + ends) == [
        *zip(*transfer_columns(holds), strict=True), *zip(*transfer_columns(ends), strict=True)
    ]  # fmt: skip
    assert (await ledger.verify(None)).holds


async def test_of_chains_alike_the_one_that_lacks_funds_is_left_out_whole(
    ledger: PostgresLedger, world: LedgerWorld, admin_connection: asyncpg.Connection
) -> None:
    chains = _chains(world, _MANY)
    chains[5].debit_account_id = world.purse
    chains[5].credit_account_id = world.wallet
    chains[5].amount_minor = 10**9
    answers = await ledger.apply(None, chains)
    assert [answer is TransferResult.OK for answer in answers] == [not 3 <= place < 6 for place in range(len(chains))]
    taken = chains[:3] + chains[6:]
    assert await _written(admin_connection, taken) == list(zip(*transfer_columns(taken), strict=True))


def test_only_chains_of_one_form_are_folded(world: LedgerWorld) -> None:
    chains = _chains(world, 2)
    folded = chain_columns(chains)
    assert folded is not None
    codes, flags = folded[6:8]
    assert (codes, flags) == ([chains[0].code, chains[1].code, chains[2].code], [1, 1, 0])
    alone = world.move(world.bank, world.wallet, 5)
    for others in ([alone], [alone, alone, alone], linked(alone, world.move(world.bank, world.wallet, 6))):
        assert chain_columns([*chains, *others]) is None
        assert chain_columns([*others, *chains]) is None
    chains[4].code += 1
    assert chain_columns(chains) is None


async def test_another_tenants_chains_are_refused_as_its_transfers_are(
    app: Database, context: Context, world: LedgerWorld
) -> None:
    chains = _chains(world, _MANY)
    for each in chains:
        each.tenant_id = each.id
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="another tenant"):
        await PostgresLedger(app, context).apply(None, chains)
