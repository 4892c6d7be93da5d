"""What a bank's words mean for the money: the tables of statuses and reasons, and the one rule that reads them. Pure.

A payment succeeded when our account shows it booked, or the bank calls it settled; it failed when an authoritative
report rejects it for a reason that is listed here. Everything else is still open: what is not in a table is UNKNOWN.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from adapters.bank.reports import Entry, FileStatus, PaymentStatus, ReturnNotice
from adapters.runtime.errors import ProtocolViolation
from adapters.runtime.port import Outcome
from schemas.results import Basis, Verdict

STATUSES: Final[Mapping[str, Verdict]] = {
    "RCVD": Verdict.PENDING,
    "ACTC": Verdict.PENDING,
    "ACCP": Verdict.PENDING,
    "ACSP": Verdict.PENDING,
    "ACWC": Verdict.PENDING,
    "PDNG": Verdict.PENDING,
    "ACSC": Verdict.SUCCEEDED,
    "ACCC": Verdict.SUCCEEDED,
    "RJCT": Verdict.DECLINED,
    "CANC": Verdict.CANCELLED,
}
"""ISO 20022 ExternalPaymentTransactionStatus. ACCP and ACSP are not money moved; PART says nothing of one payment."""

REASONS: Final[Mapping[str, str]] = {
    "AC01": "account_invalid",
    "AC04": "account_closed",
    "AC06": "account_blocked",
    "AG01": "transaction_forbidden",
    "AM02": "amount_not_allowed",
    "AM04": "insufficient_provider_funds",
    "AM09": "amount_invalid",
    "BE01": "payee_mismatch",
    "FF01": "file_invalid",
    "MD01": "mandate_missing",
    "MD02": "mandate_incomplete",
    "MS03": "declined",
    "RC01": "bank_unknown",
}
"""Reasons that make a rejection final, and our stable code. A rejection for any other reason is UNKNOWN.

Left out on purpose: AB03 and AB05 to AB11 are time-outs, after which it may still be executed; AM05 and DUPL say that
the first one arrived, so that its own status is what counts.
"""

DUPLICATES: Final = frozenset({"AM05", "DUPL"})
TIME_OUTS: Final = frozenset({"AB03", "AB05", "AB06", "AB07", "AB08", "AB09", "AB10", "AB11"})

RETURN_REASONS: Final[Mapping[str, str]] = {
    **REASONS,
    "AC03": "account_invalid",
    "MD06": "refund_asked",
    "MD07": "closed",
}


@dataclass(slots=True)
class Known:
    """Everything that was reported about one EndToEndId."""

    status: PaymentStatus | None = None
    debits: dict[str, Entry] = field(default_factory=dict)
    """Booked debits by the bank's own reference: a notice, a report and a statement show the same one."""
    returned: dict[str, Entry] = field(default_factory=dict)
    credits: dict[str, Entry] = field(default_factory=dict)
    """Booked credits of what we collected."""
    taken_back: dict[str, Entry] = field(default_factory=dict)
    announced: dict[str, ReturnNotice] = field(default_factory=dict)
    """Announcements of its return, by the bank's name of each: they say why, and never that money moved."""

    def why_back(self, entries: Iterable[Entry]) -> str:
        """Return our code for why money came back: as its entries say, else as it was announced."""
        codes = [*(each.reason for each in entries), *(each.reason for each in self.announced.values())]
        return next((RETURN_REASONS[code] for code in codes if code in RETURN_REASONS), "returned")

    def proof_of_return(self, entries: Mapping[str, Entry]) -> str:
        """Return the entries that show it, and what announced it."""
        return "\n".join(filter(None, (_evidence(entries), _evidence(self.announced))))


def outcome_of(known: Known | None, of_file: FileStatus | None) -> Outcome | None:
    """Return what the reports prove of a payment; None where none of them speaks of it.

    Raises ProtocolViolation where the account shows it booked twice: that is for people.
    """
    if known is not None and known.debits:
        return _booked(known)
    if known is not None and known.status is not None:
        status = known.status
        return _reported(status.status, status.reason, status.evidence)
    if of_file is not None:
        outcome = _reported(of_file.status, of_file.reason, of_file.evidence)
        # A file that is accepted, in part or in all, settles nothing about one of its payments.
        positive = outcome.verdict is Verdict.SUCCEEDED
        return Outcome(Verdict.PENDING, reason="file_accepted", evidence=outcome.evidence) if positive else outcome
    return None


