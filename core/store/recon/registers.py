"""Registers in PostgreSQL: files, their lines by COPY, and which days are wanted."""

import time
from collections.abc import AsyncIterable, Iterable, Sequence
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter

from core.domain.ids import mint_id
from core.domain.register_records import COLUMNS, Record
from core.domain.registers import Account
from core.services.problems import Refusal
from core.services.vault_port import Vault
from core.store.database import UnitOfWork
from schemas.registers import (
    CarriedItem,
    LineCount,
    RegisterAwaited,
    RegisterFileView,
    RegisterOpened,
    RegisterRun,
    RegisterState,
    RegisterWanted,
    Tally,
)

_TALLIES: Final = TypeAdapter(list[Tally])

_OPEN: Final = """
INSERT INTO fleet.register_files
    (id, rail, provider_account, environment, business_day, section, source, name, received_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""
_LOADING: Final = """
SELECT id FROM fleet.register_files WHERE rail = $1 AND provider_account = $2 AND environment = $3
    AND business_day = $4 AND section = $5 AND source = $6 AND state = 'LOADING'
"""
# Row security takes no COPY: the lines of a request, or of a file, come into a table of this transaction first.
_INCOMING: Final = """
CREATE TEMP TABLE IF NOT EXISTS incoming_lines (line integer, provider_ref text, our_ref text, operation text,
    direction text, amount_minor bigint, fee_minor bigint, currency text, status text, at timestamptz) ON COMMIT DROP;
TRUNCATE incoming_lines
"""
_TAKE: Final = f"""
INSERT INTO fleet.register_lines (file_id, {", ".join(COLUMNS)})
SELECT $1, {", ".join(COLUMNS)} FROM incoming_lines ON CONFLICT (file_id, line) DO NOTHING
"""  # noqa: S608 - a constant list of columns
_FILE: Final = "SELECT * FROM fleet.register_files WHERE id = $1 AND rail = $2 FOR UPDATE"
_SAME: Final = """
SELECT id FROM fleet.register_files WHERE rail = $1 AND provider_account = $2 AND environment = $3
    AND business_day = $4 AND section = $5 AND file_hash = $6 AND state = $7 AND (source = 'FETCHED' OR source = $8)
"""
_SUPERSEDE: Final = """
UPDATE fleet.register_files SET state = 'SUPERSEDED' WHERE rail = $1 AND provider_account = $2 AND environment = $3
    AND business_day = $4 AND section = $5 AND state IN ('COMPLETE', 'ABSENT')
"""
_SUPERSEDE_ALONE: Final = """
UPDATE fleet.register_files SET state = 'SUPERSEDED' WHERE rail = $1 AND provider_account = $2 AND environment = $3
    AND business_day = $4 AND source = 'IMPORTED' AND state IN ('COMPLETE', 'ABSENT')
    AND completed_at <= coalesce((SELECT min(completed_at) FROM fleet.register_files WHERE rail = $1
        AND provider_account = $2 AND environment = $3 AND business_day = $4 AND source = 'FETCHED'), 'infinity')
"""
"""What one person brought before the provider told anything, under any section; later it takes two."""
_FETCHED_ONE: Final = """
SELECT max(completed_at) FROM fleet.register_files WHERE rail = $1 AND provider_account = $2 AND environment = $3
    AND business_day = $4 AND source = 'FETCHED' AND completed_at IS NOT NULL
"""
"""What a provider told itself, under any section: a file that a person brings would add to it or stand in its place."""
_BROUGHT: Final = """
SELECT id, received_by FROM fleet.register_files WHERE rail = $1 AND provider_account = $2 AND environment = $3
    AND business_day = $4 AND section = $5 AND file_hash = $6 AND source = 'IMPORTED' AND state = 'SUPERSEDED'
    AND completed_at > greatest($7, (SELECT max(completed_at) FROM fleet.register_files WHERE rail = $1
        AND provider_account = $2 AND environment = $3 AND business_day = $4 AND section = $5 AND state = 'COMPLETE'))
ORDER BY id DESC FOR UPDATE
"""
_COUNTS_NOW: Final = (
    "UPDATE fleet.register_files SET state = 'COMPLETE', completed_at = clock_timestamp() WHERE id = $1"
)
_CLOSE: Final = """
UPDATE fleet.register_files SET state = $2, lines = $3, file_hash = $4, completed_at = clock_timestamp() WHERE id = $1
"""
_FETCHED: Final = """
UPDATE fleet.register_days SET fetched_at = now(), leased_until = NULL
WHERE rail = $1 AND provider_account = $2 AND environment = $3 AND business_day = $4
"""
_WANT: Final = """
INSERT INTO fleet.register_days AS d (rail, provider_account, environment, business_day)
SELECT $1, $2, $3, day FROM unnest($4::date[]) day
ON CONFLICT (rail, provider_account, environment, business_day)
    DO UPDATE SET wanted_at = CASE WHEN $5 THEN now() ELSE d.wanted_at END
