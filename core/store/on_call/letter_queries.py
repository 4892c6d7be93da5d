"""The SQL of dead letters: which are meant, and what is known of each. Only what is narrowed is asked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from core.domain.redrive import Source, Standing
from core.services.on_call.dead_letters import LetterFilter

_EQUAL: Final = (
    "state", "tenant_id", "rail", "error_class", "fingerprint", "operation", "provider", "job_id", "intent_id",
    "permits",
)  # fmt: skip

CAPS: Final = """
caps AS MATERIALIZED (
    SELECT newest.rail, o.key AS operation,
        coalesce((o.value->>'deduplicates_reference')::boolean, false) AS deduplicates,
        coalesce((o.value->>'inquiry')::boolean, false) AS inquires,
        (o.value->>'dedup_window_s')::numeric AS window_s,
        (newest.body->'timing'->>'send_by_s')::numeric + (newest.body->'timing'->>'call_total_s')::numeric AS sending_s
    FROM (SELECT DISTINCT ON (rail) rail, body FROM fleet.rail_registrations ORDER BY rail, version DESC) newest,
        jsonb_each(newest.body->'operations') o
), epoch AS MATERIALIZED (
    SELECT epoch, cleared_at IS NULL AS uncleared FROM fleet.ledger_epochs ORDER BY epoch DESC LIMIT 1
)
"""
"""What providers can do, and the ledger epoch: read once, whatever the number of letters."""

# What is asked of facts and permits is the permit journal's own question (core/store/settling/attempts.py): whoever
# changes one changes the other. An hour on either side of the intent's time keeps to its partitions.
STANDING: Final = """
    d.stream LIKE '%:results' AS is_result,
    d.state = 'OPEN' AS letter_open,
    j.id IS NOT NULL AS job_known,
    coalesce(j.closed_at IS NOT NULL OR i.state IN ('SETTLED', 'FAILED', 'CANCELLED', 'EXPIRED'), false) AS decided,
    coalesce(j.state IN ('READY', 'QUEUED'), false) AS under_way,
    coalesce(j.kind IN ('lookup', 'inquire', 'cancel'), false) AS reads_only,
    coalesce(j.fence, 0) > 0 AS permitted,
    NOT EXISTS (SELECT FROM fleet.attempts a
        WHERE a.job_id = j.id AND a.negative_at IS NULL AND a.mode = 'SEND') AS all_negative,
    coalesce(j.tombstoned, false) AS tombstoned,
    coalesce(j.ledger_epoch < e.epoch AND e.uncleared, false) AS doubted,
    EXISTS (SELECT FROM fleet.jobs q JOIN fleet.facts f ON f.job_id = q.id
        WHERE q.intent_id = j.intent_id AND f.verdict IN ('SUCCEEDED', 'PAID', 'RETURNED')) AS says_paid,
    coalesce(j.deadline <= now() + make_interval(secs => coalesce(c.sending_s, 0)::double precision), false) AS late,
    coalesce(c.deduplicates, false) AS deduplicates,
    coalesce(now() + make_interval(secs => 2 * c.sending_s::double precision)
        >= j.first_granted_at + make_interval(secs => c.window_s::double precision), false) AS forgotten,
    coalesce(c.inquires, false) AS inquires
"""
JOINED: Final = """
LEFT JOIN fleet.jobs j ON j.id = d.job_id AND j.rail = d.rail
LEFT JOIN fleet.intents i ON i.id = j.intent_id
LEFT JOIN caps c ON c.rail = j.rail AND c.operation = j.operation
CROSS JOIN epoch e
"""

_NEWEST: Final = 3_000
"""So many letters of one narrowing are looked through for the others, before all indexes are asked."""
STANDING_COLUMNS: Final = tuple(name for name in Standing.__dataclass_fields__ if name != "source")


def standing_of(row: Any) -> Standing:
    """Return the standing in a record that has STANDING's columns."""
    source = Source.RESULT if row["is_result"] else Source.JOB
    return Standing(source, **{name: row[name] for name in STANDING_COLUMNS})


def row_text(standing: Standing) -> str:
    """Return a standing as PostgreSQL writes the row of its columns, the source first."""
    values = [standing.source is Source.RESULT, *(getattr(standing, name) for name in STANDING_COLUMNS)]
    return f"({','.join('t' if value else 'f' for value in values)})"


