"""One day's register against jobs, payments and the ledger, set by set inside PostgreSQL: our memory stays flat.

Each step fills a table of the transaction. What both sides call an entry is its key: the group of what it is (O out,
I in, B came back, T taken back), and the reference or the provider's name. Money in is known by the provider's name of
the payment, because a code may be paid often: a payment that has such a name is never taken for another of the same
reference. Money out is known by our reference, which is one payment, and else by the provider's name of it.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson

from core.domain.registers import Account, DayFiles, RegisterBreak, Span
from core.store.database import UnitOfWork
from core.store.recon.recon import OPEN_AGAIN
from core.store.settling.doubted_ends import DOUBTED_AGAIN, INTO_DOUBTED
from schemas.registers import MatchClass, RegisterRun, Tally

_GROUP: Final = """CASE WHEN l.operation = 'RETURN' THEN CASE l.direction WHEN 'IN' THEN 'B' ELSE 'T' END
    WHEN l.direction = 'IN' THEN 'I' ELSE 'O' END"""
_KEYS: Final = f"""
CROSS JOIN LATERAL (SELECT {_GROUP} AS kind) g
CROSS JOIN LATERAL (SELECT g.kind IN ('I', 'T') AS theirs_first,
    CASE WHEN l.our_ref <> '' THEN g.kind || ':R:' || l.our_ref END AS by_ours,
    CASE WHEN l.provider_ref <> '' THEN g.kind || ':P:' || l.provider_ref END AS by_theirs) b
CROSS JOIN LATERAL (SELECT
    CASE WHEN b.theirs_first THEN coalesce(b.by_theirs, b.by_ours) ELSE coalesce(b.by_ours, b.by_theirs) END AS key,
    CASE WHEN NOT b.theirs_first THEN b.by_theirs END AS other) k
"""
_FILES: Final = """
SELECT id, business_day, state FROM fleet.register_files
WHERE rail = $1 AND provider_account = $2 AND environment = $3 AND state IN ('COMPLETE', 'ABSENT')
    AND business_day BETWEEN $4 AND $5 ORDER BY id
"""
_THEIRS: Final = f"""
CREATE TEMP TABLE theirs ON COMMIT DROP AS
SELECT l.file_id, l.line, l.provider_ref, l.our_ref, l.amount_minor, l.fee_minor, l.currency, l.status, l.at,
    coalesce(k.key, g.kind || ':N:' || l.line) AS key, k.other,
    row_number() OVER (PARTITION BY coalesce(k.key, g.kind || ':N:' || l.file_id || l.line)
        ORDER BY l.status <> 'SETTLED', l.file_id, l.line) AS rank
FROM fleet.register_lines l {_KEYS} WHERE l.file_id = ANY (ARRAY[{{files}}]::uuid[])
"""  # noqa: S608 - constants; the files are UUIDs
_ELSEWHERE: Final = f"""
CREATE TEMP TABLE elsewhere ON COMMIT DROP AS
SELECT DISTINCT x.key, f.business_day < '{{day}}'::date AND l.status = 'SETTLED' AS paid_before
FROM fleet.register_lines l JOIN fleet.register_files f ON f.id = l.file_id {_KEYS}
CROSS JOIN LATERAL (VALUES (k.key), (k.other)) x(key)
WHERE l.file_id = ANY (ARRAY[{{files}}]::uuid[]) AND x.key IS NOT NULL
"""  # noqa: S608 - constants, UUIDs and a date
_TABLES: Final = """
CREATE TEMP TABLE ours (item bigint GENERATED ALWAYS AS IDENTITY, tenant_id uuid, intent_id uuid, subject_id uuid,
    reference text, by_theirs text, amount_minor bigint, fee_minor bigint, currency text, state text, word text,
    booked_minor bigint, booked_at timestamptz) ON COMMIT DROP;
CREATE TEMP TABLE names (key text, item bigint) ON COMMIT DROP
"""
# What the ledger moved out of clearing for each intent: a table with statistics, for whose join no plan is a guess.
_BOOKED: Final = """
CREATE TEMP TABLE booked ON COMMIT DROP AS
SELECT t.user_data AS intent_id,
    sum(CASE WHEN c.id = t.credit_account_id THEN t.amount_minor ELSE -t.amount_minor END)::bigint AS minor
