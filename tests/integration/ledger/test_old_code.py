"""The statements of the release before go on working on this release's schema: both run side by side in an upgrade.

They were recorded from that release's own tests by `tests/support/recording.py`; with a release they are recorded anew.
"""

import json

import asyncpg
import pytest

from fleet.stack.provision import RoleUrls
from tests.support.recording import FILE

STATEMENTS: dict[str, list[str]] = json.loads(FILE.read_text())


@pytest.mark.parametrize("role", STATEMENTS)
async def test_what_the_release_before_asks_is_still_understood_and_permitted(
    fresh_database: RoleUrls, role: str
) -> None:
    connection = await asyncpg.connect(fresh_database.app if role == "fleet_app" else fresh_database.worker)
    broken = []
    for statement in STATEMENTS[role]:
        try:
            await connection.prepare(statement)
            # Rights are looked up when a plan is made, and a generic plan needs no values.
            await connection.execute(f"EXPLAIN (GENERIC_PLAN) {statement}")
        except asyncpg.PostgresError as error:
            broken.append(f"{type(error).__name__}: {error}: {statement[:200]}")
    await connection.close()
    assert broken == []
    assert len(STATEMENTS[role]) > 25


async def test_a_statement_that_a_new_schema_breaks_is_seen(
    fresh_database: RoleUrls, admin_connection: asyncpg.Connection
) -> None:
    wanted = [
        each for each in STATEMENTS["fleet_app"] if "fleet.idempotency_keys" in each or "FROM fleet.wallets" in each
    ]
    await admin_connection.execute("ALTER TABLE fleet.wallets RENAME COLUMN owner TO holder")
    connection = await asyncpg.connect(fresh_database.app)
    broken = 0
    for statement in wanted:
        try:
            await connection.prepare(statement)
        except asyncpg.UndefinedColumnError:
            broken += 1
    await connection.close()
    assert broken