@dataclass(slots=True)
class Conditions:
    """A WHERE over fleet.dead_letters d, with its arguments from $1 on."""

    texts: list[str] = field(default_factory=list)
    arguments: list[Any] = field(default_factory=list)

    def add(self, text: str, *values: Any) -> None:
        """Add a condition; each {} in it is the next of the values."""
        places = []
        for value in values:
            self.arguments.append(value)
            places.append(f"${len(self.arguments)}")
        self.texts.append(text.format(*places))

    @property
    def where(self) -> str:
        """The condition; true where there is none."""
        return " AND ".join(self.texts) or "true"


_NARROWEST: Final = ("fingerprint", "error_class", "permits", "provider", "rail", "operation", "tenant_id")
"""Each has an index in the order of time; the first that is given is walked."""
_FEW: Final = ("job_id", "intent_id", "trace_id", "evidence_id", "ids")
"""What so few letters have in common that an index tells all of them."""


def conditions_of(wanted: LetterFilter) -> Conditions:
    """Return what the filter asks for; only what is narrowed appears, so that the planner sees it."""
    found = Conditions()
    for name in _EQUAL:
        if (value := getattr(wanted, name)) is not None:
            found.add(f"d.{name} = {{}}", value)
    if wanted.trace_id is not None:
        found.add("d.traceparent IS NOT NULL AND split_part(d.traceparent, '-', 2) = {}", wanted.trace_id)
    if wanted.evidence_id is not None:
        found.add("d.job_id = (SELECT e.job_id FROM fleet.evidence e WHERE e.id = {})", wanted.evidence_id)
    if wanted.text is not None:
        found.add("d.searched @@ websearch_to_tsquery('simple', {})", wanted.text)
    if wanted.received_after is not None:
        found.add("d.received_at >= {}", wanted.received_after)
    if wanted.received_before is not None:
        found.add("d.received_at < {}", wanted.received_before)
    if wanted.ids is not None:
        found.add("d.id = ANY ({}::uuid[])", list(wanted.ids))
    return found


_MARKS: Final = """
fleet.letter_marks(d.state, d.tenant_id, d.rail, d.error_class, d.fingerprint, d.operation, d.provider, d.permits,
    d.received_at)
"""
"""What dead_letters_by_marks has of a letter; the index is found by these very words (0134)."""
_SOME: Final = 1_000
"""So many matches are read at once; where there are more, the newest are sought from the newest time on."""
_SPAN: Final = """
SELECT CASE WHEN newest - oldest > interval '14 days' THEN 86400 WHEN newest - oldest > interval '6 hours' THEN 3600
    ELSE 60 END AS unit_s, newest
FROM (SELECT
    (SELECT d.received_at FROM fleet.dead_letters d WHERE {bounds} ORDER BY d.received_at DESC LIMIT 1) AS newest,
    (SELECT d.received_at FROM fleet.dead_letters d WHERE {bounds} ORDER BY d.received_at LIMIT 1) AS oldest) ends
"""
# Only times that have letters: each is found from the one before along the index of time.
_TIMES: Final = """
SELECT floor(extract(epoch FROM newest) / unit_s)::bigint AS place, unit_s FROM span WHERE newest IS NOT NULL
UNION ALL
SELECT floor(extract(epoch FROM next.received_at) / t.unit_s)::bigint, t.unit_s
FROM times t CROSS JOIN LATERAL (
    SELECT d.received_at FROM fleet.dead_letters d WHERE {bounds} AND d.received_at < to_timestamp(t.place * t.unit_s)
    ORDER BY d.received_at DESC LIMIT 1) next
"""
_AMONG_ALL: Final = """
WITH RECURSIVE every AS MATERIALIZED (SELECT d.id, d.received_at FROM fleet.dead_letters d WHERE {where}),
few AS MATERIALIZED (SELECT * FROM every LIMIT {some:d}),
found AS MATERIALIZED (SELECT count(*) AS letters FROM few),
span AS MATERIALIZED ({span}),
times(place, unit_s) AS ({times})
(SELECT id FROM few WHERE (SELECT letters FROM found) < {some:d} {order} LIMIT {limit:d})
UNION ALL
(SELECT m.id FROM unnest(ARRAY(SELECT format('at%s:%s', unit_s, place) FROM times ORDER BY place DESC))
        WITH ORDINALITY AS t(mark, place)
    CROSS JOIN LATERAL (SELECT d.id, d.received_at FROM fleet.dead_letters d
        WHERE {where} AND {marks} @> ARRAY[t.mark] {order} LIMIT {limit:d}) m
    WHERE (SELECT letters FROM found) >= {some:d} ORDER BY t.place, m.received_at DESC, m.id DESC LIMIT {limit:d})
"""
_AFTER: Final = "(d.received_at, d.id) < ({}, {})"
_ORDER: Final = "ORDER BY received_at DESC, id DESC"