"""
_LEASE: Final = "now() + interval '2 minutes'"
_WANTED: Final = f"""
WITH free AS (
    SELECT provider_account, environment, business_day FROM fleet.register_days
    WHERE rail = $1 AND (fetched_at IS NULL OR fetched_at < wanted_at)
        AND (leased_until IS NULL OR leased_until <= now() OR leased_by = $4)
        AND ($2::text[] IS NULL
            OR (provider_account, environment) IN (SELECT * FROM unnest($2::text[], $3::text[])))
    ORDER BY business_day LIMIT 31 FOR NO KEY UPDATE SKIP LOCKED
), leased AS (
    UPDATE fleet.register_days d SET leased_until = {_LEASE}, leased_by = $4 FROM free f
    WHERE d.rail = $1 AND d.provider_account = f.provider_account AND d.environment = f.environment
        AND d.business_day = f.business_day
    RETURNING d.provider_account, d.environment, d.business_day
)
SELECT * FROM leased ORDER BY business_day
"""  # noqa: S608 - a constant
_AWAITED: Final = """
SELECT rail, provider_account, environment, business_day,
    floor(extract(epoch FROM now() - wanted_at))::bigint AS age_s
FROM fleet.register_days
WHERE (fetched_at IS NULL OR fetched_at < wanted_at) AND business_day > current_date - 14
    AND ($1::text IS NULL OR rail = $1) AND ($2::date IS NULL OR business_day = $2)
ORDER BY business_day, rail, provider_account, environment LIMIT 100
"""
_GO_ON: Final = f"""
UPDATE fleet.register_days d SET leased_until = {_LEASE} FROM fleet.register_files f
WHERE f.id = $1 AND d.rail = f.rail AND d.provider_account = f.provider_account AND d.environment = f.environment
    AND d.business_day = f.business_day
"""  # noqa: S608 - a constant
_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
_ACCOUNTS: Final = """
SELECT DISTINCT rail, body->>'provider_account', coalesce(body->>'environment', 'sandbox') FROM fleet.rail_registrations
UNION SELECT rail, provider_account, environment FROM fleet.register_days
UNION SELECT rail, provider_account, environment FROM fleet.register_files ORDER BY 1, 2, 3
"""
_VIEW: Final = """
SELECT id, rail, provider_account, environment, business_day, section, source, name, state, lines,
    coalesce(encode(file_hash, 'hex'), '') AS file_hash, received_by, received_at, completed_at
FROM fleet.register_files
"""
_RUNS: Final = """
SELECT DISTINCT ON (rail, provider_account, environment, business_day) id, rail, provider_account, environment,
    business_day, register_state, tallies::text, breaks, new_breaks, gone, run_by, started_at, finished_at
FROM fleet.register_runs WHERE business_day BETWEEN $1 AND $2 AND ($3::text IS NULL OR rail = $3)
ORDER BY rail, provider_account, environment, business_day, id DESC
"""
_RUN: Final = """
SELECT id, rail, provider_account, environment, business_day, register_state, tallies::text, breaks, new_breaks,
    gone, run_by, started_at, finished_at FROM fleet.register_runs WHERE id = $1
"""
_CARRIED: Final = """
SELECT subject_id, intent_id, reference, amount_minor, currency, booked_at,
    floor(extract(epoch FROM now() - booked_at))::bigint AS age_s
FROM fleet.register_carried WHERE run_id = $1
    AND ($3::timestamptz IS NULL OR (booked_at, subject_id) > ($3, $4::uuid)) ORDER BY booked_at, subject_id LIMIT $2
"""
_COUNTS: Final = """
SELECT direction, status, currency, count(*) AS count, sum(amount_minor)::bigint AS amount_minor,
    coalesce(sum(fee_minor), 0)::bigint AS fee_minor
