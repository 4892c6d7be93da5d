"""Whatever a bank answers or reports: no operation of the rail is ended by a word that is not listed."""

import re
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.bank.adapter import BankRail
from adapters.bank.client import BankClient
from adapters.bank.settings import BankSettings
from adapters.runtime import verdicts as runtime_verdicts
from adapters.runtime.port import Order, Outcome
from adapters.runtime.verdicts import Action
from adapters.testkit.files import FilesInMemory
from schemas.operations import OperationType
from schemas.permits import Payee
from schemas.rails import Timing
from schemas.results import Verdict
from tests.unit.bank.test_unlisted_answers import NOTICE, STATUS_REPORT, judged, unlisted, words

OWN = "TH69MOCK1234567890"
CREDIT = f"""<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.054.001.08"><BkToCstmrDbtCdtNtfctn><Ntfctn>
<Acct><Id><IBAN>{OWN}</IBAN></Id></Acct><Ntry><Amt Ccy="THB">10.50</Amt><CdtDbtInd>CRDT</CdtDbtInd>
<Sts><Cd>BOOK</Cd></Sts><AcctSvcrRef>IN-1</AcctSvcrRef><NtryDtls><TxDtls><RltdPties><DbtrAcct><Id><Othr>
<Id>0123456789</Id></Othr></Id></DbtrAcct></RltdPties><RltdAgts><DbtrAgt><FinInstnId><ClrSysMmbId><MmbId>004</MmbId>
</ClrSysMmbId></FinInstnId></DbtrAgt></RltdAgts></TxDtls></NtryDtls></Ntry></Ntfctn></BkToCstmrDbtCdtNtfctn></Document>"""
PAYEES = {
    "payout": Payee(type="bank_account", value="004-0123456789"),
    "refund": Payee(type="transaction", value="IN-1"),
    "debit": Payee(type="mandate", value="M-17;2026-01-05;RCUR;004-0123456789;Somchai Jaidee"),
}
OPERATION = {
    "payout": OperationType.PAYOUT, "refund": OperationType.REFUND, "debit": OperationType.DIRECT_DEBIT,
}  # fmt: skip
SUBMITS = {"payout": "pay", "refund": "refund", "debit": "collect"}
ASKS = {
    ("payout", "inquire"): Action.INQUIRE,
    ("payout", "cancel"): Action.CANCEL,
    ("refund", "check_refund"): Action.INQUIRE,
    ("debit", "check_collection"): Action.INQUIRE,
    ("debit", "cancel_collection"): Action.CANCEL,
}
OPEN = {Verdict.PENDING, Verdict.UNKNOWN}


class Bank:
    """Answers files as it is told, and has sent these messages."""

    def __init__(self, status: int = 202, body: bytes = b"") -> None:
        self.answer, self.mailbox_answer = (status, body), (200, b"")
        self.messages, self.files = [CREDIT.encode()], list[bytes]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self.files.append(request.content)
            return httpx.Response(self.answer[0], content=self.answer[1])
        number = int(request.url.path.rpartition("/")[2])
        if number <= len(self.messages):
            return httpx.Response(self.mailbox_answer[0], content=self.messages[number - 1])
        return httpx.Response(404)

    def message_id(self) -> str:
        found = re.search(rb"<MsgId>([^<]+)</MsgId>", self.files[-1])
        assert found is not None
        return found[1].decode()


class Desk:
    """The rail over its client to a bank, and one order of a kind."""

    def __init__(self, bank: Bank, kind: str) -> None:
        http = httpx.AsyncClient(transport=httpx.MockTransport(bank), base_url="http://bank")
        chosen = BankSettings.model_validate({"base_url": "http://bank", "account": OWN})
        self.rail = BankRail(
            BankClient(http), FilesInMemory(), chosen, Timing(send_by_s=5, call_total_s=10, claim_idle_s=60)
        )
        self.order = Order(
            uuid4(), "A1", 1_050, "THB", "bank-1", PAYEES[kind], operation=OPERATION[kind],
            expires_at=datetime(2100, 1, 1, tzinfo=UTC),
        )  # fmt: skip
        self._kind = kind

    async def submit(self) -> Outcome:
        return await self.told(SUBMITS[self._kind], Action.SUBMIT)

    async def told(self, call: str, action: Action) -> Outcome:
        """Return the verdict that the runtime makes of a call."""
        try:
            return runtime_verdicts.checked(action, await getattr(self.rail, call)(self.order))
        except Exception as error:  # noqa: BLE001 - as the runtime does
            return runtime_verdicts.of_error(action, error)


@pytest.mark.parametrize("kind", SUBMITS)
@settings(max_examples=40, deadline=None)
@given(status=st.integers(200, 599) | st.sampled_from([401, 403]), body=st.binary(max_size=80))
async def test_no_http_answer_to_a_file_ends_what_is_in_it(kind: str, status: int, body: bytes) -> None:
    bank = Bank(status, body)
    outcome = await Desk(bank, kind).submit()
    assert bank.files, "nothing was handed in: nothing is shown"
    not_taken = {Verdict.NOT_SENT} if status in (401, 403) else set()
    assert outcome.verdict in OPEN | not_taken


@pytest.mark.parametrize(("kind", "call"), ASKS)
@settings(max_examples=80, deadline=None)
@given(
    told=st.tuples(unlisted, unlisted, judged) | st.binary(max_size=120), mailbox=st.just(200) | st.integers(200, 599)
)
async def test_no_unlisted_word_about_it_or_about_its_file_ends_it(
    kind: str, call: str, told: Any, mailbox: int
) -> None:
    bank = Bank()
    desk = Desk(bank, kind)
    assert (await desk.submit()).verdict is Verdict.PENDING
    bank.messages.append(told if isinstance(told, bytes) else _report(bank, *told))
    bank.mailbox_answer = (mailbox, b"")
    assert (await desk.told(call, ASKS[kind, call])).verdict in OPEN


@pytest.mark.parametrize(("kind", "call"), ASKS)
async def test_the_same_desk_is_ended_by_a_listed_word(kind: str, call: str) -> None:
    bank = Bank()
    desk = Desk(bank, kind)
    assert (await desk.submit()).verdict is Verdict.PENDING
    bank.messages.append(_report(bank, "PART", "PART", ("RJCT", "AC04")))
    assert (await desk.told(call, ASKS[kind, call])).verdict is Verdict.DECLINED


@settings(max_examples=40, deadline=None)
@given(
    status=words.filter(lambda word: word != "BOOK"), call=st.sampled_from(["check_collection", "cancel_collection"])
)
async def test_no_entry_that_is_not_booked_pays_or_ends_a_deposit_that_is_asked_about(status: str, call: str) -> None:
    bank = Bank()
    desk = Desk(bank, "payout")
    desk.order = desk.order._replace(payee=None, operation=OperationType.DEPOSIT, reference="DEP0000000000000001")
    bank.messages.append(NOTICE.format(account=OWN, way="CRDT", status=status, reference=desk.order.reference).encode())
    ours = {Verdict.AWAITING_PAYMENT, Verdict.CANCELLED if call == "cancel_collection" else Verdict.AWAITING_PAYMENT}
    assert (await desk.told(call, Action.INQUIRE)).verdict in ours


def _report(bank: Bank, group: str, batch: str, own: tuple[str, str]) -> bytes:
    text = STATUS_REPORT.format(group=group, batch=batch, own=own[0], reason=own[1])
    return text.replace("<OrgnlMsgId>PF1<", f"<OrgnlMsgId>{bank.message_id()}<").encode()
