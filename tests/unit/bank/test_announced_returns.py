"""What a bank announces by pacs.004: it says why a payment comes back, and never that its money is here."""

import pytest

from adapters.bank.mailbox import Mailbox
from adapters.bank.settings import BankSettings
from adapters.bank.watcher import Watcher
from adapters.runtime.core_client import CoreUnavailableError
from schemas.results import Verdict
from tests.support.bank import Told
from tests.unit.bank.test_unnamed_movements import ACCOUNT, Sent, entry, holding, notice, told_of

OUT = entry("40.00", "OURS", way="DBIT", name="B-1")
BACK = entry("40.00", "OURS", more="<RtrInf/>", name="B-2")
"""The booking of a return that does not say why."""


def announcement(
    reference: str = "OURS", amount: str = "40.00", *, name: str = "R-1", reason: str = "AC04", account: str = ACCOUNT
) -> str:
    named = f"<RtrId>{name}</RtrId>" if name else ""
    whose = f"<OrgnlTxRef><DbtrAcct><Id><IBAN>{account}</IBAN></Id></DbtrAcct></OrgnlTxRef>" if account else ""
    why = f"<RtrRsnInf><Rsn><Cd>{reason}</Cd></Rsn></RtrRsnInf>"
    money = f'<RtrdIntrBkSttlmAmt Ccy="THB">{amount}</RtrdIntrBkSttlmAmt>'
    return f"<TxInf>{named}<OrgnlEndToEndId>{reference}</OrgnlEndToEndId>{money}{why}{whose}</TxInf>"


def pacs004(number: int, *announced: str) -> bytes:
    body = f"<PmtRtr><GrpHdr><MsgId>P-{number}</MsgId></GrpHdr>{''.join(announced)}</PmtRtr>"
    return f'<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pacs.004.001.09">{body}</Document>'.encode()


async def test_a_booked_return_has_the_reason_and_the_evidence_of_its_announcement() -> None:
    told = await told_of(notice(1, OUT), pacs004(1, announcement()), notice(2, BACK), files=await holding("OURS"))
    [result], [announced] = told.results, told.announced
    assert (result.verdict, result.amount_minor, result.reason) == (Verdict.RETURNED, 4_000, "account_closed")
    assert result.evidence_id is not None
    shown = told.evidence[result.evidence_id]
    assert shown.job_id == result.job_id
    assert "B-2" in shown.raw
    assert "RtrdIntrBkSttlmAmt" in shown.raw
    assert (announced.reference, announced.amount_minor, announced.currency) == ("OURS", 4_000, "THB")
    assert (announced.reason, announced.provider_reason) == ("account_closed", "AC04")
    assert "R-1" in announced.raw


async def test_an_announcement_alone_is_no_return_and_one_after_the_booking_is_told_all_the_same() -> None:
    bank, told = Sent(notice(1, OUT), pacs004(1, announcement())), Told()
    mailbox = Mailbox(bank, ACCOUNT)
    settings = BankSettings(base_url="http://bank", account=ACCOUNT)
    watcher = Watcher("bank", mailbox, await holding("OURS"), settings)
    await mailbox.read()
    await watcher.tell(told)
    assert (told.results, told.payments, len(told.announced)) == ([], [], 1)
    late = await told_of(notice(1, OUT), notice(2, BACK), pacs004(1, announcement()), files=await holding("OURS"))
    assert [each.verdict for each in late.results] == [Verdict.RETURNED]
    assert late.announced == told.announced


async def test_the_reason_of_the_booking_itself_goes_before_the_announced_one() -> None:
    why = entry("40.00", "OURS", more="<RtrInf><Rsn><Cd>AC06</Cd></Rsn></RtrInf>", name="B-2")
    told = await told_of(notice(1, OUT), pacs004(1, announcement()), notice(2, why), files=await holding("OURS"))
    assert [each.reason for each in told.results] == ["account_blocked"]


async def test_an_announcement_that_comes_again_has_the_name_that_it_had() -> None:
    for name in ("R-1", ""):
        told = await told_of(pacs004(1, announcement(name=name)), pacs004(2, announcement(name=name)))
        assert len({each.name for each in told.announced}) == 1
        other = await told_of(pacs004(1, announcement("OTHER", name="")))
        assert other.announced[0].name not in {each.name for each in told.announced}


async def test_another_accounts_return_is_not_told_and_one_that_names_nothing_is() -> None:
    told = await told_of(
        pacs004(1, announcement(account="NL14MOCK0000000002"), announcement("NOTPROVIDED", name="R-2", account=""))
    )
    assert [(each.name, each.reference) for each in told.announced] == [("R-2", "")]


@pytest.mark.parametrize("amount", ["0.00", "1.234", "x", "99999999999999999.00"])
async def test_an_announcement_of_no_amount_takes_nothing_from_the_one_beside_it(amount: str) -> None:
    told = await told_of(pacs004(1, announcement(amount=amount), announcement(name="R-2")))
    assert [each.name for each in told.announced] == ["R-2"]


async def test_a_core_that_takes_no_announcement_is_told_of_the_money_and_of_the_announcement_later() -> None:
    paid_in = entry("7.00", "NOTOURS", name="B-3")
    mailbox, told = Mailbox(Sent(pacs004(1, announcement()), notice(1, OUT, BACK, paid_in)), ACCOUNT), Told()
    settings = BankSettings(base_url="http://bank", account=ACCOUNT)
    watcher = Watcher("bank", mailbox, await holding("OURS"), settings)
    await mailbox.read()
    told.takes_announcements = False
    with pytest.raises(CoreUnavailableError):
        await watcher.tell(told)
    assert (len(told.results), len(told.payments)) == (1, 1)
    told.takes_announcements = True
    await watcher.tell(told)
    await watcher.tell(told)
    assert (len(told.results), len(told.payments), len(told.announced)) == (1, 1, 1)
