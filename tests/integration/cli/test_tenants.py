"""`fleet tenants` on a database of its own."""

import asyncpg
import pytest

from fleet.stack.provision import RoleUrls
from tests.support.commands import Fleet


@pytest.fixture(autouse=True)
def servers(fleet: Fleet, fresh_database: RoleUrls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_WORKER_URL", fresh_database.worker)


async def test_a_tenant_is_made_listed_and_set(fleet: Fleet, admin_connection: asyncpg.Connection) -> None:
    made = (
        await fleet("tenants", "create", "shop", "--timezone", "Asia/Bangkok", "--operations", "*,FEES", "--json")
    ).document
    assert made["secret"]
    carried = await admin_connection.fetchval("SELECT operations FROM fleet.service_keys WHERE id = $1", made["key_id"])
    assert sorted(carried) == ["*", "FEES"]
    (listed,) = (await fleet("tenants", "list", "--json")).document
    assert listed == made["tenant"]
    assert (listed["name"], listed["business_timezone"], listed["returns_to"]) == ("shop", "Asia/Bangkok", "WALLET")
    assert (await fleet("tenants", "set", listed["id"], "--returns-to", "SUSPENSE")).code == 0
    assert (await fleet("tenants", "list", "--json")).document[0]["returns_to"] == "SUSPENSE"
    assert (await fleet("tenants", "set", listed["id"], "--adjust-alone-up-to", "500")).code == 0
    assert await admin_connection.fetchval("SELECT adjusts_alone_minor FROM fleet.tenants WHERE name = 'shop'") == 500
    (await fleet("tenants", "set", listed["id"])).must_fail(2, "invalid_request")
    assert "shop" in (await fleet("tenants", "list")).out


async def test_what_cannot_be_a_tenant_is_said_in_one_line(fleet: Fleet) -> None:
    await fleet("tenants", "create", "shop")
    (await fleet("tenants", "create", "shop")).must_fail(3, "tenant_name_taken")
    (await fleet("tenants", "create", "other", "--timezone", "Mars/Olympus")).must_fail(2, "invalid_field")
    (await fleet("tenants", "create", "other", "--operations", "TENANTS")).must_fail(3, "invalid_request")
    absent = "00000000-0000-0000-0000-00000000abcd"
    (await fleet("tenants", "set", absent, "--returns-to", "WALLET")).must_fail(3, "not_found")
    assert len((await fleet("tenants", "list", "--json")).document) == 1
