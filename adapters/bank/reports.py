"""What a bank reports, as facts: pain.002, camt.052/053/054 and pacs.004. Pure; versions differ in namespace alone."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Final

from lxml import etree

from adapters.bank.names import UNNAMED, Names, visible
from adapters.bank.xml import XmlRefusedError, find, find_all, read_document, source_of, text_at
from schemas.collections import TRANSACTION_LENGTH_MAX
from schemas.money import MAX_AMOUNT_MINOR, AmountError, currency_of, to_minor

NOT_PROVIDED: Final = "NOTPROVIDED"
"""An EndToEndId that names nothing, and so matches nothing."""
_OWN_NAME: Final = "Refs/AcctSvcrRef"
_SEQUENCE_DIGITS: Final = 18
"""The longest number of a statement that is one, as the standard has it."""
_PART_SIGNS: Final = 20
_YEARS: Final = range(1990, 2200)
"""A value date outside of them is a placeholder, such as 0001-01-01: it tells no day."""


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What the bank says of a whole file of ours."""

    message_id: str
    status: str
    reason: str
    evidence: str


@dataclass(frozen=True, slots=True)
class PaymentStatus:
    """What the bank says of one payment before any money is booked."""

    message_id: str
    end_to_end_id: str
    status: str
    reason: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One movement on our account as a notice, report or statement shows it; the amount is minor units."""

    account: str
    is_credit: bool
    is_booked: bool
    is_return: bool
    amount_minor: int
    currency: str
    bank_reference: str
    """The bank's own name of the movement, else one made by `Names`: the same in every message that shows it."""
    end_to_end_id: str
    """Empty where the bank names none."""
    creditor_reference: str
    remittance: tuple[str, ...]
    value_date: str
    reason: str
    source: str
    evidence: str
    booked_on: str = ""
    """The day of the bank's that it is booked on."""
    debtor_account: str = ""
    """Of a credit: the account that it came from, as an IBAN or the bank's own number; empty where it is not told."""
    debtor_bank: str = ""
    """And its bank, by the code of the national clearing."""
    part_of: str = ""
    """Of a movement that the bank names only by the entry that it shares with others: that entry's name."""


@dataclass(frozen=True, slots=True)
class Balanced:
    """A statement as a whole: amounts are minor units, a balance of ours at the bank is positive."""

    account: str
    statement_id: str
    sequence: int | None
    opening_minor: int | None
    closing_minor: int | None
    entries_minor: int
    """What the statement's own entries add up to."""


@dataclass(frozen=True, slots=True)
class ReturnNotice:
    """pacs.004: a payment is coming back. The money is back when the account shows it."""

    name: str
    """The bank's own name of the return, else one made of all that it says."""
    accounts: tuple[str, ...]
    """The accounts of the payment, as far as the bank names them: ours is among them, or it is none of ours."""
    end_to_end_id: str
    """Empty where the bank names none."""
    amount_minor: int
    currency: str
    reason: str
    evidence: str

    def is_about(self, account: str) -> bool:
        """Whether it may be about a payment of this account's."""
        return not self.accounts or account in self.accounts


@dataclass(frozen=True, slots=True)
class RefusedEntry:
    """A movement, or a status, that is not read; what stands beside it in the message is."""

    account: str
    why: str
    """Safe for logs."""
    evidence: str


Fact = FileStatus | PaymentStatus | Entry | Balanced | ReturnNotice | RefusedEntry


def read_report(body: bytes, names: Names | None = None) -> list[Fact]:
    """Return the facts of one message; `names` numbers unnamed movements, by themselves where it is left out.

    Raises XmlRefusedError for what is no report that is known here. One bad entry is told as a RefusedEntry.
    """
    name, message = read_document(body)
    naming = names or Names()
    readers = {
        "pain.002": _status_report,
        "camt.052": lambda element: _accounts(element, "Rpt", name, naming),
        "camt.053": lambda element: _accounts(element, "Stmt", name, naming),
        "camt.054": lambda element: _accounts(element, "Ntfctn", name, naming),
        "pacs.004": _returns,
    }
    reader = readers.get(".".join(name.split(".")[:2]))
    if reader is None:
        raise XmlRefusedError(f"a message {name[:40]!r} is no report")
    try:
        return list(reader(message))
    except AmountError as error:
        raise XmlRefusedError("an amount that is none") from error


def _status_report(report: etree._Element) -> Iterator[Fact]:
    group = find(report, "OrgnlGrpInfAndSts")
    if group is None:
        raise XmlRefusedError("a status report without its group")
    message_id = text_at(group, "OrgnlMsgId")
    status = text_at(group, "GrpSts")
    if status:
        yield FileStatus(message_id, status, _reason(group), source_of(group))
    for batch in find_all(report, "OrgnlPmtInfAndSts"):
        batch_status, batch_reason = text_at(batch, "PmtInfSts"), _reason(batch)
        for each in find_all(batch, "TxInfAndSts"):
            # A transaction that has no status of its own has its batch's.
            own = text_at(each, "TxSts")
            yield PaymentStatus(
                message_id,
                text_at(each, "OrgnlEndToEndId"),
                own or batch_status,
                _reason(each) if own else batch_reason,
                source_of(each),
            )


