"""Transfers and accounts as columns of arrays, and back from rows."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg

from core.domain.ledger import Account, AccountBalance, AccountFlags, Transfer, TransferFlags
from core.domain.ledger_rules import chains_of

_LINKED: Final = int(TransferFlags.LINKED)


def transfer_columns(transfers: Sequence[Transfer]) -> list[list[Any]]:
    """Return the array parameters of `fleet.ledger_apply`, in its order: built column by column, for speed."""
    chain_ids: list[UUID | None] = [None] * len(transfers)
    chain_lengths: list[int | None] = [None] * len(transfers)
    for start, end in chains_of(transfers):
        if end - start > 1:
            chain_ids[start:end] = [transfers[start].id] * (end - start)
            chain_lengths[start:end] = [end - start] * (end - start)
    return [*_columns(transfers), [*chain_ids], [*chain_lengths]]


def chain_columns(transfers: Sequence[Transfer]) -> list[list[Any]] | None:
    """Return the array parameters of `fleet.ledger_apply_chains`, in its order; None unless all are chains alike."""
    *columns, codes, flags, pending_ids, timeouts, user_data = _columns(transfers)
    size = 1 + next((place for place, each in enumerate(flags) if not each & _LINKED), len(flags))
    number = len(transfers) // size
    if size == 1 or flags != flags[:size] * number or codes != codes[:size] * number:
        return None
    return [*columns, codes[:size], flags[:size], pending_ids, timeouts, user_data]


def _columns(transfers: Sequence[Transfer]) -> list[list[Any]]:
    return [
        [t.id for t in transfers],
        [t.tenant_id for t in transfers],
        [t.debit_account_id for t in transfers],
        [t.credit_account_id for t in transfers],
        [t.amount_minor for t in transfers],
        [t.ledger for t in transfers],
        [t.code for t in transfers],
        [int(t.flags) for t in transfers],
        [t.pending_id for t in transfers],
        [t.timeout_s for t in transfers],
        [t.user_data for t in transfers],
    ]


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