FROM fleet.transfers t JOIN fleet.accounts c ON c.code = 2 AND c.id IN (t.credit_account_id, t.debit_account_id)
WHERE t.id >= fleet.first_id_at('{since}') AND t.id < fleet.first_id_at('{until}') AND t.flags & 10 = 0
GROUP BY t.user_data;
ANALYZE booked (intent_id)
"""
# Money out is a job with its intent, and what the ledger moved into or out of clearing for it.
_OUT: Final = """
WITH made AS (
    INSERT INTO ours (tenant_id, intent_id, subject_id, reference, by_theirs, amount_minor, fee_minor, currency, state,
        word, booked_minor, booked_at)
    SELECT j.tenant_id, i.id, j.id, j.reference, coalesce(i.provider_reference, ''), j.amount_minor,
        CASE j.kind WHEN 'pay' THEN coalesce((i.lookup->>'fee_minor')::bigint, 0) ELSE 0 END, j.currency,
        CASE WHEN i.state = 'SETTLED' OR b.minor > 0 THEN 'DONE'
            WHEN i.state IN ('FAILED', 'CANCELLED', 'EXPIRED') THEN 'FAILED' ELSE 'OPEN' END,
        i.state, coalesce(b.minor, 0), coalesce(j.closed_at, i.updated_at)
    FROM fleet.jobs j JOIN fleet.intents i ON i.id = j.intent_id LEFT JOIN booked b ON b.intent_id = i.id
    WHERE j.id >= fleet.first_id_at($4) AND j.id < fleet.first_id_at($5)
        AND i.id >= fleet.first_id_at($4) AND i.id < fleet.first_id_at($5)
        AND j.kind IN ('pay', 'refund') AND j.rail = $1 AND j.provider_account = $2 AND j.environment = $3
    RETURNING item, reference, by_theirs
)
INSERT INTO names (key, item)
SELECT 'O:R:' || reference, item FROM made UNION ALL SELECT 'O:P:' || by_theirs, item FROM made WHERE by_theirs <> ''
"""
# Of a payment that belongs to an intent, what the ledger moved for the intent less what its other payments explain.
_IN: Final = """
WITH paid AS MATERIALIZED (
    SELECT p.*, p.state <> 'NOTED' AS counts FROM fleet.provider_payments p
    WHERE p.rail = $1 AND p.provider_account = $2 AND p.environment = $3 AND p.occurred_at >= $4 AND p.occurred_at < $5
), explained AS (
    SELECT q.intent_id, sum(q.amount_minor) AS minor FROM fleet.provider_payments q
    WHERE q.intent_id IN (SELECT intent_id FROM paid) AND q.kind = 'PAYMENT' AND q.state <> 'NOTED' GROUP BY q.intent_id
), booked AS (
    SELECT t.user_data AS intent_id,
        sum(CASE WHEN c.id = t.debit_account_id THEN t.amount_minor ELSE 0 END)::bigint AS minor
    FROM explained e JOIN fleet.transfers t ON t.user_data = e.intent_id
    JOIN fleet.accounts c ON c.code = 2 AND c.id IN (t.credit_account_id, t.debit_account_id)
    WHERE t.id >= fleet.first_id_at($6) AND t.flags & 10 = 0 GROUP BY t.user_data
), made AS (
    INSERT INTO ours (tenant_id, intent_id, subject_id, reference, amount_minor, fee_minor, currency, state, word,
        booked_minor, booked_at)
    SELECT p.tenant_id, p.intent_id, p.id, p.reference, p.amount_minor, 0, p.currency,
        CASE WHEN p.counts THEN 'DONE' ELSE 'OPEN' END, p.state,
        p.amount_minor + CASE WHEN p.kind = 'PAYMENT' AND p.counts THEN
            coalesce(b.minor - e.minor, CASE WHEN p.intent_id IS NULL THEN 0 ELSE -p.amount_minor END) ELSE 0 END,
        p.occurred_at
    FROM paid p LEFT JOIN explained e ON e.intent_id = p.intent_id LEFT JOIN booked b ON b.intent_id = p.intent_id
    RETURNING item, subject_id
), known AS (
    SELECT m.item, m.subject_id, CASE p.kind WHEN 'PAYMENT' THEN 'I' ELSE 'T' END AS kind, p.reference,
        count(*) OVER (PARTITION BY p.kind, p.reference) AS like_it
    FROM made m JOIN paid p ON p.id = m.subject_id
)
INSERT INTO names (key, item)
SELECT k.kind || ':P:' || n.name, k.item FROM known k JOIN fleet.provider_payment_names n ON n.payment_id = k.subject_id
UNION ALL
SELECT k.kind || ':R:' || k.reference, k.item FROM known k WHERE k.reference <> '' AND k.like_it = 1
"""
# A payment of ours that came back is known by the reference that it was made under.
_BACK: Final = """
WITH made AS (
    INSERT INTO ours (tenant_id, intent_id, subject_id, reference, amount_minor, fee_minor, currency, state, word,
        booked_minor, booked_at)
    SELECT i.tenant_id, i.id, i.id, j.reference, i.amount_minor, 0, i.currency,
        CASE i.state WHEN 'SETTLED' THEN 'DONE' WHEN 'FAILED' THEN 'FAILED' ELSE 'OPEN' END, i.state, i.amount_minor,
        i.updated_at
    FROM fleet.intents i JOIN fleet.jobs j ON j.intent_id = i.original_intent_id AND j.kind = 'pay'
    WHERE i.id >= fleet.first_id_at($4) AND i.id < fleet.first_id_at($5) AND i.original_intent_id IS NOT NULL
        AND i.direction IN ('RETURN', 'SUSPENSE') AND j.rail = $1 AND j.provider_account = $2 AND j.environment = $3
    RETURNING item, reference
)
INSERT INTO names (key, item) SELECT DISTINCT ON (reference) 'B:R:' || reference, item FROM made
"""
_READY: Final = "ANALYZE theirs (key, other); ANALYZE ours (item); ANALYZE names (key); ANALYZE elsewhere (key)"
_JUDGED: Final = """
CREATE TEMP TABLE judged ON COMMIT DROP AS
WITH known AS MATERIALIZED (SELECT key, min(item) AS item FROM names GROUP BY key)
SELECT t.*, o.item, CASE
    WHEN t.rank > 1 OR (o.item IS NOT NULL AND t.nth > 1)
        OR (t.status = 'SETTLED' AND e.key IS NOT NULL) THEN 'duplicate'
    WHEN o.item IS NULL THEN 'missing_here'
    WHEN NOT CASE t.status WHEN 'SETTLED' THEN o.state = 'DONE' WHEN 'FAILED' THEN o.state = 'FAILED'
        WHEN 'PENDING' THEN o.state = 'OPEN' ELSE o.state <> 'OPEN' END THEN 'status'
    WHEN t.status IN ('SETTLED', 'RETURNED') AND (t.amount_minor <> o.amount_minor OR t.currency <> o.currency
        OR (o.state = 'DONE' AND o.booked_minor <> o.amount_minor)) THEN 'amount'
    WHEN t.status = 'SETTLED' AND t.fee_minor <> o.fee_minor THEN 'fee'
    ELSE 'matched' END AS match
