"""What leaves for the bank is valid by schemas that nobody here wrote, and the same parts are the same bytes."""

import re
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import sepaxml
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from adapters.bank.pain001 import OwnAccount, Transfer, credit_transfers
from adapters.bank.pain008 import Collection, direct_debits
from schemas.mandates import SequenceType

OWN = OwnAccount("psp-fleet", "TH69MOCK1234567890", "014")
AT, ON = datetime(2026, 11, 23, 2, 0, tzinfo=UTC), date(2026, 11, 23)
_SCHEMAS = Path(sepaxml.__file__).parent / "schemas"


def schema(name: str) -> etree.XMLSchema:
    return etree.XMLSchema(etree.parse(str(_SCHEMAS / f"{name}.xsd")))


PAIN_001, PAIN_008 = schema("pain.001.001.09"), schema("pain.008.001.08")


def transfer(reference: str, amount_minor: int = 1_050, message: str = "") -> Transfer:
    return Transfer(reference, amount_minor, "THB", "004", "0123456789", message)


def collection(reference: str, amount_minor: int = 1_050) -> Collection:
    signed = date(2026, 1, 5)
    return Collection(reference, amount_minor, "THB", "MANDATE-1", signed, "Somchai Jaidee", "004", "0123456789")


amounts = st.integers(1, 10**12)
references = st.lists(st.from_regex(r"[A-Z0-9-]{1,35}", fullmatch=True), min_size=1, max_size=5, unique=True)


@given(references, amounts, st.text(max_size=200))
def test_every_file_of_transfers_is_valid_by_the_published_schema(
    names: list[str], amount_minor: int, message: str
) -> None:
    sent = [transfer(name, amount_minor, message) for name in names if name != "NOTPROVIDED"]
    if not sent:
        return
    body = credit_transfers("PF-1", OWN, sent, created_at=AT, execute_on=ON)
    PAIN_001.assertValid(etree.fromstring(body))
    told = [text.decode() for text in re.findall(rb'InstdAmt Ccy="THB">([0-9.]+)<', body)]
    assert [int(text.replace(".", "")) for text in told] == [amount_minor] * len(sent)


@given(references, amounts, st.sampled_from(SequenceType))
def test_every_file_of_collections_is_valid_by_the_published_schema(
    names: list[str], amount_minor: int, sequence: SequenceType
) -> None:
    asked = [collection(name, amount_minor) for name in names if name != "NOTPROVIDED"]
    if not asked:
        return
    body = direct_debits("PF-2", OWN, asked, sequence=sequence, created_at=AT, collect_on=ON)
    PAIN_008.assertValid(etree.fromstring(body))


def test_the_same_parts_are_the_same_bytes() -> None:
    parts = [transfer("A1"), transfer("A2", 99)]
    first, second = (credit_transfers("PF-1", OWN, parts, created_at=AT, execute_on=ON) for _ in range(2))
    assert first == second
    assert b"<CtrlSum>11.49</CtrlSum>" in first


@pytest.mark.parametrize(
    ("message_id", "names"),
    [
        ("PF-1", []),
        ("PF-1", ["A", "A"]),
        ("PF-1", ["NOTPROVIDED"]),
        ("PF-1", ["lower"]),
        ("PF-1", ["A" * 36]),
        ("PF 1", ["A"]),
    ],
)
def test_ids_that_a_bank_would_not_echo_never_leave(message_id: str, names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"id that a bank|payments, and each"):
        credit_transfers(message_id, OWN, [transfer(name) for name in names], created_at=AT, execute_on=ON)


def test_a_file_pays_in_one_currency() -> None:
    parts = [transfer("A1"), Transfer("A2", 1, "USD", "004", "0123456789")]
    with pytest.raises(ValueError, match="one currency"):
        credit_transfers("PF-1", OWN, parts, created_at=AT, execute_on=ON)
