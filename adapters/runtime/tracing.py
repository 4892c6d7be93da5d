"""The spans of one job in an adapter: the work, the permit before it and the call of the provider within."""

from adapters.runtime.execution import Executed
from adapters.runtime.guard import Held
from adapters.runtime.timing import clock_s
from schemas.permits import Granted
from wire.logs import log_about
from wire.tracing import Traced, begin, is_on


def trace_of(held: Held, granted: Granted, sent_at_s: float) -> Traced:
    """Begin the span of a job, under the one that published it; what is published about the job goes on under it.

    Every line that this task logs names the payment, whether or not spans are made.
    """
    envelope = held.delivery.envelope
    parent = envelope.traceparent if envelope is not None else ""
    log_about(parent, held.job.intent_id)
    traced = begin(f"{held.job.rail} {held.job.kind.value}", "CONSUMER", parent)
    if envelope is not None and is_on():
        job = held.job
        asked_s = clock_s() - sent_at_s
        traced.tell(job_id=str(job.job_id), intent_id=str(job.intent_id), rail=job.rail, fence=granted.fence)
        traced.child("permit", "CLIENT", asked_s, mode=granted.mode.value)
        held.delivery.envelope = envelope._replace(traceparent=traced.traceparent)
    return traced


def trace_call(traced: Traced, executed: Executed) -> None:
    """Tell of the call of the provider that just ended, by what it said."""
    if executed.call is not None:
        said = executed.outcome.verdict.value
        traced.child(f"provider {executed.action.value}", "CLIENT", executed.call.elapsed_s, verdict=said)
