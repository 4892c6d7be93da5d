"""The mailbox learns from each file once, whatever number it comes under."""

from adapters.bank.mailbox import Mailbox
from adapters.bank.reports import Fact

ACCOUNT = "TH69MOCK1234567890"
STATEMENT = f"""<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt><Stmt><Id>S1</Id>
<Acct><Id><IBAN>{ACCOUNT}</IBAN></Id></Acct>
<Ntry><Amt Ccy="THB">10.00</Amt><CdtDbtInd>CRDT</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts><AcctSvcrRef>B-1</AcctSvcrRef>
</Ntry></Stmt></BkToCstmrStmt></Document>"""


class Sent:
    """A bank that has sent these."""

    def __init__(self, *messages: str) -> None:
        self._messages = messages

    async def message(self, number: int) -> bytes | None:
        return self._messages[number - 1].encode() if number <= len(self._messages) else None


async def test_a_file_that_comes_again_under_another_number_is_the_same_file() -> None:
    facts: list[Fact] = []
    mailbox = Mailbox(Sent(STATEMENT, STATEMENT, STATEMENT.replace("B-1", "B-2")), ACCOUNT)
    mailbox.listeners.append(facts.append)
    await mailbox.read()
    once = len(facts) // 2
    assert len(facts) == 2 * once > 0
    assert mailbox.credit("B-1") is not None
    assert mailbox.credit("B-2") is not None
    assert not mailbox.is_shared("B-1")