def outcome_of_collection(known: Known | None, of_file: FileStatus | None) -> Outcome | None:
    """Return what the reports prove of a direct debit: it is paid when our account shows the credit booked."""
    if known is not None and known.credits:
        [credit, *others] = known.credits.values()
        if others:
            raise ProtocolViolation("the account shows one collection booked twice", evidence=_evidence(known.credits))
        if not known.taken_back:
            return received(credit)
        back = sum(entry.amount_minor for entry in known.taken_back.values())
        return received(credit)._replace(
            verdict=Verdict.RETURNED,
            amount_minor=back,
            reason=known.why_back(known.taken_back.values()),
            evidence=known.proof_of_return(known.taken_back),
        )
    reported = outcome_of(Known(known.status) if known is not None else None, of_file)
    # "Settled" without an entry on our account is no money of ours yet.
    early = reported is not None and reported.verdict is Verdict.SUCCEEDED
    return Outcome(Verdict.PENDING, reason="settled_not_booked") if early else reported


def received(credit: Entry) -> Outcome:
    """Return a booked credit as what was received."""
    return Outcome(
        Verdict.PAID,
        amount_minor=credit.amount_minor,
        currency=credit.currency,
        provider_tx_id=credit.bank_reference or None,
        evidence=credit.evidence,
        basis=Basis.REFERENCE_STATUS,
    )


def _booked(known: Known) -> Outcome:
    if len(known.debits) > 1:
        raise ProtocolViolation("the account shows one reference booked twice", evidence=_evidence(known.debits))
    [debit] = known.debits.values()
    if not known.returned:
        return Outcome(
            Verdict.SUCCEEDED,
            amount_minor=debit.amount_minor,
            currency=debit.currency,
            provider_tx_id=debit.bank_reference or None,
            evidence=debit.evidence,
            basis=Basis.REFERENCE_STATUS,
        )
    back = list(known.returned.values())
    return Outcome(
        Verdict.RETURNED,
        amount_minor=sum(each.amount_minor for each in back),
        currency=debit.currency,
        provider_tx_id=debit.bank_reference or None,
        reason=known.why_back(back),
        evidence=known.proof_of_return(known.returned),
        basis=Basis.REFERENCE_STATUS,
    )


def _reported(status: str, reason: str, evidence: str) -> Outcome:
    verdict, code = STATUSES.get(status, Verdict.UNKNOWN), ""
    if verdict is Verdict.DECLINED:
        code = REASONS.get(reason, "")
        if reason in DUPLICATES:
            verdict, code = Verdict.UNKNOWN, "duplicate"
        elif not code:
            verdict, code = Verdict.UNKNOWN, "bank_timed_out" if reason in TIME_OUTS else "rejection_not_listed"
    elif verdict is Verdict.UNKNOWN:
        code = "status_not_listed"
    return Outcome(verdict, reason=code, evidence=evidence, basis=Basis.REFERENCE_STATUS)


def _evidence(entries: Mapping[str, Entry] | Mapping[str, ReturnNotice]) -> str:
    return "\n".join(entry.evidence for entry in entries.values())


def tables() -> Iterator[str]:
    """Yield the lines of the tables in docs/rails/bank.md."""
    yield "| status in pain.002 | verdict |"
    yield "|---|---|"
    for status, verdict in STATUSES.items():
        told = {
            Verdict.SUCCEEDED: f"{verdict}, of a payment; of a whole file {Verdict.PENDING}",
            Verdict.DECLINED: f"{verdict} for a reason of the next table, else {Verdict.UNKNOWN}",
        }
        yield f"| `{status}` | {told.get(verdict, verdict)} |"
    yield f"| any other status, PART among them | {Verdict.UNKNOWN} |"
    yield ""
    yield "| what our account shows in camt | verdict |"
    yield "|---|---|"
    yield f"| one debit, booked | {Verdict.SUCCEEDED} |"
    yield f"| a booked debit and its return, booked | {Verdict.RETURNED}, with what came back |"
    yield f"| one credit of a direct debit, booked | {Verdict.PAID} |"
    yield f"| the same reference booked twice | {Verdict.UNKNOWN}, for people |"
    yield "| an entry that is not booked | nothing: what was reported counts |"
    yield ""
    yield "| reason beside RJCT | verdict | reason |"
    yield "|---|---|---|"
    for code, ours in REASONS.items():
        yield f"| `{code}` | {Verdict.DECLINED} | `{ours}` |"
    for code in sorted(DUPLICATES):
        yield f"| `{code}` | {Verdict.UNKNOWN}: the first one arrived | `duplicate` |"
    for code in sorted(TIME_OUTS):
        yield f"| `{code}` | {Verdict.UNKNOWN}: a time-out | `bank_timed_out` |"
    yield f"| any other reason, or none | {Verdict.UNKNOWN} | `rejection_not_listed` |"
    yield ""
    yield "| HTTP, a file handed in | what it means |"
    yield "|---|---|"
    yield "| 202, 422 | the bank has it, and says in its messages what became of it |"
    yield f"| 401, 403 | {Verdict.NOT_SENT}, later; the adapter is not ready |"
    yield f"| any other status, and no answer | {Verdict.UNKNOWN} |"
