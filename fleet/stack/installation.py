"""What one installation consists of before its first process starts: a tenant, its routes, its keys. Kept in a file."""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncpg

from core.domain.context import Context
from core.services.access.keys import (
    ADJUSTMENT_ALONE_SCOPE,
    ANY,
    AUDIT_SCOPE,
    DEAD_LETTERS_SCOPE,
    LIQUIDITY_SCOPE,
    RAILS_SCOPE,
    RECONCILIATION_SCOPE,
    REDRIVE_APPROVAL_SCOPE,
    REVEAL_SCOPE,
    KeyService,
)
from core.services.access.people import SYSTEM_TENANT
from core.store.access.keys import KeyStore
from core.store.database import Database
from core.store.terms.limits import stored_quotas
from core.store.vault import PostgresVault
from fleet.stack.provision import RoleUrls
from fleet.stack.rails import rail_of
from fleet.stack.tenant import TENANT
from schemas.operations import OperationType

# One person runs this stack and funds its wallets: adjustments are named, for `*` does not carry them.
# It funds wallets and liquidity for trying things out, and nobody waits for a second person then.
_CLIENT_OPERATIONS = (ANY, OperationType.MANUAL_ADJUSTMENT, ADJUSTMENT_ALONE_SCOPE, LIQUIDITY_SCOPE)
# What people on call do. It is a key of the system's tenant: some dead letters are no tenant's.
_OPERATOR_OPERATIONS = (
    DEAD_LETTERS_SCOPE,
    REDRIVE_APPROVAL_SCOPE,
    AUDIT_SCOPE,
    RECONCILIATION_SCOPE,
    RAILS_SCOPE,
    REVEAL_SCOPE,
)


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """A key and its secret."""

    id: str
    secret: str


@dataclass(frozen=True, slots=True)
class Installation:
    """The keys of the stack: one of the client, one of the person on call, one of each rail's adapters."""

    client: ServiceKey
    operator: ServiceKey
    rails: Mapping[str, ServiceKey]


async def install(path: Path, urls: RoleUrls, master_key: str, rails: Sequence[str]) -> Installation:
    """Create tenant, routes and keys where they are missing; the file remembers the secrets."""
    await _tenant_and_routes(urls.admin, rails)
    saved = _read(path)
    database = await Database.connect(urls.worker, max_size=2, application_name="fleet-stack")
    try:
        vault = PostgresVault(base64.b64decode(master_key))
        service = KeyService(database.unit_of_work, KeyStore(database), vault, stored_quotas())
        people = {"client": (TENANT, _CLIENT_OPERATIONS), "operator": (SYSTEM_TENANT, _OPERATOR_OPERATIONS)}
        for name in (*people, *rails):
            if name not in saved:
                tenant, operations = people.get(name, (TENANT, (ANY,)))
                made = await service.create(
                    Context(None, "stack"),
                    tenant_id=tenant,
                    name=name,
                    operations=operations,
                    rail=None if name in people else name,
                )
                saved[name] = asdict(ServiceKey(made.id, made.secret))
    finally:
        await database.close()
    _write(path, saved)
    client, operator = ServiceKey(**saved["client"]), ServiceKey(**saved["operator"])
    return Installation(client, operator, {rail: ServiceKey(**saved[rail]) for rail in rails})


async def _tenant_and_routes(admin_url: str, rails: Sequence[str]) -> None:
    connection = await asyncpg.connect(admin_url)
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL ROLE fleet_owner; SET LOCAL fleet.every_tenant = 'on'")
            await connection.execute(
                "INSERT INTO fleet.tenants (tenant_id, name) VALUES ($1, 'one machine') ON CONFLICT DO NOTHING", TENANT
            )
            await connection.executemany(
                "INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account)"
                " SELECT $1, $2, $3, $4, $5, $6 WHERE NOT EXISTS (SELECT FROM fleet.routes"
                " WHERE tenant_id = $1 AND operation = $2 AND currency = $3 AND rail = $4)",
                [
                    (TENANT, operation, currency, rail, rail_of(rail).provider, rail_of(rail).account)
                    for rail in rails
                    for operation, currency in rail_of(rail).routes
                ],
            )
    finally:
        await connection.close()


def _read(path: Path) -> dict[str, dict[str, str]]:
    kept: dict[str, dict[str, str]] = json.loads(path.read_text()) if path.exists() else {}
    return kept


def _write(path: Path, keys: Mapping[str, dict[str, str]]) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(keys, file)
