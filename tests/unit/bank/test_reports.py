"""Reports are read with care: bombs and foreign entities are refused, amounts are exact, doubt is no fact."""

from pathlib import Path

import pytest

from adapters.bank.reports import Balanced, Entry, PaymentStatus, RefusedEntry, read_report
from adapters.bank.xml import XmlRefusedError, read_document

_BOMB = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {chr(98 + at)} "{f"&{chr(97 + at)};" * 10}">' for at in range(9))
    + ']><Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.002.001.10"><A>&j;</A></Document>'
)
_DOCUMENT = '<Document xmlns="urn:iso:std:iso:20022:tech:xsd:{name}">{body}</Document>'


def report(name: str, body: str) -> bytes:
    return _DOCUMENT.format(name=name, body=body).encode()


def notice(entries: str) -> bytes:
    account = "<Acct><Id><Othr><Id>1234567890</Id></Othr></Id></Acct>"
    body = f"<BkToCstmrDbtCdtNtfctn><Ntfctn>{account}{entries}</Ntfctn></BkToCstmrDbtCdtNtfctn>"
    return report("camt.054.001.08", body)


def booked(details: str, amount: str = "30.50", status: str = "<Cd>BOOK</Cd>") -> str:
    head = f'<Amt Ccy="THB">{amount}</Amt><CdtDbtInd>DBIT</CdtDbtInd><Sts>{status}</Sts>'
    return f"<Ntry>{head}<AcctSvcrRef>B-1</AcctSvcrRef><NtryDtls>{details}</NtryDtls></Ntry>"


def detail(reference: str, amount: str = "") -> str:
    told = f'<Amt Ccy="THB">{amount}</Amt>' if amount else ""
    return f"<TxDtls><Refs><EndToEndId>{reference}</EndToEndId></Refs>{told}</TxDtls>"


def test_an_entity_bomb_is_refused() -> None:
    with pytest.raises(XmlRefusedError):
        read_document(_BOMB.encode())