def pages_of(wanted: LetterFilter, limit: int, after: tuple[Any, Any] | None = None) -> Iterator[Conditions]:
    """Yield where a page is to be looked for, one after the other: the first that fills the page is the page of all.

    Along the index of one narrowing the newest letters are at hand, and what many of them have is found among a few.
    What is rare, or meets nowhere, would walk every letter there: it is found by the index of all marks, which knows
    what meets nowhere by itself. The last one yielded is true in any case.
    """
    if any(getattr(wanted, name) is not None for name in _FEW):
        yield _all_of(wanted, limit, after)
        return
    walked = next((name for name in _NARROWEST if getattr(wanted, name) is not None), None)
    others = [name for name in (*_NARROWEST, "text") if name != walked and getattr(wanted, name) is not None]
    if not others:
        found = conditions_of(wanted)
        if after is not None:
            found.add(_AFTER, *after)
        found.texts[-1] += f" {_ORDER} LIMIT {limit:d}"
        yield found
        return
    yield _newest_of(wanted, others, limit, after)
    yield _among_all(wanted, limit, after)


def _newest_of(wanted: LetterFilter, others: Sequence[str], limit: int, after: tuple[Any, Any] | None) -> Conditions:
    """Return the page among the newest letters of one narrowing that match the others too."""
    without: dict[str, Any] = dict.fromkeys(others)
    found = conditions_of(replace(wanted, **without))
    if after is not None:
        found.add(_AFTER, *after)
    newest = f"SELECT d.* FROM fleet.dead_letters d WHERE {found.where} {_ORDER} LIMIT {_NEWEST:d}"  # noqa: S608
    found.texts.clear()
    for name in others:
        if name == "text":
            found.add("d.searched @@ websearch_to_tsquery('simple', {})", wanted.text)
        else:
            found.add(f"d.{name} = {{}}", getattr(wanted, name))
    return _by_ids(found, f"SELECT d.id FROM ({newest}) d WHERE {found.where} {_ORDER} LIMIT {limit:d}")  # noqa: S608


def _all_of(wanted: LetterFilter, limit: int, after: tuple[Any, Any] | None) -> Conditions:
    """Return the page among all that match: `OFFSET 0` keeps the order out of how they are found."""
    found = conditions_of(wanted)
    if after is not None:
        found.add(_AFTER, *after)
    every = f"SELECT d.id, d.received_at FROM fleet.dead_letters d WHERE {found.where} OFFSET 0"  # noqa: S608
    return _by_ids(found, f"SELECT id FROM ({every}) m {_ORDER} LIMIT {limit:d}")  # noqa: S608


def _among_all(wanted: LetterFilter, limit: int, after: tuple[Any, Any] | None) -> Conditions:
    """Return the page among all that have these marks and words: all of few, or the newest of many."""
    found = Conditions()
    found.add("d.state = {}", wanted.state)
    if wanted.received_after is not None:
        found.add("d.received_at >= {}", wanted.received_after)
    if wanted.received_before is not None:
        found.add("d.received_at < {}", wanted.received_before)
    if after is not None:
        found.add(_AFTER, *after)
    bounds = found.where
    if len(found.texts) == 1:
        found.texts.clear()  # the state is among the marks: nothing then but the index of all marks comes into question
    marks = [f"{name}:{value}" for name in ("state", *_NARROWEST) if (value := getattr(wanted, name)) is not None]
    found.add(f"{_MARKS} @> {{}}::text[]", marks)
    if wanted.text is not None:
        found.add("d.searched @@ websearch_to_tsquery('simple', {})", wanted.text)
    span, times = _SPAN.format(bounds=bounds), _TIMES.format(bounds=bounds)
    page = _AMONG_ALL.format(
        where=found.where, marks=_MARKS, some=_SOME, span=span, times=times, order=_ORDER, limit=limit
    )
    return _by_ids(found, page)


def _by_ids(found: Conditions, ids: str) -> Conditions:
    found.texts[:] = [f"d.id = ANY (ARRAY({ids}))"]
    return found