def _reason(element: etree._Element) -> str:
    return text_at(element, "StsRsnInf/Rsn/Cd") or text_at(element, "StsRsnInf/Rsn/Prtry")


def _accounts(message: etree._Element, kind: str, name: str, names: Names) -> Iterator[Fact]:
    for part in find_all(message, kind):
        account = text_at(part, "Acct/Id/IBAN") or text_at(part, "Acct/Id/Othr/Id")
        # Interim reports show the day again and again, and a copy what its original shows.
        adds = kind != "Rpt" and not text_at(part, "CpyDplctInd")
        names.begin(kind, "\x1f".join((account, text_at(part, "Id"), _page(part))), adds=adds)
        total_minor = 0
        for entry in find_all(part, "Ntry"):
            try:
                movements = list(_movements(entry, account, name, names))
                signed_minor, is_credit = _amount(entry, "Amt")[0], text_at(entry, "CdtDbtInd") == "CRDT"
            except Exception as error:  # noqa: BLE001 - whatever is odd about one movement takes no other along
                yield RefusedEntry(account, _why(error), source_of(entry))
                continue
            total_minor += signed_minor if is_credit else -signed_minor
            yield from movements
        if kind == "Stmt":
            yield _balanced(part, account, total_minor)


def _balanced(statement: etree._Element, account: str, entries_minor: int) -> Balanced | RefusedEntry:
    try:
        opening_minor, closing_minor = _balance(statement, "OPBD"), _balance(statement, "CLBD")
    except Exception as error:  # noqa: BLE001 - as of a movement
        return RefusedEntry(account, _why(error), text_at(statement, "Id"))
    sequence = text_at(statement, "ElctrncSeqNb")
    is_number = sequence.isascii() and sequence.isdigit() and len(sequence) <= _SEQUENCE_DIGITS
    number = int(sequence) if is_number else None
    return Balanced(account, text_at(statement, "Id"), number, opening_minor, closing_minor, entries_minor)


def _day(entry: etree._Element) -> str:
    told = (text_at(entry, "ValDt/Dt") or text_at(entry, "ValDt/DtTm"))[:10]
    try:
        day = date.fromisoformat(told) if told else None
    except ValueError as error:
        raise XmlRefusedError("a value date that is none") from error
    return day.isoformat() if day is not None and day.year in _YEARS else ""


def _page(part: etree._Element) -> str:
    return text_at(part, "StmtPgntn/PgNb") or text_at(part, "NtfctnPgntn/PgNb")


def _own_name(entry: etree._Element, account: str, names: Names) -> str:
    """Return a name for an entry that the bank gives none: by what a notice and a statement tell alike."""
    days = ("ValDt/Dt", "ValDt/DtTm", "BookgDt/Dt", "BookgDt/DtTm")
    day = next((shown[:10] for path in days if (shown := text_at(entry, path))), "")
    amount_minor, currency = _amount(entry, "Amt")
    direction, status = text_at(entry, "CdtDbtInd"), text_at(entry, "Sts/Cd") or text_at(entry, "Sts")
    told = [account, str(amount_minor), currency, day, direction, status, text_at(entry, "RvslInd")]
    details = find_all(entry, "NtryDtls/TxDtls")
    # What is told of none or of many is the entry's alone: its sum in a statement has the name that its parts are of.
    if len(details) == 1:
        told += _told_of(details[0], direction)
    while not told[-1]:
        told.pop()
    return names.name(*told)


def _told_of(detail: etree._Element, direction: str) -> list[str]:
    reference = text_at(detail, "Refs/EndToEndId").replace(NOT_PROVIDED, "")
    told = ["returned" if find(detail, "RtrInf") is not None else "", reference]
    if direction == "DBIT" and reference:
        return told  # a payment of ours, whose reference names it
    told.append(text_at(detail, "RltdPties/DbtrAcct/Id/IBAN") or text_at(detail, "RltdPties/DbtrAcct/Id/Othr/Id"))
    told.append(text_at(detail, "RmtInf/Strd/CdtrRefInf/Ref"))
    return told + [(each.text or "").strip() for each in find_all(detail, "RmtInf/Ustrd")]


