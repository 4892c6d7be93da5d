"""One odd entry, fact or message of a bank hides nothing beside it or behind it, and nothing ends the watching."""

import asyncio
import contextlib
import logging
from typing import Any
from uuid import UUID

import pytest

from adapters.bank import metrics
from adapters.bank.mailbox import Mailbox
from adapters.bank.reports import Entry, Fact, RefusedEntry, read_report
from adapters.bank.settings import BankSettings
from adapters.bank.watcher import Watcher
from adapters.runtime.core_client import CoreRefusedError, CoreUnavailableError
from adapters.testkit.files import FilesInMemory
from schemas.announced_returns import AnnouncedReturns
from schemas.collections import ProviderPayment, ProviderPaymentAnswers, ProviderPaymentBatch
from schemas.rails import EvidenceItem
from schemas.results import Result

ACCOUNT = "TH69MOCK1234567890"
TWO_PARTS = (
    "<NtryDtls>" + "".join(f'<TxDtls><Amt Ccy="THB">10.0{place}</Amt></TxDtls>' for place in (0, 1)) + "</NtryDtls>"
)


def entry(name: str, *, day: str = "2026-11-20", details: str = "", amount: str = "20.00") -> str:
    """A booked payment in."""
    return (
        f'<Ntry><Amt Ccy="THB">{amount}</Amt><CdtDbtInd>CRDT</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts>'
        f"<AcctSvcrRef>{name}</AcctSvcrRef><ValDt><Dt>{day}</Dt></ValDt>{details}</Ntry>"
    )


def statement(*entries: str, named: str = "S1", number: str = "") -> str:
    """A statement of these entries, and of a good one behind them."""
    return (
        '<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt>'
        f"<Stmt><Id>{named}</Id>{number}<Acct><Id><IBAN>{ACCOUNT}</IBAN></Id></Acct>"
        f"{''.join(entries)}{entry(f'GOOD-{named}')}</Stmt></BkToCstmrStmt></Document>"
    )


class Sent:
    """A bank that has sent these."""

    def __init__(self, *messages: str) -> None:
        self._messages = messages

    async def message(self, number: int) -> bytes | None:
        return self._messages[number - 1].encode() if number <= len(self._messages) else None


class Core:
    """Takes facts, but for those that it refuses, with this status, as a whole page."""

    def __init__(self, *refused: str, status: int = 422) -> None:
        self.refused, self.status, self.told, self.asked = set(refused), status, list[ProviderPayment](), 0

    async def post_payments(self, batch: ProviderPaymentBatch) -> ProviderPaymentAnswers:
        self.asked += 1
        if self.refused & {fact.transaction_id for fact in batch.facts}:
            raise CoreRefusedError(self.status, "no")
        self.told += batch.facts
        return ProviderPaymentAnswers(fates=[])

    async def tell(self, result: Result) -> None:
        raise AssertionError(f"nobody asked about {result}")

    async def keep_evidence(self, item: EvidenceItem) -> UUID | None:
        raise AssertionError(f"nothing shows {item}")

    async def announce(self, told: AnnouncedReturns) -> None:
        raise AssertionError(f"nobody announced {told}")

    @property
    def names(self) -> list[str]:
        return [fact.transaction_id for fact in self.told]


class Files(FilesInMemory):
    """A core that refuses to say where one reference is."""

    def __init__(self, fault: Exception) -> None:
        super().__init__()
        self.fault = fault

    async def holding(self, references: Any) -> Any:
        if "OURS-1" in references:
            raise self.fault
        return await super().holding(references)


def watcher(*messages: str, files: FilesInMemory | None = None) -> tuple[Watcher, Mailbox]:
    """Return what watches a bank that has sent these."""
    settings = BankSettings(base_url="http://bank", account=ACCOUNT, watch_every_s=0.01)
    mailbox = Mailbox(Sent(*messages), ACCOUNT)
    return Watcher("bank", mailbox, files or FilesInMemory(), settings), mailbox


ODD = {
    "a number of 5,000 digits": statement(number=f"<ElctrncSeqNb>{'9' * 5_000}</ElctrncSeqNb>"),
    "two payments under a name of 64": statement(entry("B" * 64, details=TWO_PARTS)),
    "two payments under a name of 50": statement(entry("B" * 50, details=TWO_PARTS)),
    "year 1": statement(entry("Y1", day="0001-01-01")),
    "year 9999": statement(entry("Y9", day="9999-12-31")),
    "no day": statement(entry("D", day="2026-02-31")),
    "nothing": statement(entry("Z", amount="0.00")),
    "garbage in front": "\x00",
}


@pytest.mark.parametrize("odd", ODD)
async def test_whatever_is_odd_about_one_entry_those_behind_it_are_told_and_the_watching_goes_on(odd: str) -> None:
    watching, mailbox = watcher(ODD[odd], statement(named="S2"))
    core = Core()
    task = asyncio.create_task(watching.run(core))
    async with asyncio.timeout(5):
        while "GOOD-S2" not in core.names:
            assert not task.done()
            await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert odd == "garbage in front" or "GOOD-S1" in core.names
    assert mailbox.credit("GOOD-S2") is not None


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31", "1970-01-01"])
async def test_money_in_under_a_date_that_is_a_placeholder_is_told_under_the_day_that_it_is_read(day: str) -> None:
    watching, mailbox = watcher(statement(entry("P", day=day)))
    core = Core()
    await mailbox.read()
    await watching.tell(core)
    first, good = core.told
    assert first.transaction_id == "P"
    assert first.occurred_at > good.occurred_at


