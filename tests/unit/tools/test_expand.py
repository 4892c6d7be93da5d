"""A migration under which the release before would break is found, unless it says why it may."""

import pytest

from core.store.migrate import load_migrations
from tools.expand import BASE, findings


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE fleet.intents",
        "ALTER TABLE fleet.intents DROP COLUMN lookup",
        "ALTER TABLE fleet.intents RENAME COLUMN lookup TO looked_up",
        "ALTER TABLE fleet.intents ALTER COLUMN amount_minor TYPE numeric",
        "ALTER TABLE fleet.intents ALTER amount_minor SET DATA TYPE numeric",
        "ALTER TABLE fleet.intents ALTER COLUMN rail SET NOT NULL",
        "ALTER TABLE fleet.intents ADD COLUMN a text, ADD COLUMN color text NOT NULL",
        "ALTER TABLE fleet.intents ADD CONSTRAINT small CHECK (amount_minor < 5)",
        "CREATE UNIQUE INDEX one ON fleet.intents (wallet_id)",
        "REVOKE INSERT ON fleet.intents FROM fleet_worker",
        "DELETE FROM fleet.routes",
        "DROP FUNCTION fleet.first_id_at(timestamptz)",
    ],
)
def test_what_old_code_cannot_live_with_is_found(sql: str) -> None:
    (found,) = findings("0099_x", f"-- a comment; with a semicolon\n{sql};")
    assert found.startswith("0099_x: ")
    assert list(findings("0099_x", f"-- contract: no release uses it since 0.4\n{sql};")) == []


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE fleet.intents ADD COLUMN color text, ADD COLUMN n integer NOT NULL DEFAULT 0",
        "CREATE TABLE fleet.a (id uuid NOT NULL); ALTER TABLE fleet.a ADD CONSTRAINT b CHECK (id IS NOT NULL)",
        "CREATE TABLE fleet.a (id uuid); CREATE UNIQUE INDEX one ON fleet.a (id)",
        "ALTER TABLE fleet.a DROP CONSTRAINT b; ALTER TABLE fleet.a ADD CONSTRAINT b CHECK (true)",
        "CREATE FUNCTION fleet.f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DROP TABLE x; RENAME; END $$",
        "INSERT INTO fleet.a VALUES ('DROP TABLE fleet.intents; RENAME')",
        "REVOKE ALL ON FUNCTION fleet.f FROM PUBLIC",
    ],
)
def test_what_only_adds_is_fine(sql: str) -> None:
    assert list(findings("0099_x", sql + ";")) == []


def test_there_is_something_to_look_at() -> None:
    assert [migration for migration in load_migrations() if migration.version > BASE]
