"""A payee that comes as the text of a payment code: read once, held to what it asks for, shown by its parts."""

from typing import Any

import orjson
import pytest

from schemas.codes.emvco import encode_bill_payment, encode_credit_transfer
from schemas.codes.proxies import ProxyType
from tests.integration.api.conftest import REGISTRATION, World, payout

BILL = encode_bill_payment("099400015804189", "INVOICE2026", "CUST7", amount_minor=2_000)
MOBILE = encode_credit_transfer(ProxyType.MOBILE, "0812345678", amount_minor=2_000)
OPEN_MOBILE = encode_credit_transfer(ProxyType.MOBILE, "0812345678")
TORN_EWALLET = "00020101021129290016A00000067701011103051400053037645802TH63047E8F"
SLIP = "004000060000010103002021900021231231212000115102TH91049C30"
BARCODE = "|099999999999990\r111222333444\r\r0"
LINK = "https://qr.nspk.ru/AD100004BAL7227F9BNP6KNE007J9B3K"


async def with_bills(world: World) -> None:
    """Let the rail look payees up, pay bills too, and take a bill for nothing else."""
    terms = REGISTRATION["operations"]["PAYOUT"] | {"lookup": True}
    mobile = REGISTRATION["payee_types"]["mobile"]
    bill = {
        "pattern": "[0-9]{15}(:[A-Z0-9]{1,20}){1,2}",
        "example": "0:1",
        "remedy": "x",
        "operations": ["BILL_PAYMENT"],
    }
    body = REGISTRATION | {
        "operations": {"PAYOUT": terms, "BILL_PAYMENT": terms},
        "payee_types": {"mobile": mobile | {"operations": ["PAYOUT"]}, "bill": bill},
    }
    await world.admin.execute(
        "INSERT INTO fleet.rail_registrations (rail, version, body, body_hash)"
        " SELECT 'noop', count(*) + 1, $1, 'y' FROM fleet.rail_registrations",
        orjson.dumps(body).decode(),
    )
    await world.admin.execute(
        "INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account)"
        " VALUES ($1, 'BILL_PAYMENT', 'THB', 'noop', 'NOOP', 'main')",
        world.tenant_id,
    )
    world.forget_routes()


async def test_the_lookup_of_a_scanned_bill_returns_its_parts_and_no_reference_in_full(world: World) -> None:
    await with_bills(world)
    wallet = await world.funded_wallet(10_000)
    intent = await world.looked_up(wallet, operation="BILL_PAYMENT", payee={"qr": BILL}, amount_minor=2_000)
    answer = await world.api.get(f"/v1/intents/{intent}")
    shown = answer.json()
    assert (shown["state"], shown["payee_type"]) == ("AWAITING_CONFIRMATION", "bill")
    assert shown["lookup"]["payee_name_masked"] == "So*** K."
    assert shown["lookup"]["qr"] == {
        "kind": "bill_payment",
        "amount_minor": 2_000,
        "currency": "THB",
        "one_time": True,
        "merchant_name": None,
        "biller_id": "099400015804189",
        "ref1_masked": "*******2026",
        "ref2_masked": "*****",
    }
    assert "INVOICE" not in answer.text
    assert "CUST7" not in str(await world.admin.fetchrow("SELECT i::text FROM fleet.intents i WHERE id = $1", intent))
    again = await world.api.post(
        "/v1/intents",
        payout(wallet, 2_000, operation="BILL_PAYMENT", payee={"qr": BILL}),
        key="looked-up",
    )
    assert (again.json()["id"], again.headers["Idempotent-Replayed"]) == (intent, "true")


async def test_a_code_and_the_payee_in_it_are_one_payee_and_an_open_code_takes_any_amount(world: World) -> None:
    await with_bills(world)
    wallet = await world.funded_wallet(10_000)
    by_code = await world.api.post("/v1/intents", payout(wallet, 1_234, payee={"qr": OPEN_MOBILE}), key="by-code")
    by_name = await world.api.post("/v1/intents", payout(wallet, 1_234), key="by-name")
    assert (by_code.status_code, by_name.status_code) == (201, 201), by_code.text
    shown = [(each.json()["payee_type"], each.json()["payee_masked"]) for each in (by_code, by_name)]
    assert shown[0] == shown[1] == ("mobile", "******5678")
    subjects = await world.admin.fetch("SELECT DISTINCT subject_id FROM fleet.intents WHERE subject_id IS NOT NULL")
    assert len(subjects) == 1


@pytest.mark.parametrize(
    ("changed", "code", "field"),
    [
        ({"amount_minor": 1_999}, "qr_amount_differs", "amount_minor"),
        ({"amount_minor": 2_001}, "qr_amount_differs", "amount_minor"),
        ({"payee": {"qr": SLIP}}, "qr_not_payable", "payee.qr"),
        ({"payee": {"qr": BARCODE}}, "qr_not_payable", "payee.qr"),
        ({"payee": {"qr": LINK}}, "qr_not_payable", "payee.qr"),
        ({"payee": {"qr": MOBILE.replace("20.00", "20.01")}}, "qr_malformed", "payee.qr"),
        ({"payee": {"qr": MOBILE[:40]}}, "qr_malformed", "payee.qr"),
        ({"payee": {"qr": "hello"}}, "qr_malformed", "payee.qr"),
        ({"payee": {"qr": TORN_EWALLET}}, "qr_not_payable", "payee.qr"),
        ({"payee": {"qr": ""}}, "invalid_request", "payee.qr"),
        ({"payee": {"qr": "0" * 513}}, "invalid_request", "payee.qr"),
        ({"payee": {"qr": MOBILE, "type": "mobile"}}, "invalid_request", "payee.type"),
        ({"payee": {"type": "mobile"}}, "invalid_request", "payee.value"),
        ({"payee": {"qr": BILL}}, "payee_type_unknown", "payee.type"),
        ({"operation": "BILL_PAYMENT"}, "payee_type_unknown", "payee.type"),
    ],
)
async def test_a_code_that_asks_for_something_else_is_refused_and_never_quoted(
    desk: tuple[World, str], changed: dict[str, Any], code: str, field: str
) -> None:
    world, wallet = desk
    body = payout(wallet, 2_000, payee={"qr": MOBILE}) | changed
    answer = await world.api.post("/v1/intents", body, key=f"refused-{code}-{changed}"[:100].replace(" ", ""))
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, code, field)
    assert "0812345678" not in answer.text


async def test_a_code_of_another_currency_is_refused(desk: tuple[World, str]) -> None:
    world, _ = desk
    rouble = (await world.api.post("/v1/wallets", {"owner": "boris", "currency": "RUB"})).json()["id"]
    answer = await world.api.post(
        "/v1/intents", payout(rouble, 2_000, currency="RUB", payee={"qr": MOBILE}), key="rouble"
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "qr_currency_differs")


@pytest.fixture
async def desk(world: World) -> tuple[World, str]:
    """A rail that pays mobiles and bills, and a wallet with money."""
    await with_bills(world)
    return world, await world.funded_wallet(10_000)
