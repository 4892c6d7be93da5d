"""What the provider answers about another payment, or without sense, is never a verdict about ours."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr

from adapters.promptpay.adapter import PromptPayRail
from adapters.promptpay.client import IppsClient
from adapters.promptpay.settings import PromptPaySettings
from adapters.runtime.errors import Indeterminate, ProtocolViolation
from adapters.runtime.port import Order
from schemas.permits import LookupBinding, Payee
from schemas.rails import Timing

ORDER = Order(
    job_id=UUID(int=1), reference="R" * 24, amount_minor=100, currency="THB", provider_account="ipps-1",
    payee=Payee(type="mobile", value="0812345678"), message="",
    lookup=LookupBinding(lookup_id="L1", expires_at=datetime.now(UTC) + timedelta(minutes=5), fee_minor=0),
)  # fmt: skip


@pytest.mark.parametrize("call", ["pay", "inquire", "cancel"])
@pytest.mark.parametrize("changed", [{"client_ref": "S" * 24}, {"amount": "1,00"}, {"amount": "-1.00"}])
async def test_an_answer_about_another_payment_or_no_amount_is_a_violation(call: str, changed: dict[str, str]) -> None:
    said = {"client_ref": ORDER.reference, "status": "SUCCEEDED", "psp_txid": "T1", "amount": "1.00"}
    answers = [said, said | changed]

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=answers.pop(0))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://ipps") as http:
        settings = PromptPaySettings(base_url="http://ipps", secret=SecretStr("s"))
        timing = Timing(send_by_s=5, call_total_s=10, claim_idle_s=60)
        rail = PromptPayRail(IppsClient(http, "key", "s"), settings, timing)
        assert (await getattr(rail, call)(ORDER)).amount_minor == 100
        with pytest.raises(ProtocolViolation):
            await getattr(rail, call)(ORDER)


@pytest.mark.parametrize("call", ["pay", "collect", "refund"])
@pytest.mark.parametrize("then", [(404, "payee_not_found"), (410, "lookup_expired"), (401, "no"), (429, "slow"), None])
async def test_a_question_after_a_taken_reference_ends_no_payment_whatever_it_is_answered(
    then: tuple[int, str] | None, call: str
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(409, json={"code": "duplicate_reference"})
        if then is None:
            raise httpx.ConnectError("away")
        return httpx.Response(then[0], json={"code": then[1]})

    async with answering(answer) as rail:
        with pytest.raises(Indeterminate):
            await getattr(rail, call)(ORDER._replace(expires_at=datetime.now(UTC)))


@pytest.mark.parametrize("status", ["ACTIVE", "PAID", "EXPIRED", "CANCELED"])
async def test_every_payment_that_an_answer_lists_counts_whatever_the_code_says(status: str) -> None:
    listed = [{"psp_txid": "T1", "amount": "20.00"}, {"psp_txid": "T2", "amount": "19.00"}]
    said = {"client_ref": ORDER.reference, "status": status, "payload": "000201", "payments": listed}
    async with answering(lambda _: httpx.Response(200, json=said)) as rail:
        for ask in (rail.check_collection, rail.cancel_collection):
            outcome = await ask(ORDER)
            assert (outcome.verdict, outcome.provider_tx_id, outcome.amount_minor) == ("PAID", "T1", 2_000)
            assert [(each.transaction_id, each.amount_minor) for each in outcome.further] == [("T2", 1_900)]


@asynccontextmanager
async def answering(answer: Callable[[httpx.Request], httpx.Response]) -> AsyncIterator[PromptPayRail]:
    """Open a rail whose provider answers so."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://ipps") as http:
        settings = PromptPaySettings(base_url="http://ipps", secret=SecretStr("s"))
        timing = Timing(send_by_s=5, call_total_s=10, claim_idle_s=60)
        yield PromptPayRail(IppsClient(http, "key", "s"), settings, timing)
