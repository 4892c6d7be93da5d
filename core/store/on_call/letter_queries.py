"""The SQL of dead letters: which are meant, and what is known of each. Only what is narrowed is asked."""

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

STANDING_COLUMNS: Final = tuple(name for name in Standing.__dataclass_fields__ if name != "source")


def standing_of(row: Any) -> Standing:
    """Return the standing in a record that has STANDING's columns."""
    source = Source.RESULT if row["is_result"] else Source.JOB
    return Standing(source, **{name: row[name] for name in STANDING_COLUMNS})


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


def newest_conditions_of(wanted: LetterFilter, newest: int) -> Conditions:
    """Return what the filter's text asks for among the newest letters that match the rest of it.

    A page that this fills is the page of all: frequent words are at hand, and only rare ones need their index.
    """
    found = conditions_of(replace(wanted, text=None))
    inner = f"{found.where} ORDER BY d.received_at DESC, d.id DESC LIMIT {newest:d}"
    found.texts.clear()
    found.add(
        f"d.id = ANY (ARRAY(SELECT n.id FROM (SELECT d.id, d.searched FROM fleet.dead_letters d WHERE {inner}) n"  # noqa: S608
        " WHERE n.searched @@ websearch_to_tsquery('simple', {})))",
        wanted.text,
    )
    return found


def conditions_of(wanted: LetterFilter) -> Conditions:
    """Return what the filter asks for; only what is narrowed appears, so that the planner sees it."""
    found = Conditions()
    for name in _EQUAL:
        if (value := getattr(wanted, name)) is not None:
            found.add(f"d.{name} = {{}}", value)
    if wanted.trace_id is not None:
        # Few letters are of one trace: along the time's index it would walk every letter.
        found.add(
            "d.id = ANY (ARRAY(SELECT t.id FROM fleet.dead_letters t"
            " WHERE split_part(t.traceparent, '-', 2) = {} AND t.traceparent IS NOT NULL))",
            wanted.trace_id,
        )
    if wanted.evidence_id is not None:
        found.add("d.job_id = (SELECT e.job_id FROM fleet.evidence e WHERE e.id = {})", wanted.evidence_id)
    if wanted.text is not None:
        # As ids, so that the words' own index answers: along the time's, a rare word would walk every letter.
        found.add(
            "d.id = ANY (ARRAY(SELECT g.id FROM fleet.dead_letters g"
            " WHERE g.searched @@ websearch_to_tsquery('simple', {})))",
            wanted.text,
        )
    if wanted.received_after is not None:
        found.add("d.received_at >= {}", wanted.received_after)
    if wanted.received_before is not None:
        found.add("d.received_at < {}", wanted.received_before)
    if wanted.ids is not None:
        found.add("d.id = ANY ({}::uuid[])", list(wanted.ids))
    return found
