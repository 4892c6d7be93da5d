"""A provider's moment that cannot be stored, or is in no zone, keeps no money from being told."""

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import orjson
import pytest
from pydantic import SecretStr

from adapters.promptpay import signing
from adapters.promptpay.adapter import PromptPayRail
from adapters.promptpay.client import IppsClient
from adapters.promptpay.settings import PromptPaySettings
from adapters.runtime.callbacks import CallbackRefused
from adapters.runtime.moments import storable
from adapters.runtime.port import Callback, Verified
from adapters.sbp import signing as sbp_signing
from adapters.sbp.adapter import SbpRail
from adapters.sbp.client import QpClient
from adapters.sbp.settings import SbpSettings
from schemas.rails import Timing

TIMING = Timing(send_by_s=5, call_total_s=10, claim_idle_s=60)
BANGKOK = ZoneInfo("Asia/Bangkok")
ODD = ["0001-01-01T00:00:00+07:00", "9999-12-31T23:00:00-05:00", "0001-01-01T00:00:00", "2026-11-20T10:00:00"]


@pytest.mark.parametrize("told", [*ODD, "9999-12-31T23:59:59.999999", "2026-11-20T10:00:00+07:00"])
def test_any_moment_becomes_one_that_utc_has_and_is_the_same_when_it_is_told_again(told: str) -> None:
    moment = storable(datetime.fromisoformat(told), BANGKOK)
    assert moment.astimezone(UTC).year in range(1, 10_000)
    assert storable(datetime.fromisoformat(told), BANGKOK) == moment
    if "2026" in told:
        assert moment == datetime(2026, 11, 20, 3, tzinfo=UTC)


@pytest.mark.parametrize("told", ODD)
async def test_a_webhook_of_promptpay_with_an_odd_moment_is_told(told: str) -> None:
    said = {"event_id": "E1", "type": "qr.paid", "psp_txid": "T1", "client_ref": "R1", "amount": "1.00"}
    body = orjson.dumps(said | {"status": "PAID", "occurred_at": told})
    headers = {"ipps-timestamp": "1", "ipps-signature": signing.sign("s", "1", body)}
    async with httpx.AsyncClient(base_url="http://ipps") as http:
        settings = PromptPaySettings(base_url="http://ipps", secret=SecretStr("s"))
        verified = await PromptPayRail(IppsClient(http, "key", "s"), settings, TIMING).verify(
            Callback(body, headers, "/")
        )
    assert [fact.amount_minor for fact in verified.facts] == [100]


def payment(name: str, **changed: Any) -> dict[str, Any]:
    said = {"transactionId": name, "amount": 1.01, "currency": "RUB", "paymentStatus": "SUCCESS"}
    return said | {"transactionDate": "2026-11-21T10:00:00+03:00"} | changed


async def called_back(*payments: dict[str, Any]) -> Verified:
    """Return what a callback about the order of these payments tells."""
    order = orjson.dumps({"order": "R1", "qrStatus": "PAID", "payments": payments})
    told = {"order": "R1", "amount": 1.01, "sbpMerchantId": "M", "paymentStatus": "SUCCESS", "transactionDate": "D"}
    signature = hmac.new(b"s", sbp_signing.payment_text(told).encode(), hashlib.sha256).hexdigest()
    callback = Callback(orjson.dumps(told), {"x-api-signature-sha256": signature}, "/")
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=order))
    async with httpx.AsyncClient(transport=transport, base_url="http://qp") as http:
        settings = SbpSettings(base_url="http://qp", merchant_id="M", account="4" * 20, secret=SecretStr("s"))
        return await SbpRail(QpClient(http, "s"), settings, TIMING).verify(callback)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+03:00", "9999-12-31T23:00:00-05:00"])
async def test_a_payment_of_sbp_with_an_odd_moment_is_told(moment: str) -> None:
    verified = await called_back(payment("T1", transactionDate=moment))
    assert [fact.transaction_id for fact in verified.facts] == ["T1"]


@pytest.mark.parametrize("odd", [payment("T9", amount=amount) for amount in (-1, 0, 1.001, 10**15)])
async def test_a_payment_of_sbp_without_sense_hides_none_beside_it(odd: dict[str, Any]) -> None:
    verified = await called_back(odd, payment("T2"))
    assert [fact.transaction_id for fact in verified.facts] == ["T2"]
    with pytest.raises(CallbackRefused) as refused:
        await called_back(odd)
    assert refused.value.status == 503