FROM (
    SELECT t.*, coalesce(a.item, b.item) AS named, row_number() OVER (PARTITION BY coalesce(a.item, b.item)
        ORDER BY t.rank, t.status <> 'SETTLED', a.item IS NULL, t.file_id, t.line) AS nth
    FROM theirs t
    LEFT JOIN known a ON a.key = t.key LEFT JOIN known b ON b.key = t.other
) t
LEFT JOIN ours o ON o.item = t.named
LEFT JOIN (SELECT DISTINCT key FROM elsewhere WHERE paid_before) e ON e.key = t.key
"""
# What our books settled within the day and no line of the day tells of. Near the end of the day, or where the day
# itself has no register, the next register may have it: as long as that one is not there, it is carried.
_LEFT: Final = """
CREATE TEMP TABLE left_over ON COMMIT DROP AS
SELECT o.*, CASE
    WHEN f.item IS NOT NULL THEN 'found_elsewhere'
    WHEN NOT $4 AND o.booked_at >= $3 THEN 'carried'
    ELSE 'missing_there' END AS match
FROM ours o
LEFT JOIN (SELECT DISTINCT n.item FROM names n JOIN elsewhere e ON e.key = n.key) f ON f.item = o.item
WHERE o.state = 'DONE' AND o.booked_at >= $1 AND o.booked_at < $2
    AND NOT EXISTS (SELECT FROM judged j WHERE j.item = o.item)
