"""The proof that money is right: our ledger against itself, and against the provider's own book.

Demo and chaos tests call it after every fault; its words are the protocol's invariants I1 to I7.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from core.domain.context import Context
from core.store.database import Database
from core.store.ledger.ledger import PostgresLedger
from schemas.events import TERMINAL_STATES


@dataclass(frozen=True, slots=True)
class BookPayment:
    """One payment that the provider says it executed."""

    reference: str
    amount_minor: int
    rail: str = "promptpay"


@dataclass(frozen=True, slots=True)
class RailBook:
    """What one provider's book shows, and in how many payments it and the ledger disagree."""

    payments: int
    paid_twice: int
    paid_not_settled: int
    settled_not_paid: int


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found; `holds` says whether everything is as it must be. Lists name the culprits."""

    balanced: bool
    holds_match_pending: bool
    booked: int = 0
    """How many payments the provider's book has: without any, nothing was compared."""
    paid_twice: list[str] = field(default_factory=list)
    paid_not_settled: list[str] = field(default_factory=list)
    settled_not_paid: list[str] = field(default_factory=list)
    unsafe_open: list[str] = field(default_factory=list)
    discrepancies: list[str] = field(default_factory=list)
    by_rail: dict[str, RailBook] = field(default_factory=dict)
    received: int = 0
    """How many payments in the providers' books have."""
    received_not_credited: list[str] = field(default_factory=list)
    """Neither credited nor in suspense."""
    credited_not_received: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """True where every comparison agrees."""
        return (
            self.balanced
            and self.holds_match_pending
            and not (self.paid_twice or self.paid_not_settled or self.settled_not_paid or self.unsafe_open)
            and not (self.received_not_credited or self.credited_not_received)
        )


_PAYOUTS = """
    SELECT i.id, i.state, j.amount_minor, j.rail, i.parked_at, i.deadline < now() AS overdue, j.reference,
           EXISTS (SELECT FROM fleet.alerts a WHERE a.intent_id = i.id) AS alerted
      FROM fleet.intents i
      JOIN fleet.jobs j ON j.intent_id = i.id AND j.kind IN ('pay', 'refund')
"""

# A hold is open exactly while its intent is authorized and undecided: what wallets hold must be what those intents ask.
_HOLDS = """
    SELECT (SELECT coalesce(sum(a.debits_pending), 0) FROM fleet.accounts a JOIN fleet.wallets w ON w.id = a.id)::bigint
               AS held,
           (SELECT coalesce(sum(amount_minor + fee_minor - CASE WHEN direction IS DISTINCT FROM 'OUT' THEN 0 ELSE (
                -- The fees that go back with a refund come from who got them; no wallet, but where it was a wallet.
                SELECT coalesce(sum((leg->>'amount_minor')::bigint), 0) FROM jsonb_array_elements(fee_legs) leg
                 WHERE leg->>'wallet_id' IS NULL) END), 0) FROM fleet.intents
             WHERE state IN ('REVIEW', 'AUTHORIZED', 'DISPATCHED', 'UNRESOLVED')
               -- Money that has yet to come in holds nothing; what is paid back is held from suspense.
               AND operation NOT IN ('TOPUP', 'DEPOSIT', 'DIRECT_DEBIT') AND direction IS DISTINCT FROM 'PAYBACK'
               AND NOT (operation = 'MANUAL_ADJUSTMENT' AND direction IS DISTINCT FROM 'DEBIT'))::bigint AS asked
"""


_COLLECTIONS = """
    SELECT j.rail, j.reference, i.state, coalesce(i.confirmed_minor, j.amount_minor) AS amount_minor,
           EXISTS (SELECT FROM fleet.provider_payments p
                    WHERE p.rail = j.rail AND p.reference = j.reference AND p.state = 'SUSPENDED') AS suspended
      FROM fleet.intents i
      JOIN fleet.jobs j ON j.intent_id = i.id AND j.kind = 'collect'
     WHERE j.rail = ANY ($1)
"""


