"""Whatever a bank answers or writes: only a listed word about a payment, or a booked entry, ever ends one."""

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.bank.answers import REASONS, STATUSES, outcome_of, outcome_of_collection
from adapters.bank.client import BankClient
from adapters.bank.mailbox import Mailbox
from adapters.runtime import errors
from schemas.results import Verdict

ACCOUNT, REFERENCE = "TH69MOCK1234567890", "A1"
ENDS = {Verdict.SUCCEEDED, Verdict.DECLINED, Verdict.CANCELLED, Verdict.RETURNED, Verdict.PAID}
words = st.text(st.characters(categories=("Lu", "Ll", "Nd")), max_size=6)
unlisted = words.filter(lambda word: word not in STATUSES)
judged = st.one_of(
    # A listed reason beside an unlisted status, which stands with the payment, else with its batch, is no rejection.
    st.tuples(unlisted, st.sampled_from([*REASONS])),
    st.tuples(st.just("RJCT"), words.filter(lambda word: word not in REASONS)),
)
"""What a report says of a payment itself, status and reason, that ends nothing."""

STATUS_REPORT = """<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.002.001.10"><CstmrPmtStsRpt>
<OrgnlGrpInfAndSts><OrgnlMsgId>PF1</OrgnlMsgId><GrpSts>{group}</GrpSts></OrgnlGrpInfAndSts>
<OrgnlPmtInfAndSts><PmtInfSts>{batch}</PmtInfSts><TxInfAndSts><OrgnlEndToEndId>A1</OrgnlEndToEndId>
<TxSts>{own}</TxSts><StsRsnInf><Rsn><Cd>{reason}</Cd></Rsn></StsRsnInf></TxInfAndSts></OrgnlPmtInfAndSts>
</CstmrPmtStsRpt></Document>"""
NOTICE = """<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.054.001.08"><BkToCstmrDbtCdtNtfctn><Ntfctn>
<Acct><Id><Othr><Id>{account}</Id></Othr></Id></Acct><Ntry><Amt Ccy="THB">10.50</Amt><CdtDbtInd>{way}</CdtDbtInd>
<Sts><Cd>{status}</Cd></Sts><NtryDtls><TxDtls><Refs><EndToEndId>{reference}</EndToEndId></Refs></TxDtls></NtryDtls>
</Ntry></Ntfctn></BkToCstmrDbtCdtNtfctn></Document>"""


class Box:
    """A mailbox with these messages."""

    def __init__(self, *messages: bytes) -> None:
        self._messages = messages

    async def message(self, number: int) -> bytes | None:
        return self._messages[number - 1] if number <= len(self._messages) else None


async def ends(*messages: bytes) -> set[Verdict]:
    """Return how the payment and the collection of the reference end by these messages, if they do."""
    mailbox = Mailbox(Box(*messages), ACCOUNT)
    await mailbox.read()
    known, of_file = mailbox.known(REFERENCE), mailbox.file("PF1")
    found = [judge(known, of_file) for judge in (outcome_of, outcome_of_collection)]
    return {outcome.verdict for outcome in found if outcome is not None} & ENDS


async def test_the_messages_that_are_drawn_from_do_end_a_payment_with_listed_words() -> None:
    report = STATUS_REPORT.format(group="PART", batch="", own="RJCT", reason="AC04").encode()
    assert await ends(report) == {Verdict.DECLINED}
    notice = NOTICE.format(account=ACCOUNT, way="DBIT", status="BOOK", reference=REFERENCE).encode()
    assert await ends(notice) == {Verdict.SUCCEEDED}


@settings(max_examples=60, deadline=None)
@given(group=unlisted, batch=unlisted, own=judged)
async def test_no_unlisted_status_or_reason_in_a_report_ends_a_payment(
    group: str, batch: str, own: tuple[str, str]
) -> None:
    status, reason = own
    assert not await ends(STATUS_REPORT.format(group=group, batch=batch, own=status, reason=reason).encode())


@settings(max_examples=60, deadline=None)
@given(
    account=st.just(ACCOUNT) | words,
    way=st.sampled_from(["DBIT", "CRDT"]) | words,
    status=st.just("BOOK") | words,
    reference=st.just(REFERENCE) | words,
)
async def test_no_entry_that_is_not_booked_on_our_account_under_the_reference_ends_a_payment(
    account: str, way: str, status: str, reference: str
) -> None:
    genuine = (account, status, reference) == (ACCOUNT, "BOOK", REFERENCE) and way in ("DBIT", "CRDT")
    told = await ends(NOTICE.format(account=account, way=way, status=status, reference=reference).encode())
    assert bool(told) <= genuine


@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=200), at=st.integers(0, 500), cut=st.integers(0, 30))
async def test_no_garbage_and_no_torn_message_ends_a_payment(body: bytes, at: int, cut: int) -> None:
    # The batch was rejected by a time-out, which is not final: its payment is settled, and nothing else may come of it.
    genuine = STATUS_REPORT.format(group="RJCT", batch="RJCT", own="ACSC", reason="AB05").encode()
    assert await ends(genuine) == {Verdict.SUCCEEDED}
    assert not await ends(body)
    assert not await ends(genuine[: min(at, len(genuine) - 1)])
    # What was torn out leaves no document, or one that says what the whole says, or less.
    assert await ends(genuine[:at] + genuine[at + cut :]) <= {Verdict.SUCCEEDED}


@settings(max_examples=60, deadline=None)
@given(status=st.integers(200, 599), body=st.binary(max_size=80))
async def test_no_http_answer_to_a_file_says_anything_final(status: int, body: bytes) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=body))
    async with httpx.AsyncClient(transport=transport, base_url="http://bank") as http:
        client = BankClient(http)
        if status in (202, 422):
            await client.hand_in(b"<x/>")
            return
        wanted = errors.Misconfigured if status in (401, 403) else errors.Indeterminate
        with pytest.raises(wanted):
            await client.hand_in(b"<x/>")
