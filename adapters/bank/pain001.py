"""pain.001.001.09: credit transfers, one file a batch. Pure: the same parts are the same bytes, always."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from lxml import etree

from schemas.money import currency_of, to_major_text

NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"
ID_PATTERN: Final = re.compile(r"[A-Z0-9-]{1,35}", re.ASCII)
"""What every id of ours is made of: what any bank takes and echoes unchanged."""
_REMITTANCE_MAX: Final = 140
_UNPRINTABLE: Final = re.compile("[^\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class OwnAccount:
    """Our account at the bank. `account` is an IBAN or the bank's own number; `bank_code` has 3 digits."""

    name: str
    account: str
    bank_code: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """One payment of a file; the amount is minor units. Without a bank code the account is an IBAN."""

    end_to_end_id: str
    amount_minor: int
    currency: str
    bank_code: str
    account: str
    message: str = ""


def credit_transfers(
    message_id: str, own: OwnAccount, transfers: Sequence[Transfer], *, created_at: datetime, execute_on: date
) -> bytes:
    """Return the file. Raises ValueError for ids that no bank would echo, mixed currencies or no payment at all."""
    require_ids(message_id, [each.end_to_end_id for each in transfers])
    if len({each.currency for each in transfers}) != 1:
        raise ValueError("a file pays in one currency")
    count, total = str(len(transfers)), control_sum(transfers)
    root = document(NAMESPACE)
    initiation = add(root, "CstmrCdtTrfInitn")
    header = add(initiation, "GrpHdr")
    add_texts(header, MsgId=message_id, CreDtTm=created_at.isoformat(timespec="seconds"), NbOfTxs=count, CtrlSum=total)
    add(add(header, "InitgPty"), "Nm", own.name)
    batch = add(initiation, "PmtInf")
    add_texts(batch, PmtInfId=message_id, PmtMtd="TRF", NbOfTxs=count, CtrlSum=total)
    add(add(batch, "ReqdExctnDt"), "Dt", execute_on.isoformat())
    add(add(batch, "Dbtr"), "Nm", own.name)
    add_account(add(batch, "DbtrAcct"), own.account)
    add_agent(add(batch, "DbtrAgt"), own.bank_code)
    for transfer in transfers:
        _add_transfer(batch, transfer)
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def _add_transfer(batch: etree._Element, transfer: Transfer) -> None:
    info = add(batch, "CdtTrfTxInf")
    add(add(info, "PmtId"), "EndToEndId", transfer.end_to_end_id)
    amount = add(add(info, "Amt"), "InstdAmt", to_major_text(transfer.amount_minor, currency_of(transfer.currency)))
    amount.set("Ccy", transfer.currency)
    if transfer.bank_code:
        add_agent(add(info, "CdtrAgt"), transfer.bank_code)
    # Who holds the account is not known before the bank says so; its number is what is paid.
    add(add(info, "Cdtr"), "Nm", f"ACCOUNT {transfer.account}")
    add_account(add(info, "CdtrAcct"), transfer.account)
    told = remittance(transfer.message)
    if told:
        add(add(info, "RmtInf"), "Ustrd", told)


def require_ids(message_id: str, references: Sequence[str]) -> None:
    """Raise ValueError unless the ids are ones that any bank takes, each of them once, and there is a payment."""
    if not references or len(set(references)) != len(references):
        raise ValueError("a file has payments, and each of them once")
    for each in (message_id, *references):
        if ID_PATTERN.fullmatch(each) is None or each == "NOTPROVIDED":
            raise ValueError(f"{each[:40]!r} is no id that a bank can be given")


def control_sum(transfers: Sequence[Transfer]) -> str:
    """Return the sum of the amounts as the header states it."""
    return to_major_text(sum(each.amount_minor for each in transfers), currency_of(transfers[0].currency))


def remittance(message: str) -> str:
    """Return a message as a file can carry it: what XML cannot hold is a blank, and 140 characters are the most."""
    return " ".join(_UNPRINTABLE.sub(" ", message).split())[:_REMITTANCE_MAX].strip()


def add(parent: etree._Element, name: str, text: str | None = None) -> etree._Element:
    """Append an element of the parent's own namespace."""
    child = etree.SubElement(parent, f"{{{etree.QName(parent).namespace}}}{name}")
    child.text = text
    return child


def add_texts(parent: etree._Element, **texts: str) -> None:
    """Append elements that hold text alone, in the order given."""
    for name, text in texts.items():
        add(parent, name, text)


def add_account(parent: etree._Element, account: str) -> None:
    """Append an account: as an IBAN where it is written like one, else as the bank's own number."""
    identification = add(parent, "Id")
    if account[:2].isalpha():
        add(identification, "IBAN", account)
    else:
        add(add(identification, "Othr"), "Id", account)


def add_agent(parent: etree._Element, bank_code: str) -> None:
    """Append a bank by its 3-digit code of the national clearing."""
    add(add(add(parent, "FinInstnId"), "ClrSysMmbId"), "MmbId", bank_code)


def document(namespace: str) -> etree._Element:
    """Return the root of a message, whose namespace is the default one."""
    prefixes: Any = {None: namespace}
    return etree.Element(f"{{{namespace}}}Document", nsmap=prefixes)
