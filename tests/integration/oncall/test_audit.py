"""The audit journal: appended by whoever acts, refused to whoever edits; an edit behind the guards is named."""

from dataclasses import replace
from uuid import UUID

import asyncpg
import orjson
import pytest

from core.domain.context import Context
from core.domain.ledger import AccountChange
from core.services.on_call.audit import Act, AuditFilter, Head, Proof, prove
from core.services.terms.exposure import allow_overdraft
from core.services.wallets.wallet_states import change_wallet
from core.store.on_call.audit import AuditStore
from core.store.settling import rails
from tests.integration.permits.conftest import RAIL, World

JOURNAL = AuditStore()


async def proven(world: World, tenant: UUID | None = None, *anchors: Head) -> Proof:
    async with world.uow() as uow:
        return await prove(uow, JOURNAL, tenant, anchors)


async def write(world: World, count: int) -> None:
    tenant = world.caller.tenant_id
    async with world.uow() as uow:
        await JOURNAL.append(uow, [Act(tenant, "key:anna", "tested", f"thing-{n}", {"n": n}) for n in range(count)])


async def edited(world: World, statement: str) -> None:
    """Edit history as only an administrator who switches the guards off can."""
    await world.admin.execute(f"SET session_replication_role = replica; {statement}; RESET session_replication_role")


async def run_as(world: World, role: str, statement: str) -> None:
    if role == "admin":
        await world.admin.execute(statement)
        return
    database = world.core.app_database if role == "app" else world.core.worker_database
    async with database.unit_of_work(Context(world.caller.tenant_id, "x")) as uow:
        await uow.connection.execute(statement)


async def test_a_chain_of_several_batches_is_proven_by_the_same_hashes_in_both_languages(world: World) -> None:
    await write(world, 3)
    await write(world, 2)
    proof = await proven(world)
    assert proof.faults == []
    assert proof.entries >= 5
    async with world.uow() as uow:
        mine = AuditFilter(world.caller.tenant_id, action="tested")
        page = await JOURNAL.page(uow, mine, None, 2)
        rest = await JOURNAL.page(uow, mine, (page[-1].tenant_id, page[-1].seq), 10)
    assert [entry.subject for entry in [*page, *rest]] == [f"thing-{n}" for n in (1, 0, 2, 1, 0)]


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE fleet.audit_entries SET actor = 'key:ben' WHERE subject = 'thing-2'", "was changed"),
        ("UPDATE fleet.audit_entries SET data = '{}' WHERE subject = 'thing-4'", "was changed"),
        ("UPDATE fleet.audit_entries SET at = at - interval '1 us' WHERE subject = 'thing-1'", "was changed"),
        ("DELETE FROM fleet.audit_entries WHERE subject = 'thing-2'", "are missing"),
        ("DELETE FROM fleet.audit_entries WHERE subject = 'thing-4'", "the chain ends at"),
        ("DELETE FROM fleet.audit_heads", "the chain ends at"),
    ],
)
async def test_an_edit_behind_the_guards_is_named(world: World, statement: str, told: str) -> None:
    await write(world, 5)
    await edited(world, statement)
    assert any(told in fault for fault in (await proven(world, world.caller.tenant_id)).faults)


async def test_a_chain_that_was_written_anew_differs_from_the_end_that_was_noted(world: World) -> None:
    await write(world, 5)
    tenant = world.caller.tenant_id
    async with world.uow() as uow:
        (noted,) = await JOURNAL.heads(uow, tenant)
    assert (await proven(world, tenant, noted)).faults == []
    await edited(world, f"DELETE FROM fleet.audit_entries WHERE tenant_id = '{tenant}'; DELETE FROM fleet.audit_heads")
    await write(world, 9)
    assert (await proven(world, tenant)).faults == []
    assert (await proven(world, tenant, noted)).faults == [f"{tenant}: entry {noted.seq} is not the one that was noted"]


@pytest.mark.parametrize("role", ["app", "worker", "admin"])
async def test_nobody_edits_history_by_ordinary_means(world: World, role: str) -> None:
    await write(world, 1)
    for statement in ("UPDATE fleet.audit_entries SET actor = 'x'", "DELETE FROM fleet.audit_entries"):
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.RestrictViolationError)):
            await run_as(world, role, statement)


async def test_the_application_writes_into_its_own_tenant_s_chain_alone(world: World) -> None:
    async with world.core.app_database.unit_of_work(world.caller.context()) as uow:
        await JOURNAL.append(uow, [Act(world.caller.tenant_id, "a", "b", "c", {})])
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with world.core.app_database.unit_of_work(world.caller.context()) as uow:
            await JOURNAL.append(uow, [Act(UUID(int=0), "a", "b", "c", {})])


async def test_keys_routes_and_pauses_are_journalled_without_their_secrets(world: World) -> None:
    tenant = world.caller.tenant_id
    made = await world.core.keys.create(Context(tenant, "key:anna"), tenant_id=tenant, name="new")
    async with world.uow() as uow:
        await rails.pause_rail(uow, RAIL, "*", "anna", "maintenance")
        await rails.resume_rail(uow, RAIL, "*")
    async with world.uow() as uow:
        entries = await JOURNAL.page(uow, AuditFilter(), None, 100)
    told = {(entry.subject, entry.action): entry for entry in entries}
    key = told["service_keys", "insert"]
    assert (key.actor, key.tenant_id) == ("key:anna", tenant)
    assert made.id in key.data
    assert '"secret' not in key.data
    assert "maintenance" in told["rail_pauses", "insert"].data
    assert ("rail_pauses", "delete") in told
    assert ("routes", "insert") in told
    assert (await proven(world)).faults == []


async def test_what_a_hand_does_to_a_wallet_an_account_or_the_money_is_journalled_by_the_database(world: World) -> None:
    wallet = await world.wallet(1000)
    hand = replace(world.caller, operations=world.caller.operations | {"WALLET_STATES", "LIQUIDITY"})
    tenant, actor = hand.tenant_id, hand.context().actor
    ports = world.core.ports
    await change_wallet(ports, hand, wallet, AccountChange.FREEZE, "seen")
    await change_wallet(ports, hand, wallet, AccountChange.UNFREEZE, "cleared")
    async with ports.unit_of_work(hand.context()) as uow:
        assert await ports.limit_store.set_tier(uow, tenant, wallet, "gold")
        await allow_overdraft(uow, ports.liquidity, ports.ledger, tenant, "THB", True)
    await world.pay(wallet)
    rows = await world.admin.fetch(
        "SELECT actor, action, subject, data::jsonb AS data FROM fleet.audit_entries WHERE tenant_id = $1"
        " AND action IN ('adjusted_by_hand', 'wallet_changed', 'account_changed') ORDER BY seq",
        tenant,
    )
    told = [(row["actor"], row["action"], row["subject"], orjson.loads(row["data"])) for row in rows]
    assert [each[:2] for each in told] == [
        (actor, "adjusted_by_hand"), (actor, "account_changed"), (actor, "account_changed"),
        (actor, "wallet_changed"), (actor, "account_changed"),
    ]  # fmt: skip
    assert told[0][3]["amount_minor"] == 1000
    assert [each[2] for each in told[1:4]] == [f"account:{wallet}", f"account:{wallet}", f"wallet:{wallet}"]
    flags = [(each[3]["before"]["flags"], each[3]["flags"]) for each in (told[1], told[2], told[4])]
    assert flags == [(1, 9), (9, 1), (1, 0)]
    assert told[3][3] == {"tier": "gold", "external_id": None, "before": {"tier": "", "external_id": None}}
    assert (await proven(world)).faults == []