async def prove(
    database: Database, book: Iterable[BookPayment], received: Mapping[str, Sequence[BookPayment]] | None = None
) -> Proof:
    """Compare everything once; run it under the worker role, which sees every tenant.

    `received` are the payments in by rail, of the rails whose providers keep a book of them.
    """
    received = received or {}
    async with database.unit_of_work(Context(None, "proof")) as uow:
        report = await PostgresLedger(database, uow.context).verify(uow)
        payouts = await uow.connection.fetch(_PAYOUTS)
        holds = await uow.connection.fetchrow(_HOLDS)
        collections = await uow.connection.fetch(_COLLECTIONS, list(received))
    assert holds is not None  # noqa: S101 - the statement always gives one row
    booked = list(book)
    comparison = _compare(payouts, booked)
    return Proof(
        balanced=report.holds,
        holds_match_pending=holds["held"] == holds["asked"],
        booked=len(booked),
        discrepancies=[str(item) for item in report.discrepancies],
        by_rail=_by_rail(payouts, booked),
        **comparison,
        received=sum(len(payments) for payments in received.values()),
        **_compare_received(collections, [each for payments in received.values() for each in payments]),
    )


def _compare_received(collections: Sequence[asyncpg.Record], book: Sequence[BookPayment]) -> dict[str, list[str]]:
    known = {(row["rail"], row["reference"]): row for row in collections}
    credited = {key: row["amount_minor"] for key, row in known.items() if row["state"] == "SETTLED"}
    paid: dict[tuple[str, str], list[int]] = {}
    for payment in book:
        paid.setdefault((payment.rail, payment.reference), []).append(payment.amount_minor)
    return {
        "received_not_credited": sorted(
            reference
            for (rail, reference), amounts in paid.items()
            if not ((row := known.get((rail, reference))) is not None and row["suspended"])
            and [credited.get((rail, reference))] != amounts
        ),
        "credited_not_received": sorted(
            reference for (rail, reference), minor in credited.items() if minor not in paid.get((rail, reference), ())
        ),
    }


def _by_rail(payouts: Sequence[asyncpg.Record], book: list[BookPayment]) -> dict[str, RailBook]:
    found = {}
    for rail in sorted({row["rail"] for row in payouts} | {payment.rail for payment in book}):
        own = [payment for payment in book if payment.rail == rail]
        compared = _compare([row for row in payouts if row["rail"] == rail], own)
        counts = {name: len(compared[name]) for name in ("paid_twice", "paid_not_settled", "settled_not_paid")}
        found[rail] = RailBook(payments=len(own), **counts)
    return found


def _compare(payouts: Sequence[asyncpg.Record], book: list[BookPayment]) -> dict[str, list[str]]:
    times_paid = Counter(payment.reference for payment in book)
    paid_minor = {payment.reference: payment.amount_minor for payment in book}
    by_reference = {row["reference"]: row for row in payouts}
    references_paid: dict[UUID, int] = Counter(
        by_reference[reference]["id"] for reference in times_paid if reference in by_reference
    )
    settled = {reference: row for reference, row in by_reference.items() if row["state"] == "SETTLED"}
    return {
        "paid_twice": sorted(
            {reference for reference, times in times_paid.items() if times > 1}
            | {str(intent) for intent, references in references_paid.items() if references > 1}
        ),
        "paid_not_settled": sorted(reference for reference in times_paid if reference not in settled),
        "settled_not_paid": sorted(
            reference for reference, row in settled.items() if paid_minor.get(reference) != row["amount_minor"]
        ),
        # I5: past its deadline an intent is terminal, or parked with an alert.
        "unsafe_open": sorted(
            str(row["id"])
            for row in payouts
            if row["overdue"]
            and row["state"] not in TERMINAL_STATES
            and not (row["parked_at"] is not None and row["alerted"])
        ),
    }