"""
_TALLIES: Final = """
SELECT 'THEIRS' AS side, match, currency, count(*), sum(amount_minor)::bigint AS amount_minor
FROM judged GROUP BY match, currency
UNION ALL
SELECT 'OURS', match, currency, count(*), sum(amount_minor)::bigint FROM left_over GROUP BY match, currency
UNION ALL
SELECT 'OURS', 'matched', o.currency, count(*), sum(o.amount_minor)::bigint FROM ours o
WHERE o.state = 'DONE' AND o.booked_at >= $1 AND o.booked_at < $2
    AND EXISTS (SELECT FROM judged j WHERE j.item = o.item) GROUP BY o.currency
ORDER BY side, match, currency
"""
_FOUND: Final = """
CREATE TEMP TABLE found ON COMMIT DROP AS
SELECT row_number() OVER () AS place, x.* FROM (
    SELECT j.match, j.line, j.rank, j.key, o.tenant_id, o.intent_id, o.subject_id,
        coalesce(nullif(j.our_ref, ''), j.provider_ref) AS reference,
        CASE WHEN j.match = 'amount' AND j.currency = o.currency
            THEN greatest(abs(j.amount_minor - o.amount_minor), abs(o.booked_minor - o.amount_minor))
            WHEN j.match = 'fee' THEN abs(j.fee_minor - o.fee_minor)
            WHEN j.match = 'missing_here' AND j.status = 'FAILED' THEN 0 ELSE j.amount_minor END AS at_stake_minor,
        j.currency, concat(j.status, ' ', j.amount_minor, ' ', j.currency, ', fee ' || j.fee_minor,
            ' as ' || nullif(j.provider_ref, '')) AS theirs,
        CASE WHEN o.item IS NULL THEN '' ELSE concat(o.word, ' ', o.amount_minor, ' ', o.currency, ', booked ',
            o.booked_minor, ', fee ', o.fee_minor) END AS ours
    FROM judged j LEFT JOIN ours o ON o.item = j.item WHERE j.match <> 'matched'
    UNION ALL
    SELECT match, 0, 1, '', tenant_id, intent_id, subject_id, reference, amount_minor, currency, '',
        concat(word, ' ', amount_minor, ' ', currency, ', booked ', booked_minor, ' at ', booked_at)
    FROM left_over WHERE match = 'missing_there'
) x;
CREATE UNIQUE INDEX ON found (place)
"""
# What a line calls paid and ended unpaid here is asked about by its reference; the line itself moves nothing. Where a
# fact says that it was paid, that is booked or quarantined already.
_DOUBT: Final = f"""
{INTO_DOUBTED}
SELECT DISTINCT ON (o.subject_id) o.subject_id, o.tenant_id, o.intent_id, $1, 'REGISTER', now(), 'PAID'
FROM judged j JOIN ours o ON o.item = j.item
WHERE j.match = 'status' AND j.status = 'SETTLED' AND o.state = 'FAILED' AND j.key LIKE 'O:%'
    AND NOT EXISTS (SELECT FROM fleet.jobs q JOIN fleet.facts f ON f.job_id = q.id
        WHERE q.intent_id = o.intent_id AND f.verdict IN ('SUCCEEDED', 'RETURNED') AND f.quarantine IS NULL)
{DOUBTED_AGAIN}
"""  # noqa: S608 - constants
_PAGE: Final = "SELECT * FROM found WHERE place > $1 ORDER BY place LIMIT $2"
_COUNT_LEFT: Final = "SELECT count(*), coalesce(sum(amount_minor), 0)::bigint FROM left_over WHERE match = $1"
_RECORD: Final = f"""
WITH standing AS (
    SELECT id FROM fleet.breaks WHERE id = ANY ($1::uuid[]) AND state IN ('OPEN', 'PROPOSED')
), kept AS (
    INSERT INTO fleet.breaks AS b (id, tenant_id, kind, subject_id, amount_minor, currency, detail, rail,
        provider_account, environment, business_day, reference, intent_id)
    SELECT f.id, f.tenant_id, f.kind, f.subject_id, f.amount_minor, f.currency, f.detail, $8, $9, $10, $11,
        f.reference, f.intent_id
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::bigint[], $6::text[], $7::text[], $12::text[],
        $13::uuid[]) AS f(id, tenant_id, kind, subject_id, amount_minor, currency, detail, reference, intent_id)
    ON CONFLICT (id) DO UPDATE SET last_seen_at = now(), detail = excluded.detail, amount_minor = excluded.amount_minor,
        state = CASE WHEN {OPEN_AGAIN} THEN 'OPEN' ELSE b.state END,
        ended_at = CASE WHEN {OPEN_AGAIN} THEN NULL ELSE b.ended_at END
    RETURNING id, state
)
SELECT count(*) FROM kept WHERE state = 'OPEN' AND id NOT IN (SELECT id FROM standing)
"""  # noqa: S608 - a constant
_END: Final = """
UPDATE fleet.breaks SET state = 'GONE', ended_at = now()
WHERE business_day = $4 AND rail = $1 AND provider_account = $2 AND environment = $3
    AND state IN ('OPEN', 'PROPOSED') AND last_seen_at < now()
