"""Payments in that the bank books as one entry are told, named and paid back one by one, and never one for another."""

from uuid import uuid4

import httpx
import pytest

from adapters.bank.adapter import BankRail
from adapters.bank.answers import outcome_of
from adapters.bank.client import BankClient
from adapters.bank.settings import BankSettings
from adapters.runtime.errors import Rejected
from adapters.runtime.port import Order
from adapters.testkit.files import FilesInMemory
from schemas.operations import OperationType
from schemas.permits import Payee
from schemas.rails import Timing
from schemas.results import Verdict
from tests.support.bank import Told

ACCOUNT = "TH69MOCK1234567890"
ANONG, BOON = "NL14MOCK0000000002", "NL41MOCK0000000001"


class Bank:
    """Holds messages, and the files that were handed in."""

    def __init__(self, *messages: bytes) -> None:
        self.messages, self.files = messages, list[bytes]()
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer), base_url="http://bank")
        settings = BankSettings(base_url="http://bank", account=ACCOUNT)
        timing = Timing(send_by_s=1, call_total_s=2, claim_idle_s=4)
        self.rail = BankRail(BankClient(http), FilesInMemory(), settings, timing)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self.files.append(request.content)
            return httpx.Response(202)
        number = int(request.url.path.rpartition("/")[2])
        return httpx.Response(200, content=self.messages[number - 1]) if number <= len(self.messages) else NO_MORE

    async def told(self) -> list[tuple[str, int]]:
        """Return the payments in that the rail tells of."""
        told = Told()
        await self.rail.mailbox.read()
        await self.rail._watcher.tell(told)
        assert told.results == [], "nobody asked about it"
        return [(fact.transaction_id, fact.amount_minor) for fact in told.payments]

    async def refund(self, transaction: str, amount_minor: int) -> None:
        payee = Payee(type="transaction", value=transaction)
        operation = OperationType.REFUND
        await self.rail.refund(
            Order(uuid4(), uuid4().hex[:30].upper(), amount_minor, "THB", "bank-1", payee, operation=operation)
        )


NO_MORE = httpx.Response(404)


def message(*entries: str, name: str = "camt.053.001.08", kind: str = "BkToCstmrStmt", part: str = "Stmt") -> bytes:
    account = f"<Id>S-1</Id><Acct><Id><IBAN>{ACCOUNT}</IBAN></Id></Acct>"
    body = f"<{kind}><{part}>{account}{''.join(entries)}</{part}></{kind}>"
    return f'<Document xmlns="urn:iso:std:iso:20022:tech:xsd:{name}">{body}</Document>'.encode()


def notice(*entries: str) -> bytes:
    return message(*entries, name="camt.054.001.08", kind="BkToCstmrDbtCdtNtfctn", part="Ntfctn")


def entry(amount: str, *details: str, reference: str = "B-1") -> str:
    head = f'<Amt Ccy="THB">{amount}</Amt><CdtDbtInd>CRDT</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts>'
    return f"<Ntry>{head}<AcctSvcrRef>{reference}</AcctSvcrRef><NtryDtls>{''.join(details)}</NtryDtls></Ntry>"


def detail(amount: str, payer: str, end_to_end_id: str = "NOTPROVIDED", own: str = "") -> str:
    name = f"<AcctSvcrRef>{own}</AcctSvcrRef>" if own else ""
    references = f"<Refs>{name}<EndToEndId>{end_to_end_id}</EndToEndId></Refs>"
    account = f"<RltdPties><DbtrAcct><Id><IBAN>{payer}</IBAN></Id></DbtrAcct></RltdPties>"
    return f'<TxDtls>{references}<Amt Ccy="THB">{amount}</Amt>{account}</TxDtls>'


TWO = entry("30.50", detail("10.50", ANONG, "E1"), detail("20.00", BOON, "E2"))