def _movements(entry: etree._Element, account: str, source: str, names: Names) -> Iterator[Entry]:
    """Yield one movement for each transaction: a bank may book many payments as one entry."""
    details = find_all(entry, "NtryDtls/TxDtls")
    whole, own_names = visible(text_at(entry, "AcctSvcrRef")), [visible(text_at(each, _OWN_NAME)) for each in details]
    end_to_end_ids = [text_at(each, "Refs/EndToEndId") for each in details]
    if not whole and not all(own_names or [""]):
        whole = _own_name(entry, account, names)
    for place, detail in enumerate(details or [entry]):
        own_amount = find(detail, "Amt") is not None
        if len(details) > 1 and not own_amount:
            raise XmlRefusedError("an entry of several transactions that do not state their amounts")
        amount_minor, currency = _amount(detail if own_amount else entry, "Amt")
        if amount_minor > MAX_AMOUNT_MINOR:
            raise XmlRefusedError("an amount that is too large to be one")
        direction = text_at(detail, "CdtDbtInd") or text_at(entry, "CdtDbtInd")
        if direction not in ("CRDT", "DBIT"):
            raise XmlRefusedError("an entry that is neither credit nor debit")
        reference = text_at(detail, "Refs/EndToEndId")
        is_return = find(detail, "RtrInf") is not None or text_at(entry, "RvslInd") == "true"
        name, part_of = visible(text_at(detail, _OWN_NAME)) or whole, ""
        # Who paid, and is paid back, hangs on a credit's name; and of one name, one payment of ours counts as paid.
        if not is_return and len(details) > 1 and name and own_names.count(name) != 1:
            tells_apart = reference not in ("", NOT_PROVIDED) and end_to_end_ids.count(reference) == 1
            name, part_of = _part_name(name, reference if tells_apart else f"#{place + 1}"), name
        yield Entry(
            account,
            direction == "CRDT",
            (text_at(entry, "Sts/Cd") or text_at(entry, "Sts")) == "BOOK",
            is_return,
            amount_minor,
            currency,
            name,
            "" if reference == NOT_PROVIDED else reference,
            text_at(detail, "RmtInf/Strd/CdtrRefInf/Ref"),
            tuple((each.text or "").strip() for each in find_all(detail, "RmtInf/Ustrd")),
            _day(entry),
            text_at(detail, "RtrInf/Rsn/Cd"),
            source,
            source_of(entry),
            (text_at(entry, "BookgDt/Dt") or text_at(entry, "BookgDt/DtTm"))[:10],
            text_at(detail, "RltdPties/DbtrAcct/Id/IBAN") or text_at(detail, "RltdPties/DbtrAcct/Id/Othr/Id"),
            text_at(detail, "RltdAgts/DbtrAgt/FinInstnId/ClrSysMmbId/MmbId"),
            part_of,
        )


def _part_name(whole: str, part: str) -> str:
    """Return the name of one payment of an entry: the same in every message that shows it, and short enough to tell."""
    name = f"{whole}/{part}"
    if len(name) <= TRANSACTION_LENGTH_MAX and all("!" <= each <= "~" for each in part):
        return name
    longest = TRANSACTION_LENGTH_MAX - _PART_SIGNS - 1
    # What is cut off still counts: of two long names that begin alike, two parts stay two.
    told = part if len(whole) <= longest else name
    return f"{whole[:longest]}/{hashlib.sha256(told.encode()).hexdigest()[:_PART_SIGNS]}"


def _balance(statement: etree._Element, code: str) -> int | None:
    for balance in find_all(statement, "Bal"):
        if text_at(balance, "Tp/CdOrPrtry/Cd") == code:
            amount_minor, _ = _amount(balance, "Amt")
            return amount_minor if text_at(balance, "CdtDbtInd") == "CRDT" else -amount_minor
    return None


def _returns(message: etree._Element) -> Iterator[Fact]:
    for each in find_all(message, "TxInf"):
        source = source_of(each)
        try:
            amount_minor, currency = _returned_amount(each)
        except Exception as error:  # noqa: BLE001 - as of a movement
            yield RefusedEntry("", _why(error), source)
            continue
        reason = text_at(each, "RtrRsnInf/Rsn/Cd") or text_at(each, "RtrRsnInf/Rsn/Prtry")
        named = [f"OrgnlTxRef/{whose}/Id/{form}" for whose in ("DbtrAcct", "CdtrAcct") for form in ("IBAN", "Othr/Id")]
        yield ReturnNotice(
            visible(text_at(each, "RtrId")) or UNNAMED + hashlib.sha256(source.encode()).hexdigest()[:24],
            tuple(account for path in named if (account := text_at(each, path))),
            visible(text_at(each, "OrgnlEndToEndId").replace(NOT_PROVIDED, "")),
            amount_minor,
            currency,
            reason,
            source,
        )


def _returned_amount(each: etree._Element) -> tuple[int, str]:
    amount_minor, currency = _amount(each, "RtrdIntrBkSttlmAmt")
    if not 0 < amount_minor <= MAX_AMOUNT_MINOR:
        raise XmlRefusedError("an amount that comes back and is none")
    return amount_minor, currency


def _why(error: Exception) -> str:
    # Any other text may quote the message.
    known = str(error) if isinstance(error, XmlRefusedError) else type(error).__name__
    return "an amount that is none" if isinstance(error, AmountError) else known


def _amount(element: etree._Element, path: str) -> tuple[int, str]:
    found = find(element, path)
    if found is None:
        raise XmlRefusedError(f"no {path} where one must be")
    currency = currency_of(found.get("Ccy") or "")
    text = (found.text or "").strip()
    return (0 if not text.strip("0.") and text else to_minor(text, currency)), currency.code
