"""Transfers and accounts as columns of arrays, and back from rows."""

from collections.abc import Sequence

import asyncpg

from core.domain.ledger import Account, AccountBalance, AccountFlags, Transfer, TransferFlags
from core.domain.ledger_rules import chains_of


def transfer_columns(transfers: Sequence[Transfer]) -> list[list[object]]:
    """Return the array parameters of `fleet.ledger_apply`, in its order."""
    rows: list[tuple[object, ...]] = []
    for start, end in chains_of(transfers):
        chain = (transfers[start].id, end - start) if end - start > 1 else (None, None)
        rows += [
            (
                t.id,
                t.tenant_id,
                t.debit_account_id,
                t.credit_account_id,
                t.amount_minor,
                t.ledger,
                t.code,
                int(t.flags),
                t.pending_id,
                t.timeout_s,
                t.user_data,
                *chain,
            )
            for t in transfers[start:end]
        ]
    return [list(column) for column in zip(*rows, strict=True)]


def transfer_of(row: asyncpg.Record) -> Transfer:
    """Return the transfer of a row of `fleet.transfers`."""
    return Transfer(
        id=row["id"],
        tenant_id=row["tenant_id"],
        debit_account_id=row["debit_account_id"],
        credit_account_id=row["credit_account_id"],
        amount_minor=row["amount_minor"],
        ledger=row["ledger"],
        code=row["code"],
        flags=TransferFlags(row["flags"]),
        pending_id=row["pending_id"],
        timeout_s=row["timeout_s"],
        user_data=row["user_data"],
    )


def balance_of(row: asyncpg.Record) -> AccountBalance:
    """Return the account and balances of a row of `fleet.accounts`."""
    return AccountBalance(
        Account(
            id=row["id"],
            tenant_id=row["tenant_id"],
            ledger=row["ledger"],
            code=row["code"],
            flags=AccountFlags(row["flags"]),
            user_data=row["user_data"],
        ),
        debits_pending_minor=row["debits_pending"],
        debits_posted_minor=row["debits_posted"],
        credits_pending_minor=row["credits_pending"],
        credits_posted_minor=row["credits_posted"],
    )
