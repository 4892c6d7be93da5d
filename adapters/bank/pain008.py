"""pain.008.001.08: direct debits under mandates, one file a batch. Pure: the same parts are the same bytes, always."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from lxml import etree

from adapters.bank.pain001 import OwnAccount, add, add_account, add_agent, add_texts, document, remittance, require_ids
from schemas.mandates import SequenceType
from schemas.money import currency_of, to_major_text

NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:pain.008.001.08"


@dataclass(frozen=True, slots=True)
class Collection:
    """One collection of a file, under the mandate that its debtor signed; the amount is minor units."""

    end_to_end_id: str
    amount_minor: int
    currency: str
    mandate_id: str
    signed_on: date
    debtor_name: str
    bank_code: str
    account: str
    message: str = ""


def direct_debits(
    message_id: str,
    own: OwnAccount,
    collections: Sequence[Collection],
    *,
    sequence: SequenceType,
    created_at: datetime,
    collect_on: date,
) -> bytes:
    """Return the file. Raises ValueError for ids that no bank would echo, mixed currencies or no collection at all."""
    require_ids(message_id, [each.end_to_end_id for each in collections])
    if len({each.currency for each in collections}) != 1:
        raise ValueError("a file collects in one currency")
    currency = currency_of(collections[0].currency)
    count, total = str(len(collections)), to_major_text(sum(each.amount_minor for each in collections), currency)
    root = document(NAMESPACE)
    initiation = add(root, "CstmrDrctDbtInitn")
    header = add(initiation, "GrpHdr")
    add_texts(header, MsgId=message_id, CreDtTm=created_at.isoformat(timespec="seconds"), NbOfTxs=count, CtrlSum=total)
    add(add(header, "InitgPty"), "Nm", own.name)
    batch = add(initiation, "PmtInf")
    add_texts(batch, PmtInfId=message_id, PmtMtd="DD", NbOfTxs=count, CtrlSum=total)
    add(add(batch, "PmtTpInf"), "SeqTp", sequence.value)
    add(batch, "ReqdColltnDt", collect_on.isoformat())
    add(add(batch, "Cdtr"), "Nm", own.name)
    add_account(add(batch, "CdtrAcct"), own.account)
    add_agent(add(batch, "CdtrAgt"), own.bank_code)
    for each in collections:
        _add_collection(batch, each)
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def _add_collection(batch: etree._Element, collection: Collection) -> None:
    info = add(batch, "DrctDbtTxInf")
    add(add(info, "PmtId"), "EndToEndId", collection.end_to_end_id)
    currency = currency_of(collection.currency)
    add(info, "InstdAmt", to_major_text(collection.amount_minor, currency)).set("Ccy", currency.code)
    mandate = add(add(info, "DrctDbtTx"), "MndtRltdInf")
    add_texts(mandate, MndtId=collection.mandate_id, DtOfSgntr=collection.signed_on.isoformat())
    add_agent(add(info, "DbtrAgt"), collection.bank_code)
    add(add(info, "Dbtr"), "Nm", collection.debtor_name)
    add_account(add(info, "DbtrAcct"), collection.account)
    told = remittance(collection.message)
    if told:
        add(add(info, "RmtInf"), "Ustrd", told)
