"""Row security, table by table and role by role: what the database itself shows whoever asks it past the API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.integration.api.conftest import World
from tests.integration.api.test_tenants import OF_ALL, OF_NO_TENANT, SYSTEM, made, things_of

OWNERS = (
    "(( SELECT (((CURRENT_USER = 'fleet_owner'::name) AND (current_setting('role'::text) <> 'fleet_owner'::text))"
    " OR (current_setting('fleet.every_tenant'::text, true) = 'on'::text)))"
    " OR (tenant_id = ( SELECT (NULLIF(current_setting('fleet.tenant'::text, true), ''::text))::uuid AS \"nullif\")))"
)
"""What every table says of its owner; parentheses and names are those that PostgreSQL tells it with."""


@asynccontextmanager
async def as_role(world: World, role: str, **settings: str) -> AsyncIterator[asyncpg.Connection]:
    """Ask with a role's eyes, in a transaction that leaves nothing behind."""
    transaction = world.admin.transaction()
    await transaction.start()
    try:
        await world.admin.execute(f"SET LOCAL ROLE {role}")
        for name, value in settings.items():
            await world.admin.execute("SELECT set_config('fleet.' || $1, $2, true)", name, value)
        yield world.admin
    finally:
        await transaction.rollback()


async def rows_of(world: World, tables: list[str], where: str = "true") -> dict[str, int]:
    """Count the rows of the tables that have any."""
    counts = [f"SELECT '{name}' AS name, count(*) AS rows FROM fleet.{name} WHERE {where}" for name in tables]
    found = await world.admin.fetch(" UNION ALL ".join(counts))
    return {row["name"]: row["rows"] for row in found if row["rows"]}


async def tables_of(world: World, *, parts: bool = False) -> list[str]:
    """Return the tables that carry a tenant."""
    rows = await world.admin.fetch(
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'fleet'::regnamespace AND c.relkind IN ('r', 'p')"
        " AND (NOT c.relispartition OR $2) AND c.relname <> ALL ($1) ORDER BY 1",
        list(OF_NO_TENANT),
        parts,
    )
    return [row["relname"] for row in rows]


async def granted_to(world: World, role: str, tables: list[str]) -> list[str]:
    """Return the tables of which a role may read a tenant and its rows."""
    rows = await world.admin.fetch(
        "SELECT t FROM unnest($1::text[]) t WHERE has_column_privilege($2, 'fleet.' || t, 'tenant_id', 'SELECT')",
        tables,
        role,
    )
    return [row["t"] for row in rows]


async def test_every_table_and_every_part_binds_its_owner_too(world: World) -> None:
    rows = await world.admin.fetch(
        "SELECT c.relname AS name, c.relrowsecurity AND c.relforcerowsecurity AS forced,"
        " EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND a.attnotnull)"
        " AS owned, (SELECT array_agg(pg_get_expr(p.polqual, c.oid)) FROM pg_policy p WHERE p.polrelid = c.oid"
        " AND p.polroles = ARRAY['fleet_owner'::regrole::oid]) AS says FROM pg_class c"
        " WHERE c.relnamespace = 'fleet'::regnamespace AND c.relkind IN ('r', 'p', 'm', 'f')"
    )
    said = {row["name"]: (row["owned"], row["forced"], row["says"]) for row in rows if row["name"] not in OF_NO_TENANT}
    one = said["intents"][2][0]
    assert one.replace("\n", " ").split() == OWNERS.split(), one
    assert {name: told for name, told in said.items() if told != (True, True, [one])} == {}
    assert {"intents", "intents_pdefault", "transfers", "tenants"} <= said.keys()


async def test_a_part_that_is_made_later_binds_its_owner_too(world: World) -> None:
    before = set(await tables_of(world, parts=True))
    await world.admin.execute("SELECT fleet.ensure_partitions(5, 5)")
    made_now = set(await tables_of(world, parts=True)) - before
    text = "SELECT bool_and(relrowsecurity AND relforcerowsecurity), count(*) FROM pg_class WHERE relname = ANY ($1)"
    row = await world.admin.fetchrow(text, list(made_now))
    assert row is not None
    assert tuple(row) == (True, len(made_now))
    assert made_now


async def test_without_a_tenant_neither_the_application_nor_the_owner_sees_a_row(world: World) -> None:
    await things_of(world)
    tables = await tables_of(world, parts=True)
    filled = await rows_of(world, tables)
    assert len(filled) >= 40
    async with as_role(world, "fleet_owner"):
        assert await rows_of(world, tables) == {}
    async with as_role(world, "fleet_owner", every_tenant="on"):
        assert await rows_of(world, tables) == filled
    async with as_role(world, "fleet_app"):
        seen = await rows_of(world, await granted_to(world, "fleet_app", tables))
        assert set(seen) <= set(OF_ALL)
    # Background work serves every tenant and names each; its role has no right to what no work of its needs.
    async with as_role(world, "fleet_worker"):
        granted = await granted_to(world, "fleet_worker", tables)
        assert await rows_of(world, granted) == {name: rows for name, rows in filled.items() if name in granted}


async def test_the_owner_sees_and_writes_for_the_tenant_that_it_names_alone(world: World) -> None:
    await things_of(world)
    theirs = (await made(world))["tenant"]["id"]
    tables = await tables_of(world)
    its_own = await rows_of(world, tables, f"tenant_id = '{theirs}'")
    assert {"tenants", "service_keys"} <= its_own.keys()
    async with as_role(world, "fleet_owner", tenant=theirs) as connection:
        assert await rows_of(world, tables) == its_own
        assert await connection.execute("UPDATE fleet.tenants SET name = 'renamed'") == "UPDATE 1"
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await connection.execute(
                f"INSERT INTO fleet.request_nonces (tenant_id, key_id, nonce) VALUES ({SYSTEM}, 'k', 'n')"
            )


async def test_no_role_of_ours_goes_round_row_security_or_becomes_one_that_does(world: World) -> None:
    rows = await world.admin.fetch(
        "SELECT r.rolname, r.rolsuper OR r.rolbypassrls AS above, array(SELECT b.rolname FROM pg_auth_members m"
        " JOIN pg_roles b ON b.oid = m.roleid WHERE m.member = r.oid) AS of"
        " FROM pg_roles r WHERE r.rolname LIKE 'fleet%' ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [(name, False, []) for name in ("fleet_app", "fleet_owner", "fleet_worker")]
