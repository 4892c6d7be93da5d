"""Secrets, roles and schema: what must be in place before the first process of the fleet starts."""

import json
import os
import secrets
from base64 import b64encode
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from core.store.migrate import migrate


@dataclass(frozen=True, slots=True)
class Secrets:
    """What one installation generated for itself; never logged."""

    app_password: str
    worker_password: str
    master_key: str  # base64 of 32 bytes
    adapter_redis_password: str
    core_redis_password: str

    @classmethod
    def generate(cls) -> "Secrets":
        """Return fresh secrets from the operating system's generator."""
        return cls(
            app_password=secrets.token_urlsafe(24),
            worker_password=secrets.token_urlsafe(24),
            master_key=b64encode(secrets.token_bytes(32)).decode(),
            adapter_redis_password=secrets.token_urlsafe(24),
            core_redis_password=secrets.token_urlsafe(24),
        )

    @classmethod
    def load_or_create(cls, path: Path) -> "Secrets":
        """Read the file, or write a new one that only its owner may read; what an older file lacks is added to it."""
        made = cls.generate()
        if path.exists():
            kept = json.loads(path.read_text())
            if asdict(made).keys() == kept.keys():
                return cls(**kept)
            made = replace(made, **kept)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written aside and renamed: a reader never meets half a file, and the mode holds from the first byte.
        aside = path.with_suffix(".new")
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(made), file)
        aside.rename(path)
        return made


@dataclass(frozen=True, slots=True)
class RoleUrls:
    """One database, seen by each role."""

    admin: str
    app: str
    worker: str


def with_login(url: str, user: str, password: str) -> str:
    """Return `url` with another user and password; host, port, database and options stay."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(user)}:{quote(password)}@{host}"))


def with_database(url: str, name: str) -> str:
    """Return `url` pointing at another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{quote(name)}"))


def role_urls(admin_url: str, kept: Secrets) -> RoleUrls:
    """Return the URLs of the roles for the database that `admin_url` names."""
    return RoleUrls(
        admin=admin_url,
        app=with_login(admin_url, "fleet_app", kept.app_password),
        worker=with_login(admin_url, "fleet_worker", kept.worker_password),
    )


async def create_database(admin_url: str, name: str, template: str = "template1") -> str:
    """Create the database unless it exists; return the administrator's URL of it."""
    connection = await asyncpg.connect(admin_url)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    finally:
        await connection.close()
    return with_database(admin_url, name)


async def drop_database(admin_url: str, name: str) -> None:
    """Drop the database if it exists, ending the sessions that still use it."""
    connection = await asyncpg.connect(admin_url)
    try:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    finally:
        await connection.close()


async def provision(admin_url: str, kept: Secrets) -> RoleUrls:
    """Bring the database's schema up to date, give the roles their passwords, return the roles' URLs."""
    await migrate(admin_url)
    connection = await asyncpg.connect(admin_url)
    try:
        for role, password in (("fleet_app", kept.app_password), ("fleet_worker", kept.worker_password)):
            # ALTER ROLE takes no parameters; the passwords are URL-safe by construction, yet quoted by the server.
            statement = await connection.fetchval(
                "SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)", role, password
            )
            await connection.execute(statement)
    finally:
        await connection.close()
    return role_urls(admin_url, kept)