def test_a_foreign_entity_reads_no_file_of_ours(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the master key")
    body = f'<!DOCTYPE a [<!ENTITY x SYSTEM "{secret.as_uri()}">]>' + report("pain.002.001.10", "<A>&x;</A>").decode()
    with pytest.raises(XmlRefusedError) as refused:
        read_document(body.encode())
    assert "master" not in str(refused.value)


@pytest.mark.parametrize("body", [b"", b"not xml", b"<Document/>", report("pain.002.001.10", ""), b"\xff\xfe\x00"])
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(XmlRefusedError):
        read_document(body)


def test_a_message_that_is_no_report_is_refused() -> None:
    with pytest.raises(XmlRefusedError, match="no report"):
        read_report(report("pain.001.001.09", "<CstmrCdtTrfInitn/>"))


def test_payments_booked_as_one_entry_are_told_apart() -> None:
    facts = read_report(notice(booked(detail("A1", "10.50") + detail("A2", "20.00"))))
    assert [(fact.end_to_end_id, fact.amount_minor) for fact in facts if isinstance(fact, Entry)] == [
        ("A1", 1_050),
        ("A2", 2_000),
    ]


def test_our_payments_booked_as_one_entry_have_a_transaction_each() -> None:
    # Two payments are never settled by one transaction: the entry's own name is no payment's.
    facts = read_report(notice(booked(detail("A1", "10.50") + detail("A2", "20.00"))))
    told = [(fact.bank_reference, fact.part_of) for fact in facts if isinstance(fact, Entry)]
    assert told == [("B-1/A1", "B-1"), ("B-1/A2", "B-1")]


def test_payments_booked_as_one_entry_without_amounts_of_their_own_prove_nothing() -> None:
    [refused] = read_report(notice(booked(detail("A1") + detail("A2"))))
    assert isinstance(refused, RefusedEntry)
    assert "do not state their amounts" in refused.why


def test_an_entry_that_is_not_booked_is_told_as_such() -> None:
    [fact] = read_report(notice(booked(detail("A1"), status="<Cd>PDNG</Cd>")))
    assert isinstance(fact, Entry)
    assert not fact.is_booked


def test_an_entry_that_names_nothing_matches_nothing() -> None:
    [fact] = read_report(notice(booked(detail("NOTPROVIDED"))))
    assert isinstance(fact, Entry)
    assert fact.end_to_end_id == ""


def test_an_amount_with_more_decimals_than_its_currency_has_is_refused() -> None:
    [refused] = read_report(notice(booked(detail("A1"), amount="30.505")))
    assert isinstance(refused, RefusedEntry)
    assert "amount" in refused.why


@pytest.mark.parametrize(
    "bad",
    [
        booked(detail("A1"), amount="30.505"),
        booked(detail("A1"), amount="99999999999999999.00"),
        booked(detail("A1")).replace("DBIT", "BOTH"),
        booked(detail("A1")).replace("<NtryDtls>", "<ValDt><Dt>2026-13-45</Dt></ValDt><NtryDtls>"),
        booked(detail("A1") + detail("A2")),
        "<Ntry/>",
    ],
)
def test_one_bad_entry_takes_nothing_from_those_beside_it(bad: str) -> None:
    facts = read_report(notice(booked(detail("A0")) + bad + booked(detail("A9"))))
    assert [type(fact) for fact in facts] == [Entry, RefusedEntry, Entry]


def test_a_balance_that_is_none_takes_nothing_from_the_entries() -> None:
    balance = '<Bal><Tp><CdOrPrtry><Cd>OPBD</Cd></CdOrPrtry></Tp><Amt Ccy="???">1.00</Amt></Bal>'
    statement = f"<BkToCstmrStmt><Stmt><Id>S-7</Id>{balance}{booked(detail('A1'))}</Stmt></BkToCstmrStmt>"
    facts = read_report(report("camt.053.001.08", statement))
    assert [type(fact) for fact in facts] == [Entry, RefusedEntry]


def test_a_transaction_without_a_status_of_its_own_has_its_batchs() -> None:
    group = "<OrgnlGrpInfAndSts><OrgnlMsgId>PF-1</OrgnlMsgId></OrgnlGrpInfAndSts>"
    reason = "<StsRsnInf><Rsn><Cd>AC04</Cd></Rsn></StsRsnInf>"
    batch = f"<OrgnlPmtInfAndSts><PmtInfSts>RJCT</PmtInfSts>{reason}<TxInfAndSts><OrgnlEndToEndId>A1</OrgnlEndToEndId>"
    body = f"<CstmrPmtStsRpt>{group}{batch}</TxInfAndSts></OrgnlPmtInfAndSts></CstmrPmtStsRpt>"
    [fact] = read_report(report("pain.002.001.10", body))
    assert isinstance(fact, PaymentStatus)
    assert (fact.message_id, fact.end_to_end_id, fact.status, fact.reason) == ("PF-1", "A1", "RJCT", "AC04")


def test_a_statement_tells_what_its_entries_add_up_to() -> None:
    balances = "".join(
        f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>"
        f'<Amt Ccy="THB">{amount}</Amt><CdtDbtInd>CRDT</CdtDbtInd></Bal>'
        for code, amount in (("OPBD", "100.00"), ("CLBD", "69.50"))
    )
    account = "<Id>S-7</Id><ElctrncSeqNb>7</ElctrncSeqNb><Acct><Id><IBAN>TH69</IBAN></Id></Acct>"
    statement = f"<BkToCstmrStmt><Stmt>{account}{balances}{booked(detail('A1'))}</Stmt></BkToCstmrStmt>"
    told = [fact for fact in read_report(report("camt.053.001.08", statement)) if isinstance(fact, Balanced)]
    assert told == [Balanced("TH69", "S-7", 7, 10_000, 6_950, -3_050)]
