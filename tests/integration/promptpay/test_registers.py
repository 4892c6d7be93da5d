"""The register's whole way: the provider's book, its register, the adapter, the core's internal API, the comparison."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from uuid import uuid4
from zoneinfo import ZoneInfo

import orjson
import pytest

from adapters.runtime.core_client import CoreClient, CoreRefusedError
from adapters.runtime.registers import fetch_register
from core.api.serve import internal_app
from core.domain.context import Context
from core.domain.registers import Account
from core.services.recon.registers import compare_day
from schemas.registers import (
    RegisterClosed,
    RegisterFile,
    RegisterOpened,
    RegisterRun,
    RegisterState,
    RegistersWanted,
    RegisterWanted,
)
from tests.integration.permits.conftest import NeverThrottled
from tests.integration.promptpay.conftest import RAIL, Street
from tests.support.live_api import serving

ACCOUNT = Account(RAIL, "ipps-1", "sandbox")
LINE = {
    "line": 1, "provider_ref": "TX", "our_ref": "", "operation": "PAYMENT", "direction": "IN", "amount_minor": 1,
    "currency": "THB", "status": "SETTLED", "at": datetime.now(UTC).isoformat(),
}  # fmt: skip


@pytest.fixture
async def core(street: Street) -> AsyncIterator[CoreClient]:
    """The adapter's way to the internal API, over a real listener, under the rail's key."""
    opened = street.world.core
    tenant = street.world.caller.tenant_id
    made = await opened.keys.create(Context(None, "test"), tenant_id=tenant, name="adapter", rail=RAIL)
    async with serving(opened, internal_app(opened, NeverThrottled())) as url:
        client = CoreClient(url, key_id=made.id, secret=made.secret)
        yield client
        await client.close()


async def compared(street: Street, core: CoreClient) -> RegisterRun:
    """Fetch today's register and compare the day."""
    today = datetime.now(ZoneInfo("Asia/Bangkok")).date()
    async with street.world.uow() as uow:
        await street.world.core.worker_ports.registers.want(uow, ACCOUNT, [today], again=True)
    asked = RegistersWanted.model_validate_json(await core.ask("/internal/v1/registers/wanted", b"{}"))
    (wanted,) = asked.days
    view = await fetch_register(core, street.rail, wanted)
    assert (view.state, view.business_day, view.source) == (RegisterState.COMPLETE, today, "FETCHED")
    assert not RegistersWanted.model_validate_json(await core.ask("/internal/v1/registers/wanted", b"{}")).days
    return await compare_day(street.world.core.worker_ports, Context(None, "test"), ACCOUNT, today)


async def plant(street: Street, change: str, reference: str) -> None:
    body = {"change": change, "reference": reference, "by_minor": 25}
    assert (await street.control.post("/_control/registers", json=body)).is_success


def found(run: RegisterRun, since: int) -> dict[str, int]:
    """Return the classes that are no agreement; the provider's book is older than this test's core."""
    classes = {str(each.match): each.count for each in run.tallies if each.match != "matched"}
    classes["missing_here"] = classes.get("missing_here", 0) - since
    return {name: count for name, count in classes.items() if count}


async def test_money_in_is_compared_with_the_providers_register_and_each_change_of_it_is_found(
    street: Street, core: CoreClient
) -> None:
    before = (await compared(street, core)).tallies
    strangers = sum(each.count for each in before if each.side == "THEIRS")
    intents = [await street.top_up() for _ in range(4)]
    paid = [await street.pay(intent) for intent in intents[:3]]
    await street.poll()
    assert [await street.state(intent) for intent in intents[:3]] == ["SETTLED"] * 3
    await street.pay(intents[0])
    # A second payment of one code that nobody told us of: the register is who finds it.
    assert found(await compared(street, core), strangers) == {"missing_here": 1}
    strangers += 1
    run = await compared(street, core)
    assert found(run, strangers) == {}
    matched = [(x.side, x.count, x.amount_minor) for x in run.tallies if x.match == "matched"]
    assert matched == [("OURS", 3, 6_000), ("THEIRS", 3, 6_000)]
    for change, expected in {
        "amount": {"amount": 1}, "fee": {"fee": 1}, "status": {"status": 1}, "duplicate": {"duplicate": 1},
        "extra": {"missing_here": 1},
    }.items():  # fmt: skip
        await street.control.delete("/_control/registers")
        await plant(street, change, paid[1])
        assert found(await compared(street, core), strangers) == expected, change
    await street.control.delete("/_control/registers")
    await plant(street, "missing", paid[0])
    (gone,) = found(await compared(street, core), strangers)
    assert gone in ("missing_there", "carried"), "carried, in the last two hours of a Bangkok day"
    await street.control.delete("/_control/registers")
    assert found(await compared(street, core), strangers) == {}


async def test_a_day_that_has_not_come_has_no_register(street: Street, core: CoreClient) -> None:
    wanted = RegisterWanted(provider_account="ipps-1", environment="sandbox", business_day=date(2999, 1, 1))
    view = await fetch_register(core, street.rail, wanted)
    assert (view.state, view.lines) == (RegisterState.ABSENT, 0)


async def test_a_key_for_some_tenants_is_asked_for_no_register_of_an_account_that_is_anothers_too_and_brings_none(
    street: Street, core: CoreClient
) -> None:
    world, today = street.world, datetime.now(UTC).date()
    ours, theirs = world.caller.tenant_id, uuid4()
    for tenant in (ours, theirs):
        await world.admin.execute(
            "INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account, environment)"
            " VALUES ($1, 'PAYOUT', 'THB', $2, 'p', 'ipps-1', 'sandbox') ON CONFLICT DO NOTHING", tenant, RAIL
        )  # fmt: skip
    made = {
        name: await world.core.keys.create(Context(None, "test"), tenant_id=ours, name=name, rail=RAIL, serves=serves)
        for name, serves in (("ours", [ours]), ("both", [ours, theirs]))
    }
    async with world.uow() as uow:
        await world.core.worker_ports.registers.want(uow, ACCOUNT, [today], again=True)
    opening = RegisterOpened(provider_account="ipps-1", environment="sandbox", business_day=today)
    path, whole = "/internal/v1/registers", RegisterClosed(lines=0, file_hash="0" * 64)
    async with serving(world.core, internal_app(world.core, NeverThrottled())) as url:
        limited, both = (CoreClient(url, key_id=key.id, secret=key.secret) for key in made.values())
        assert not RegistersWanted.model_validate_json(await limited.ask(f"{path}/wanted", b"{}")).days
        with pytest.raises(CoreRefusedError, match="operation_not_permitted"):
            await limited.ask(path, opening.model_dump_json().encode())
        (wanted,) = RegistersWanted.model_validate_json(await both.ask(f"{path}/wanted", b"{}")).days
        assert wanted.business_day == today
        opened = RegisterFile.model_validate_json(await both.ask(path, opening.model_dump_json().encode()))
        for step, body in (("lines", orjson.dumps({"lines": [LINE]})), ("complete", whole.model_dump_json().encode())):
            with pytest.raises(CoreRefusedError) as refused:
                await limited.ask(f"{path}/{opened.file_id}/{step}", body)
            assert refused.value.status == 404
        await both.ask(f"{path}/{opened.file_id}/complete", whole.model_dump_json().encode())
        await limited.close()
        await both.close()


async def test_lines_come_only_under_an_id_that_was_opened(street: Street, core: CoreClient) -> None:
    with pytest.raises(CoreRefusedError) as refused:
        await core.ask(f"/internal/v1/registers/{street.wallet}/lines", orjson.dumps({"lines": [LINE]}))
    assert refused.value.status == 404
