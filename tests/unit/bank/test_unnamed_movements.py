"""A bank that names no movement, and returns of nobody's payments: what moved is told, once, and never dropped."""

from uuid import uuid4

from adapters.bank.mailbox import Mailbox
from adapters.bank.settings import BankSettings
from adapters.bank.watcher import Watcher
from adapters.testkit.files import FilesInMemory
from schemas.collections import PaymentKind
from schemas.files import FileMember
from schemas.results import Verdict
from tests.support.bank import Told

ACCOUNT, DAY = "TH69MOCK1234567890", "<ValDt><Dt>2026-03-02</Dt></ValDt>"
RETURNED = "<RtrInf><Rsn><Cd>AC04</Cd></Rsn></RtrInf>"


class Sent:
    """A bank that has sent these, and sends more."""

    def __init__(self, *messages: bytes) -> None:
        self.messages = list(messages)

    async def message(self, number: int) -> bytes | None:
        return self.messages[number - 1] if number <= len(self.messages) else None


def entry(amount: str, reference: str = "E1", *, way: str = "CRDT", more: str = "", name: str = "") -> str:
    named = f"<AcctSvcrRef>{name}</AcctSvcrRef>" if name else ""
    head = f'<Amt Ccy="THB">{amount}</Amt><CdtDbtInd>{way}</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts>{DAY}{named}'
    refs = f"<Refs><EndToEndId>{reference}</EndToEndId></Refs>"
    return f"<Ntry>{head}<NtryDtls><TxDtls>{refs}{more}</TxDtls></NtryDtls></Ntry>"


def notice(number: int, *entries: str, copy: str = "") -> bytes:
    return _message("camt.054.001.08", "BkToCstmrDbtCdtNtfctn", "Ntfctn", f"<Id>N-{number}</Id>{copy}", entries)


def statement(number: int, *entries: str) -> bytes:
    return _message("camt.053.001.08", "BkToCstmrStmt", "Stmt", f"<Id>S-{number}</Id>", entries)


def interim(*entries: str) -> bytes:
    return _message("camt.052.001.08", "BkToCstmrAcctRpt", "Rpt", "<Id>R</Id>", entries)


def _message(name: str, kind: str, part: str, head: str, entries: tuple[str, ...]) -> bytes:
    account = f"{head}<Acct><Id><IBAN>{ACCOUNT}</IBAN></Id></Acct>"
    body = f"<{kind}><{part}>{account}{''.join(entries)}</{part}></{kind}>"
    return f'<Document xmlns="urn:iso:std:iso:20022:tech:xsd:{name}">{body}</Document>'.encode()


async def told_of(*messages: bytes, files: FilesInMemory | None = None) -> Told:
    mailbox, told = Mailbox(Sent(*messages), ACCOUNT), Told()
    watcher = Watcher("bank", mailbox, files or FilesInMemory(), BankSettings(base_url="http://bank", account=ACCOUNT))
    await mailbox.read()
    await watcher.tell(told)
    return told


def amounts(told: Told) -> list[int]:
    assert len({fact.transaction_id for fact in told.payments}) == len(told.payments)
    return [fact.amount_minor for fact in told.payments]


async def test_an_unnamed_credit_is_told_once_whichever_messages_show_it() -> None:
    told = await told_of(notice(1, entry("20.00")), interim(entry("20.0")), statement(1, entry("20")))
    assert amounts(told) == [2_000]
    again = await told_of(statement(1, entry("20.00")))
    assert again.payments[0].transaction_id == told.payments[0].transaction_id


async def test_equal_unnamed_credits_are_as_many_as_the_bank_shows() -> None:
    two = entry("20.00"), entry("20.00")
    notices = notice(1, entry("20.00")), notice(2, entry("20.00"))
    assert amounts(await told_of(*notices, statement(1, *two))) == [2_000, 2_000]
    assert amounts(await told_of(notice(1, *two), interim(*two), interim(*two, entry("3.00")))) == [2_000, 2_000, 300]
    assert amounts(await told_of(statement(1, entry("20.00")), statement(2, entry("20.00")))) == [2_000, 2_000]