@pytest.mark.parametrize("own", ["", "B-1"])
async def test_each_payment_of_one_entry_is_told_and_paid_back_to_who_paid_it(own: str) -> None:
    both = entry("30.50", detail("10.50", ANONG, "E1", own), detail("20.00", BOON, "E2", own))
    bank = Bank(notice(both), message(both))
    assert await bank.told() == [("B-1/E1", 1_050), ("B-1/E2", 2_000)]
    await bank.refund("B-1/E2", 2_000)
    [file] = bank.files
    assert BOON.encode() in file
    assert ANONG.encode() not in file
    with pytest.raises(Rejected, match="shows no such payment"):
        await bank.refund("B-1", 1_050)


async def test_payments_that_name_nothing_or_the_same_are_told_apart_by_their_places() -> None:
    unnamed = entry("2.00", detail("1.00", ANONG), detail("1.00", BOON))
    alike = entry("2.00", detail("1.00", ANONG, "E1"), detail("1.00", BOON, "E1"), reference="B-2")
    bank = Bank(message(unnamed, alike))
    assert await bank.told() == [("B-1/#1", 100), ("B-1/#2", 100), ("B-2/#1", 100), ("B-2/#2", 100)]


async def test_a_payment_with_a_name_of_its_own_keeps_it() -> None:
    bank = Bank(message(entry("3.00", detail("1.00", ANONG, "E1", "B-7"), detail("2.00", BOON, "E2", "B-8"))))
    assert await bank.told() == [("B-7", 100), ("B-8", 200)]


@pytest.mark.parametrize("end_to_end_id", ["E" * 35, "E 1"])
async def test_a_long_name_or_one_with_blanks_is_told_as_one_that_the_core_takes(end_to_end_id: str) -> None:
    both = entry("3.00", detail("1.00", ANONG, end_to_end_id), detail("2.00", BOON, "E2"), reference="B" * 35)
    (first, _), (second, _) = await Bank(message(both)).told()
    assert len(first) <= 64
    assert " " not in first
    assert first != second
    await Bank(message(both)).refund(first, 100)


async def test_the_sum_of_payments_that_were_told_is_no_payment() -> None:
    bank = Bank(notice(TWO), message(entry("30.50")))
    assert await bank.told() == [("B-1/E1", 1_050), ("B-1/E2", 2_000)]


@pytest.mark.parametrize("second", [detail("10.50", BOON), detail("20.00", ANONG)])
async def test_two_payments_of_one_name_are_paid_back_to_nobody(second: str, caplog: pytest.LogCaptureFixture) -> None:
    bank = Bank(message(entry("10.50", detail("10.50", ANONG)), entry("10.50", second)))
    await bank.told()
    with pytest.raises(Rejected, match="calls two payments by this name") as refused:
        await bank.refund("B-1", 1_050)
    assert refused.value.code == "payment_not_unique"
    assert "B-1" in caplog.text
    assert bank.files == []


async def test_a_second_payment_of_one_name_and_another_amount_is_told() -> None:
    bank = Bank(message(entry("10.50", detail("10.50", ANONG)), entry("20.00", detail("20.00", BOON))))
    assert await bank.told() == [("B-1", 1_050), ("B-1", 2_000)]


async def test_a_payment_of_ours_shown_alone_and_with_others_was_made_once_by_a_transaction_of_its_own() -> None:
    alone = entry("10.50", detail("10.50", ANONG, "E1"))
    both = entry("30.50", detail("10.50", ANONG, "E1"), detail("20.00", BOON, "E2"))
    bank = Bank(*(each.replace(b"CRDT", b"DBIT") for each in (notice(alone), message(both))))
    await bank.rail.mailbox.read()
    for reference, amount_minor in (("E1", 1_050), ("E2", 2_000)):
        outcome = outcome_of(bank.rail.mailbox.known(reference), None)
        assert outcome is not None
        assert (outcome.verdict, outcome.amount_minor) == (Verdict.SUCCEEDED, amount_minor)
        assert outcome.provider_tx_id == f"B-1/{reference}"