"""
_ALERT: Final = """
INSERT INTO fleet.alerts (id, tenant_id, severity, kind, detail)
VALUES ($1, '00000000-0000-0000-0000-000000000000', 'page', 'reconciliation_break', $2)
"""
_KEEP_RUN: Final = """
INSERT INTO fleet.register_runs (id, rail, provider_account, environment, business_day, register_state, tallies, breaks,
    new_breaks, gone, run_by, started_at, finished_at)
VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9, $10, $11, $12, clock_timestamp())
"""
_CARRY: Final = """
INSERT INTO fleet.register_carried (run_id, subject_id, tenant_id, intent_id, reference, amount_minor, currency,
    booked_at)
SELECT $1, subject_id, tenant_id, intent_id, reference, amount_minor, currency, booked_at
FROM left_over WHERE match = 'carried'
"""


class RegisterMatching:
    """See `core.services.recon.registers.Matching`. The steps of one comparison belong to one transaction."""

    async def now(self, uow: UnitOfWork) -> datetime:
        """Return the database's time at the beginning of the transaction."""
        moment: datetime = await uow.connection.fetchval("SELECT now()")
        return moment

    async def try_lock(self, uow: UnitOfWork, account: Account, day: date) -> bool:
        """Be the only one who compares this day until the transaction ends; false where somebody does."""
        name = ":".join(("fleet.registers", *_named(account), day.isoformat()))
        return bool(await uow.connection.fetchval("SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))", name))

    async def files(self, uow: UnitOfWork, account: Account, day: date, following: date, around_days: int) -> DayFiles:
        """Return which registers there are."""
        span = timedelta(days=around_days)
        rows = await uow.connection.fetch(_FILES, *_named(account), day - span, day + span)
        whole = [row for row in rows if row["state"] == "COMPLETE"]
        own = [row["id"] for row in whole if row["business_day"] == day]
        absent = any(row["business_day"] == day for row in rows)
        return DayFiles(
            own,
            [row["id"] for row in whole if row["business_day"] != day],
            "COMPLETE" if own else "ABSENT" if absent else "MISSING",
            any(row["business_day"] == following for row in rows),
        )

    async def compare(self, uow: UnitOfWork, account: Account, day: date, files: DayFiles, span: Span) -> list[Tally]:
        """Judge every line and every payment of ours; return how many came to what."""
        named, run = _named(account), uow.connection.execute
        # Plans need to know how long the tables are and that keys are many, not how each is spread.
        await run("SET LOCAL work_mem = '64MB'; SET LOCAL default_statistics_target = 10")
        await run(_THEIRS.format(files=_quoted(files.own)))
        await run(_ELSEWHERE.format(files=_quoted(files.others), day=day.isoformat()))
        await run(_TABLES)
        since, until = span.begin - span.lookback, span.end + timedelta(days=1)
        await run(_BOOKED.format(since=since.isoformat(), until=until.isoformat()))
        await run(_OUT, *named, since, until)
        await run(_IN, *named, span.begin - timedelta(days=1), until, since)
        await run(_BACK, *named, since, until)
        await run(_READY)
        await run(_JUDGED)
        await run("ANALYZE judged (item)")
        await run(_LEFT, span.begin, span.end, span.end - span.edge, files.next_known)
        rows = await uow.connection.fetch(_TALLIES, span.begin, span.end)
        return [Tally(**dict(row)) for row in rows]

    async def write_found(self, uow: UnitOfWork) -> None:
        """Put what does not fit in order, to be read in pages."""
        await uow.connection.execute(_FOUND)

    async def doubt_ends(self, uow: UnitOfWork, account: Account) -> None:
        """Let the resolver ask about payments that ended unpaid here and that the day's register calls paid."""
        await uow.connection.execute(_DOUBT, account.rail)

    async def page(
        self, uow: UnitOfWork, account: Account, day: date, after: int, limit: int
    ) -> tuple[list[RegisterBreak], int]:
        """Return what does not fit after a place, and the last place of the page."""
        rows = await uow.connection.fetch(_PAGE, after, limit)
        breaks = []
        for row in rows:
            values = dict(row)
            del values["place"]
            match = MatchClass(values.pop("match"))
            breaks.append(RegisterBreak(account=account, business_day=day, match=match, **values))
        return breaks, rows[-1]["place"] if rows else after

    async def missing_there(self, uow: UnitOfWork) -> tuple[int, int]:
        """Return how many payments of ours no register tells of, and how much they are."""
        row = await uow.connection.fetchrow(_COUNT_LEFT, MatchClass.MISSING_THERE)
        return (row[0], row[1]) if row is not None else (0, 0)

    async def record(self, uow: UnitOfWork, account: Account, day: date, rows: Sequence[Sequence[Any]]) -> int:
        """Keep breaks, each once; return how many are new. A row is id, tenant, kind, subject, amount, currency,
        detail, reference and intent.
        """
        if not rows:
            return 0
        columns = [list(column) for column in zip(*rows, strict=True)]
        named = (*_named(account), day)
        return int(await uow.connection.fetchval(_RECORD, *columns[:7], *named, *columns[7:]))

    async def end_unseen(self, uow: UnitOfWork, account: Account, day: date) -> int:
        """End the open breaks of the day that this transaction did not see again; return how many."""
        done: str = await uow.connection.execute(_END, *_named(account), day)
        return int(done.rsplit(" ", 1)[1])

    async def keep_run(self, uow: UnitOfWork, run: RegisterRun) -> None:
        """Keep the run and what it carries over; alert about what is new."""
        tallies = orjson.dumps([each.model_dump(mode="json") for each in run.tallies]).decode()
        await uow.connection.execute(
            _KEEP_RUN, run.id, run.rail, run.provider_account, run.environment, run.business_day, run.register_state,
            tallies, run.breaks, run.new_breaks, run.gone, run.run_by, run.started_at,
        )  # fmt: skip
        await uow.connection.execute(_CARRY, run.id)
        if run.new_breaks:
            text = f"{run.new_breaks} new breaks of {run.rail} {run.provider_account} on {run.business_day}"
            await uow.connection.execute(_ALERT, run.id, text)


def _quoted(files: Sequence[UUID]) -> str:
    return ", ".join(f"'{each}'" for each in files)


def _named(account: Account) -> tuple[str, str, str]:
    return account.rail, account.provider_account, account.environment