def test_parts_of_two_long_names_that_begin_alike_stay_apart_and_are_short_enough_to_tell() -> None:
    long = statement(entry("B" * 62 + "1", details=TWO_PARTS), entry("B" * 62 + "2", details=TWO_PARTS))
    once, again = ([f.bank_reference for f in read_report(long.encode()) if isinstance(f, Entry)] for _ in range(2))
    assert once == again
    assert len(set(once)) == 5
    assert max(map(len, once)) <= 64


async def test_a_fact_that_cannot_be_taken_is_counted_as_refused_and_its_neighbours_are_taken() -> None:
    taken: list[Fact] = []

    def note(fact: Fact) -> None:
        if isinstance(fact, Entry) and fact.bank_reference == "ODD":
            raise OverflowError("of what nobody foresaw")
        taken.append(fact)

    before = metrics.ENTRIES_REFUSED._value.get()
    mailbox = Mailbox(Sent(statement(entry("ODD"))), ACCOUNT)
    mailbox.listeners.append(note)
    await mailbox.read()
    assert [fact.bank_reference for fact in taken if isinstance(fact, Entry)] == ["GOOD-S1"]
    assert metrics.ENTRIES_REFUSED._value.get() == before + 1


async def test_an_entry_that_breaks_its_reader_is_refused_alone_and_no_log_quotes_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def day(found: Any) -> str:
        if "ODD" in "".join(found.itertext()):
            raise MemoryError("no room for what Somchai paid")
        return "2026-11-20"

    monkeypatch.setattr("adapters.bank.reports._day", day)
    mailbox, facts = Mailbox(Sent(statement(entry("ODD"))), ACCOUNT), list[Fact]()
    mailbox.listeners.append(facts.append)
    await mailbox.read()
    assert [fact.why for fact in facts if isinstance(fact, RefusedEntry)] == ["MemoryError"]
    assert [fact.bank_reference for fact in facts if isinstance(fact, Entry)] == ["GOOD-S1"]
    assert "Somchai" not in caplog.text


async def test_a_message_that_broke_on_the_way_is_read_again_and_not_taken_for_one_that_was_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watching, mailbox = watcher(statement())
    with monkeypatch.context() as broken:
        broken.setattr(mailbox, "_give", _breaks)
        with pytest.raises(RuntimeError):
            await mailbox.read()
    await mailbox.read()
    core = Core()
    await watching.tell(core)
    assert core.names == ["GOOD-S1"]


def _breaks(*_: object) -> None:
    raise RuntimeError("broken")


async def test_a_fact_that_the_core_refuses_holds_up_no_other_and_is_told_again_behind_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    many = [entry(f"E-{number}") for number in range(450)]
    watching, mailbox = watcher(statement(*many), statement(named="S2"))
    core = Core("E-3", "E-250")
    await mailbox.read()
    with caplog.at_level(logging.ERROR):
        await watching.tell(core)
    assert sorted(core.names) == sorted(
        {f"E-{number}" for number in range(450)} - core.refused | {"GOOD-S1", "GOOD-S2"}
    )
    assert core.asked < 60
    assert "E-3" in caplog.text
    assert metrics.FACTS_REFUSED._value.get() == 2
    core.refused.clear()
    await watching.tell(core)
    assert "E-3" not in core.names  # not at once: the core was just asked
    monkeypatch.setattr(watching, "_again_at_s", 0.0)
    await watching.tell(core)
    assert core.names[-2:] == ["E-3", "E-250"]
    assert metrics.FACTS_REFUSED._value.get() == 0


@pytest.mark.parametrize("fault", [CoreRefusedError(401, "key_revoked"), CoreUnavailableError("away")])
async def test_where_the_teller_is_refused_and_no_fact_all_waits_in_its_order(fault: Exception) -> None:
    class Away(Core):
        async def post_payments(self, batch: ProviderPaymentBatch) -> ProviderPaymentAnswers:
            raise fault

    watching, mailbox = watcher(statement(entry("A"), entry("B")))
    await mailbox.read()
    with pytest.raises(type(fault)):
        await watching.tell(Away())
    core = Core()
    await watching.tell(core)
    assert core.names == ["A", "B", "GOOD-S1"]


@pytest.mark.parametrize("fault", [CoreRefusedError(422, "no"), ValueError("of what nobody foresaw")])
async def test_money_that_came_back_and_cannot_be_told_holds_up_no_payment_in(fault: Exception) -> None:
    back = "<NtryDtls><TxDtls><Refs><EndToEndId>{}</EndToEndId></Refs><RtrInf/></TxDtls></NtryDtls>"
    returned = entry("R1", details=back.format("OURS-1")), entry("R2", details=back.format("NOBODYS-2"))
    files = Files(fault)
    watching, mailbox = watcher(statement(*returned), files=files)
    core = Core()
    await mailbox.read()
    before = metrics.ENTRIES_REFUSED._value.get()
    await watching.tell(core)
    assert sorted(core.names) == ["GOOD-S1", "R2"]
    refused_for_good = 0 if isinstance(fault, CoreRefusedError) else 1
    assert metrics.ENTRIES_REFUSED._value.get() == before + refused_for_good
    if isinstance(fault, CoreRefusedError):
        # The core's word may change: it is told in a later round.
        files.fault = ValueError("gone")
        await watching.tell(core)
    assert metrics.ENTRIES_REFUSED._value.get() == before + 1