FROM fleet.register_lines WHERE file_id = $1 GROUP BY direction, status, currency ORDER BY direction, status, currency
"""


class RegisterStore:
    """See `core.services.recon.registers.Registers`."""

    async def want(self, uow: UnitOfWork, account: Account, days: Sequence[date], *, again: bool) -> None:
        """Ask adapters for the registers of these days; `again` also where one was fetched before."""
        await uow.connection.execute(_WANT, *_named(account), list(days), again)

    async def wanted(
        self, uow: UnitOfWork, rail: str, only: Sequence[Account] | None = None, asker: UUID | None = None
    ) -> list[RegisterWanted]:
        """Return what an adapter shall fetch now, the oldest day first; nobody but the asker is told so meanwhile.

        `only` are the accounts that the asker may know of, None for all.
        """
        names = None if only is None else [each.provider_account for each in only]
        environments = None if only is None else [each.environment for each in only]
        rows = await uow.connection.fetch(_WANTED, rail, names, environments, asker)
        return [RegisterWanted(**row) for row in rows]

    async def awaited(self, uow: UnitOfWork, rail: str | None, day: date | None) -> list[RegisterAwaited]:
        """Return what was asked for in the last two weeks and has not come, the oldest day first."""
        return [RegisterAwaited(**row) for row in await uow.connection.fetch(_AWAITED, rail, day)]

    async def open(self, uow: UnitOfWork, rail: str, asked: RegisterOpened, source: str) -> UUID:
        """Begin a register; what had come of one that never got whole is dropped."""
        named = (rail, asked.provider_account, asked.environment, asked.business_day, asked.section, source)
        await uow.connection.execute(_ONE_AT_A_TIME, "register " + "/".join(map(str, named)))
        before = await uow.connection.fetchval(_LOADING, *named)
        if before is not None:
            await self.drop(uow, before)
        file_id = mint_id(time.time_ns() // 1_000_000)
        await uow.connection.execute(_OPEN, file_id, *named, asked.name, uow.context.actor)
        return file_id

    async def drop(self, uow: UnitOfWork, file_id: UUID) -> None:
        """Drop a register that is not whole; any other stays."""
        await uow.connection.execute("SELECT fleet.drop_loading_register($1)", file_id)

    async def take(self, uow: UnitOfWork, file_id: UUID, records: Iterable[Record] | AsyncIterable[Record]) -> int:
        """Keep lines of a register that is coming; return how many are new. Memory does not grow with their number."""
        await uow.connection.execute(_GO_ON, file_id)
        await uow.connection.execute(_INCOMING)
        await uow.connection.copy_records_to_table("incoming_lines", records=records, columns=COLUMNS)
        done: str = await uow.connection.execute(_TAKE, file_id)
        return int(done.rsplit(" ", 1)[1])

    async def keep_piece(self, uow: UnitOfWork, vault: Vault, file_id: UUID, place: int, piece: bytes) -> None:
        """Keep a piece of an imported file's bytes, sealed."""
        sealed = vault.seal_bytes(piece, bound_to=f"register:{file_id}:{place}")
        query = "INSERT INTO fleet.register_pieces (file_id, place, ciphertext) VALUES ($1, $2, $3)"
        await uow.connection.execute(query, file_id, place, sealed)

    async def pieces(self, uow: UnitOfWork, vault: Vault, file_id: UUID) -> list[bytes]:
        """Return an imported file's bytes in pieces, empty where it was fetched."""
        query = "SELECT place, ciphertext FROM fleet.register_pieces WHERE file_id = $1 ORDER BY place"
        rows = await uow.connection.fetch(query, file_id)
        return [vault.open_bytes(row["ciphertext"], bound_to=f"register:{file_id}:{row['place']}") for row in rows]

    async def is_loading(self, uow: UnitOfWork, rail: str, file_id: UUID) -> bool:
        """Return whether a register of the rail is coming under this id, and lock it."""
        row = await uow.connection.fetchrow(_FILE, file_id, rail)
        return row is not None and row["state"] == RegisterState.LOADING

    async def close(
        self,
        uow: UnitOfWork,
        rail: str,
        file_id: UUID,
        state: RegisterState,
        lines: int,
        file_hash: bytes,
        *,
        agrees: bool = False,
    ) -> RegisterFileView:
        """Make a register count, in the place of an earlier edition; the same bytes again leave the one that counts.

        A file that a person brings for a day that was fetched counts once a second one, who `agrees`, brings the same
        bytes; until then it is kept SUPERSEDED, as is what one person brought before the day was fetched.
        Raises Refusal: not_found, register_incomplete.
        """
        row = await uow.connection.fetchrow(_FILE, file_id, rail)
        if row is None or row["state"] != RegisterState.LOADING:
            raise Refusal("not_found", "no register is coming under this id")
        named = (rail, row["provider_account"], row["environment"], row["business_day"], row["section"])
        there = await uow.connection.fetchval("SELECT count(*) FROM fleet.register_lines WHERE file_id = $1", file_id)
        if there != lines:
            text = f"{there} of {lines} lines have come: send the others"
            raise Refusal("register_incomplete", text, field="lines")
        # One at a time for a day: neither of a file that is brought and one that is fetched may miss the other.
        await uow.connection.execute(_ONE_AT_A_TIME, "register day " + "/".join(map(str, named[:4])))
        same = await uow.connection.fetchval(_SAME, *named, file_hash, state, row["source"])
        fetched_at = None
        if row["source"] == "IMPORTED":
            fetched_at = await uow.connection.fetchval(_FETCHED_ONE, *named[:4])
        else:
            await uow.connection.execute(_SUPERSEDE_ALONE, *named[:4])
        if same is not None:
            await self.drop(uow, file_id)
        elif fetched_at is not None:
            same = await self._by_two(uow, file_id, (*named, file_hash, fetched_at), lines, agrees=agrees)
        else:
            await uow.connection.execute(_SUPERSEDE, *named)
            await uow.connection.execute(_CLOSE, file_id, state, lines, file_hash)
        kept = RegisterFileView(**dict(await uow.connection.fetchrow(_VIEW + " WHERE id = $1", same or file_id) or {}))
        if kept.state is not RegisterState.SUPERSEDED:
            await uow.connection.execute(_FETCHED, *named[:4])
        return kept

    async def _by_two(
        self, uow: UnitOfWork, file_id: UUID, named: tuple[Any, ...], lines: int, *, agrees: bool
    ) -> UUID:
        """Let the file count that another person brought before, if this one agrees; return the file that is meant."""
        found = await uow.connection.fetch(_BROUGHT, *named)
        brought: dict[str, UUID] = {row["received_by"]: row["id"] for row in found}
        if (own := brought.pop(uow.context.actor, None)) is not None:
            await self.drop(uow, file_id)
        else:
            own = file_id
            await uow.connection.execute(_CLOSE, file_id, RegisterState.SUPERSEDED, lines, named[5])
        if not (brought and agrees):
            return own
        await uow.connection.execute(_SUPERSEDE, *named[:5])
        (first, *_) = brought.values()
        await uow.connection.execute(_COUNTS_NOW, first)
        return first

    async def accounts(self, uow: UnitOfWork) -> list[Account]:
        """Return the provider accounts that rails declared, or that payments go by."""
        return [Account(*row) for row in await uow.connection.fetch(_ACCOUNTS)]

    async def files(
        self, uow: UnitOfWork, rail: str | None, day: date | None, limit: int, before: UUID | None = None
    ) -> list[RegisterFileView]:
        """Return registers, the newest first; `before` an id goes on behind it."""
        where = (
            " WHERE ($1::text IS NULL OR rail = $1) AND ($2::date IS NULL OR business_day = $2)"
            " AND ($4::uuid IS NULL OR id < $4) ORDER BY id DESC LIMIT $3"
        )
        return [RegisterFileView(**row) for row in await uow.connection.fetch(_VIEW + where, rail, day, limit, before)]

    async def find(self, uow: UnitOfWork, file_id: UUID) -> RegisterFileView | None:
        """Return one register."""
        row = await uow.connection.fetchrow(_VIEW + " WHERE id = $1", file_id)
        return None if row is None else RegisterFileView(**row)

    async def counts(self, uow: UnitOfWork, file_id: UUID) -> list[LineCount]:
        """Return how many lines of a register are alike."""
        return [LineCount(**row) for row in await uow.connection.fetch(_COUNTS, file_id)]

    async def runs(self, uow: UnitOfWork, first: date, last: date, rail: str | None) -> list[RegisterRun]:
        """Return the newest run of each account and day."""
        return [_run_of(row) for row in await uow.connection.fetch(_RUNS, first, last, rail)]

    async def run(self, uow: UnitOfWork, run_id: UUID) -> RegisterRun | None:
        """Return one run."""
        row = await uow.connection.fetchrow(_RUN, run_id)
        return None if row is None else _run_of(row)

    async def carried(
        self, uow: UnitOfWork, run_id: UUID, limit: int, after: tuple[datetime, UUID] | None = None
    ) -> list[CarriedItem]:
        """Return what a run carried over, the oldest first; `after` is when the last one was booked, and its id."""
        rows = await uow.connection.fetch(_CARRIED, run_id, limit, *(after or (None, None)))
        return [CarriedItem(**row) for row in rows]


def _run_of(row: Any) -> RegisterRun:
    return RegisterRun(**(dict(row) | {"tallies": _TALLIES.validate_json(row["tallies"])}))


def _named(account: Account) -> tuple[str, str, str]:
    return account.rail, account.provider_account, account.environment
