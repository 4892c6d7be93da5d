"""What the money machine's payments cost and are confined by: fees each way, one limit, two rates."""

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import asyncpg

from core.services.terms.exposure import allow_overdraft
from core.services.terms.rates import record_rates, set_pair
from core.services.terms.set_limits import set_limit
from fleet.stack.provision import RoleUrls
from schemas.exchange import PairRequest, RateRequest
from schemas.limits import LimitRequest
from tests.integration.permits.conftest import RAIL, World, open_world
from tests.integration.permits.plain_sums import LIMIT, ON_EXCHANGE, ON_PAYOUT, ON_TOP_UP, ON_TRANSFER
from tests.integration.permits.test_fees import put


async def open_terms(stack: AsyncExitStack, urls: RoleUrls) -> World:
    """Open a world with the fees, the limit and the rates that `plain_sums` reckons by."""
    admin = await asyncpg.connect(urls.admin)
    stack.push_async_callback(admin.close)
    world = await stack.enter_async_context(open_world(urls, admin))
    world.caller = replace(world.caller, operations=world.caller.operations | {"ADJUSTMENT_DEBIT"})
    await world.register(also=("DEPOSIT", "REFUND", "TOPUP"), collection_lives_s=600, refunds="parts")
    await world.admin.execute(
        "INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account)"
        " VALUES ($1, 'TOPUP', 'THB', $2, 'p', 'main')",
        world.caller.tenant_id,
        RAIL,
    )
    fee = {"kind": "RATE", "fixed_minor": ON_TRANSFER}
    await put(world, operation="INTERNAL_P2P", fee=fee, on_refund="RETURNED")
    tenth = {"kind": "RATE", "basis_points": 1000}
    await put(world, operation="INTERNAL_P2P", name="tenth", phase="POST", fee=tenth)
    await put(world, name="out", fee={"kind": "RATE", "fixed_minor": ON_PAYOUT}, on_refund="RETURNED")
    await put(world, operation="TOPUP", name="in", fee={"kind": "RATE", "fixed_minor": ON_TOP_UP}, on_refund="RETURNED")
    body = {"name": "monthly", "kind": "MONTH", "currency": "THB", "max_amount_minor": LIMIT, "refund_gives_back": True}
    async with world.uow() as uow:
        request = LimitRequest.model_validate(body)
        await set_limit(uow, world.core.worker_ports.limit_store, world.caller.tenant_id, "test", request)
        await offer_dollars(uow, world)
        await _offer_yen(uow, world)
    for currency, minor in ON_EXCHANGE.items():
        rules = {"operation": "EXCHANGE", "currency": currency}
        await put(world, name=f"pay-{currency.lower()}", fee={"kind": "RATE", "fixed_minor": minor}, **rules)
        await put(world, name=f"buy-{currency.lower()}", phase="POST", fee=tenth, **rules)
    return world


async def offer_dollars(uow: Any, world: World) -> None:
    """Exchange dollars for three baht, out of liquidity that may be overdrawn."""
    await _offer(
        uow, world, PairRequest(base="USD", counter="THB", spread_basis_points=100, rate_max_age_s=86_400), "3"
    )
    await _overdraw(uow, world, "USD")


async def _offer_yen(uow: Any, world: World) -> None:
    """Exchange baht for 4.2 yen, and all the other way, out of liquidity that may be overdrawn."""
    terms = PairRequest(base="THB", counter="JPY", spread_basis_points=100, rate_max_age_s=86_400)
    await _offer(uow, world, terms, "4.2")
    for currency in ("JPY", "THB"):
        await _overdraw(uow, world, currency)


async def _offer(uow: Any, world: World, terms: PairRequest, worth: str) -> None:
    rates, tenant = world.core.worker_ports.exchange_rates, world.caller.tenant_id
    await set_pair(uow, rates, tenant, "test", terms)
    rate = RateRequest(base=terms.base, counter=terms.counter, rate=worth, source="test")
    await record_rates(uow, rates, tenant, "test", [rate])


async def _overdraw(uow: Any, world: World, currency: str) -> None:
    ports = world.core.worker_ports
    await allow_overdraft(uow, ports.liquidity, ports.ledger, world.caller.tenant_id, currency, True)