async def test_a_message_that_comes_again_or_as_a_copy_adds_nothing() -> None:
    first, second = notice(1, entry("20.00")), notice(2, entry("20.00"))
    copy = notice(9, entry("20.00"), copy="<CpyDplctInd>DUPL</CpyDplctInd>")
    resent = notice(1, entry("20.00"), "<AddtlNtfctnInf>again</AddtlNtfctnInf>")
    assert amounts(await told_of(first, second, copy, resent)) == [2_000, 2_000]


async def test_unnamed_payments_of_one_entry_and_their_sum_are_those_payments() -> None:
    part = '<TxDtls><Amt Ccy="THB">{}</Amt></TxDtls>'
    head = f'<Amt Ccy="THB">3.00</Amt><CdtDbtInd>CRDT</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts>{DAY}'
    parts = f"<Ntry>{head}<NtryDtls>{part.format('1.00')}{part.format('2.00')}</NtryDtls></Ntry>"
    assert amounts(await told_of(notice(1, parts), statement(1, f"<Ntry>{head}</Ntry>"))) == [100, 200]


async def test_two_unnamed_payments_under_one_virtual_reference_are_two() -> None:
    remittance = "<RmtInf><Ustrd>PAYREF0123456789</Ustrd></RmtInf>"
    messages = Sent(notice(1, entry("20.00", more=remittance), entry("30.00", more=remittance)))
    mailbox = Mailbox(messages, ACCOUNT)
    await mailbox.read()
    assert [each.amount_minor for each in mailbox.paid_in("PAYREF0123456789")] == [2_000, 3_000]


async def test_a_name_that_the_core_does_not_take_stops_nothing() -> None:
    told = await told_of(notice(1, entry("1.00", name="B 1"), entry("2.00", name="\u0411\u0430"), entry("0.00")))
    assert amounts(told) == [100, 200]


async def test_a_return_that_names_no_payment_of_ours_is_told_as_money_that_names_nothing() -> None:
    unknown = entry("40.00", "NOTOURS", more=RETURNED, name="B-3")
    told = await told_of(notice(1, entry("30.00", "NOTPROVIDED", more=RETURNED), unknown))
    assert amounts(told) == [3_000, 4_000]
    assert {(fact.kind, fact.reference) for fact in told.payments} == {(PaymentKind.PAYMENT, "")}
    assert told.results == []


async def holding(reference: str) -> FilesInMemory:
    files = FilesInMemory()
    await files.place(uuid4(), "PF-1", b"file", [FileMember(job_id=uuid4(), reference=reference)])
    return files


async def test_an_unnamed_return_of_ours_is_told_also_where_it_is_shown_before_the_payment() -> None:
    out, back = entry("40.00", "OURS", way="DBIT"), entry("40.00", "OURS", more=RETURNED)
    for messages in (
        (notice(1, out, back),),
        (notice(1, back), notice(2, out)),
        (notice(1, out), statement(1, out, back)),
    ):
        told = await told_of(*messages, files=await holding("OURS"))
        assert [(each.verdict, each.amount_minor) for each in told.results] == [(Verdict.RETURNED, 4_000)]
        assert told.payments == []


async def test_a_return_before_its_payment_is_told_when_the_payment_shows() -> None:
    bank = Sent(notice(1, entry("40.00", "OURS", more=RETURNED)))
    mailbox, told = Mailbox(bank, ACCOUNT), Told()
    settings = BankSettings(base_url="http://bank", account=ACCOUNT)
    watcher = Watcher("bank", mailbox, await holding("OURS"), settings)
    await mailbox.read()
    await watcher.tell(told)
    assert (told.results, told.payments) == ([], [])
    bank.messages.append(notice(2, entry("40.00", "OURS", way="DBIT")))
    await mailbox.read()
    await watcher.tell(told)
    assert [each.verdict for each in told.results] == [Verdict.RETURNED]


async def test_a_return_of_what_the_account_shows_twice_holds_up_no_other() -> None:
    twice = entry("40.00", "OURS", way="DBIT", name="B-1"), entry("40.00", "OURS", way="DBIT", name="B-2")
    back = entry("40.00", "OURS", more=RETURNED, name="B-3"), entry("5.00", "NOTOURS", more=RETURNED, name="B-4")
    told = await told_of(notice(1, *twice, *back), files=await holding("OURS"))
    assert amounts(told) == [4_000, 500]
