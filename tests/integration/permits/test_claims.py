"""One transaction of a provider pays one payment out: whoever names it for a second one settles nothing by it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from core.services.problems import Refusal
from core.services.settling.claims import TransactionTakenError
from core.services.settling.settle import Delivery, Settled, settle_again, settle_batch
from core.services.settling.settle_by_hand import approve, ask_settlement
from schemas.on_call import HandSettlementRequest
from tests.integration.permits.conftest import World, pay_job

TAKEN = "transaction_of_another"
MONEY: dict[str, Any] = {"amount_minor": 100, "currency": "THB"}
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def sent(world: World, count: int) -> tuple[UUID, list[UUID]]:
    """Pay so often from one wallet of 1000; return the wallet and the intents, whose jobs have their permits."""
    wallet = await world.wallet(1000)
    intents = [await world.pay(wallet) for _ in range(count)]
    for intent in intents:
        await world.sent(intent)
    return wallet, intents


async def states(world: World, intents: Sequence[UUID]) -> list[str]:
    return [(await world.state(intent))[0] for intent in intents]


def paid(world: World, intent: UUID, transaction: str | None = "T1", **more: Any) -> Delivery:
    return world.fact(pay_job(intent), "SUCCEEDED", provider_tx_id=transaction, **(MONEY | more))


async def quarantined(world: World, intent: UUID) -> list[str]:
    rows = await world.admin.fetch(
        "SELECT quarantine FROM fleet.facts WHERE intent_id = $1 AND applied_at IS NULL", intent
    )
    return [row["quarantine"] for row in rows]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("second_minor", [100, 70])
async def test_a_transaction_that_paid_one_payment_settles_no_second_one_and_blocks_its_void(
    world: World, together: bool, second_minor: int
) -> None:
    await world.register()
    wallet, (first, neighbour) = await sent(world, 2)
    second = await world.pay(wallet, second_minor)
    await world.sent(second)
    told = [paid(world, first), paid(world, second, amount_minor=second_minor), paid(world, neighbour, "T2")]
    for batch in [told] if together else [[each] for each in told]:
        assert (await world.settle(*batch)).unusable == []
    assert await states(world, [first, second, neighbour]) == ["SETTLED", "AUTHORIZED", "SETTLED"]
    assert await world.money(wallet) == (800, second_minor)
    assert await quarantined(world, second) == [TAKEN]
    assert await world.alerts() == [("page", TAKEN)]
    detail = await world.admin.fetchval("SELECT detail FROM fleet.alerts")
    assert detail.endswith(f": T1 paid payment {first}")
    await world.tell(pay_job(second), "DECLINED", reason="refused")
    assert (await world.state(second))[0] == "AUTHORIZED"
    await world.pass_time(10_000)
    await world.resolve()
    assert (await world.state(second))[0] == "UNRESOLVED"
    assert await world.money(wallet) == (800, second_minor)
    await world.prove()


async def test_what_is_told_again_of_the_payment_that_it_paid_is_harmless(world: World) -> None:
    await world.register(deduplicates_reference=True, inquiry=True)
    wallet, (intent,) = await sent(world, 1)
    assert (await world.sent(intent)).fence == 2
    await world.settle(paid(world, intent), paid(world, intent), paid(world, intent, fence=2))
    await world.settle(paid(world, intent), paid(world, intent, fence=2))
    assert await states(world, [intent]) == ["SETTLED"]
    assert (await world.money(wallet), await world.alerts()) == ((900, 0), [])
    await world.prove()


async def test_who_names_no_transaction_claims_none(world: World) -> None:
    await world.register()
    wallet, intents = await sent(world, 3)
    await world.settle(*(paid(world, intent, None if place else "") for place, intent in enumerate(intents)))
    assert await states(world, intents) == ["SETTLED"] * 3
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.paid_transactions") == 0
    assert await world.money(wallet) == (700, 0)


async def test_of_two_settlers_at_once_one_settles_and_the_other_is_told_apart_with_its_neighbours_settled(
    world: World,
) -> None:
    await world.register()
    # Wallets of their own: what meets is the claim alone.
    (_, (first, _)), (_, (second, neighbour)) = [await sent(world, 2) for _ in range(2)]
    holding, release = asyncio.Event(), asyncio.Event()
    ports = world.core.worker_ports

    async def slow() -> None:
        async with world.uow() as uow:
            assert await settle_again(uow, ports, paid(world, first)) == ""
            await uow.flush()
            holding.set()
            await release.wait()

    holder = asyncio.create_task(slow())
    await holding.wait()
    other = asyncio.create_task(world.settle(paid(world, neighbour, "T2"), paid(world, second)))
    while not await world.admin.fetchval(_WAITING):  # noqa: ASYNC110 - the server sets no event
        await asyncio.sleep(0.01)
    release.set()
    await holder
    settled: Settled = await other
    assert settled.unusable == []
    assert await states(world, [first, second, neighbour]) == ["SETTLED", "AUTHORIZED", "SETTLED"]
    assert await quarantined(world, second) == [TAKEN]
    await world.prove()


async def test_many_settlers_at_once_settle_each_transaction_for_one_payment(world: World) -> None:
    await world.register()
    groups = [(await sent(world, 6))[1] for _ in range(4)]
    # Each of six transactions is named for a payment of each group, in another order by each settler.
    batches = [
        [paid(world, group[at], f"T{(at + turn) % 6}") for at in (range(6) if turn % 2 else range(5, -1, -1))]
        for turn, group in enumerate(groups)
    ]
    await asyncio.gather(*(_until_settled(world, batch) for batch in batches))
    every = [intent for group in groups for intent in group]
    assert sorted(await states(world, every)) == ["AUTHORIZED"] * 18 + ["SETTLED"] * 6
    named = await world.admin.fetch("SELECT provider_reference FROM fleet.intents WHERE provider_reference <> ''")
    assert sorted(row[0] for row in named) == [f"T{at}" for at in range(6)]
    await world.prove()


async def _until_settled(world: World, batch: Sequence[Delivery]) -> None:
    while True:
        try:
            await world.settle(*batch)
        except world.core.worker_ports.shared_faults:  # as the inbox does: the entries stay its own
            continue
        return


async def test_a_claim_that_is_lost_at_every_try_is_kept_for_people_and_settles_nothing(world: World) -> None:
    await world.register()
    wallet, (intent,) = await sent(world, 1)

    class NeverFree:
        async def claim(self, uow: Any, claims: Any) -> None:
            raise TransactionTakenError

        async def claimants(self, uow: Any, claims: Any) -> dict[UUID, Any]:
            return {}

    ports = replace(world.core.worker_ports, claims=NeverFree())
    settled = await settle_batch(ports, world.uow, [paid(world, intent)])
    assert [error for _, error in settled.unusable] == ["settlement_failed"]
    await world.tell(pay_job(intent), "DECLINED", reason="refused")
    assert (await world.state(intent))[0] == "AUTHORIZED"
    assert await world.money(wallet) == (1000, 100)


@pytest.mark.parametrize("late_first", [True, False])
async def test_what_proves_paid_after_its_void_claims_its_transaction_too(world: World, late_first: bool) -> None:
    await world.register(deduplicates_reference=True)
    wallet, (late, other) = await sent(world, 2)
    await world.tell(pay_job(late), "DECLINED", reason="refused")
    for intent in (late, other) if late_first else (other, late):
        await world.settle(paid(world, intent))
    assert await states(world, [late, other]) == ["FAILED", "AUTHORIZED" if late_first else "SETTLED"]
    assert await world.money(wallet) == ((1000, 100) if late_first else (900, 0))
    suspense = await world.admin.fetchval("SELECT coalesce(sum(debits_posted), 0) FROM fleet.accounts WHERE code = 4")
    assert suspense == (100 if late_first else 0)
    assert ("page", TAKEN) in await world.alerts()
    await world.prove()


async def test_what_came_back_before_it_was_settled_claims_its_transaction_too(world: World) -> None:
    await world.register()
    wallet, (first, second) = await sent(world, 2)
    await world.tell(pay_job(first), "RETURNED", provider_tx_id="T1", **MONEY)
    await world.tell(pay_job(second), "SUCCEEDED", provider_tx_id="T1", **MONEY)
    assert await states(world, [first, second]) == ["SETTLED", "AUTHORIZED"]
    # And what came back of a settled payment needs no claim of its own.
    third = await world.pay(wallet)
    await world.sent(third)
    await world.tell(pay_job(third), "SUCCEEDED", provider_tx_id="T3", **MONEY)
    await world.tell(pay_job(third), "RETURNED", provider_tx_id="T3", **MONEY)
    assert await quarantined(world, third) == []
    await world.prove()


async def test_another_account_or_kind_of_job_of_the_provider_has_transactions_of_its_own(world: World) -> None:
    await world.register()
    _, intents = await sent(world, 4)
    job = pay_job(intents[1]), pay_job(intents[2])
    await world.admin.execute("UPDATE fleet.jobs SET provider_account = 'second' WHERE id = $1", job[0])
    await world.admin.execute("UPDATE fleet.jobs SET environment = 'production' WHERE id = $1", job[1])
    await world.settle(*(paid(world, intent) for intent in intents))
    assert await states(world, intents) == ["SETTLED", "SETTLED", "SETTLED", "AUTHORIZED"]


def by_hand(intent: UUID, transaction: str) -> HandSettlementRequest:
    body = {"intent_id": intent, "outcome": "PAID", "evidence": "line 7 of the register", "reason": "seen there"}
    return HandSettlementRequest.model_validate(body | {"incident": "INC-3", "provider_tx_id": transaction})


async def test_a_payment_settled_by_hand_claims_its_transaction_and_is_refused_one_that_is_taken(world: World) -> None:
    await world.register()
    wallet, (first, second, third) = await sent(world, 3)
    await world.admin.execute("UPDATE fleet.jobs SET busy_until = now()")
    ports = world.core.worker_ports
    anna, ben = (replace(world.caller, key_id=name, operations=frozenset({"*", "DEAD_LETTERS", "REDRIVE_APPROVAL"}))
                 for name in ("anna", "ben"))  # fmt: skip
    # Asked for while it was free, and claimed by another before it was approved.
    views = [await ask_settlement(ports, anna, by_hand(intent, "T1")) for intent in (first, second)]
    await approve(ports, ben, views[0].id, "seen")
    with pytest.raises(Refusal, match=f"payment {first}") as taken:
        await approve(ports, ben, views[1].id, "seen")
    assert taken.value.code == "transaction_taken"
    with pytest.raises(Refusal) as early:
        await ask_settlement(ports, anna, by_hand(third, "T1"))
    assert early.value.code == "transaction_taken"
    await world.settle(paid(world, third))
    assert await states(world, [first, second, third]) == ["SETTLED", "AUTHORIZED", "AUTHORIZED"]
    assert await quarantined(world, third) == [TAKEN]
    assert await world.money(wallet) == (900, 200)
    await approve(ports, ben, (await ask_settlement(ports, anna, by_hand(third, "T1-B"))).id, "its own")
    assert (await world.state(third))[0] == "SETTLED"
    await world.prove()


async def test_another_tenant_s_payment_is_not_named(world: World) -> None:
    await world.register()
    _, (first, second) = await sent(world, 2)
    await world.settle(paid(world, first))
    await world.admin.execute("UPDATE fleet.paid_transactions SET tenant_id = $1", uuid4())
    await world.settle(paid(world, second))
    assert str(first) not in await world.admin.fetchval("SELECT detail FROM fleet.alerts")
    assert "another tenant" in await world.admin.fetchval("SELECT detail FROM fleet.alerts")


async def test_what_is_read_again_once_its_transaction_is_known_to_be_its_own_settles(world: World) -> None:
    await world.register()
    wallet, (first, second) = await sent(world, 2)
    await world.settle(paid(world, first), paid(world, second))
    ports, again = world.core.worker_ports, replace(paid(world, second), again=True)
    async with world.uow() as uow:
        assert await settle_again(uow, ports, again) == TAKEN
    await world.admin.execute("DELETE FROM fleet.paid_transactions")
    async with world.uow() as uow:
        assert await settle_again(uow, ports, again) == ""
    assert await states(world, [first, second]) == ["SETTLED", "SETTLED"]
    assert await world.money(wallet) == (800, 0)
