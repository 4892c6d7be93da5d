"""Schema, roles' passwords, the first tenant, its routes and its keys: each run adds only what is missing."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg

from core.store.migrate import migrate
from fleet.stack.installation import Installation, install
from fleet.stack.provision import RoleUrls


async def bring_up_to_date(urls: RoleUrls) -> list[str]:
    """Migrate, then give the two roles the passwords that their own addresses carry; what was applied.

    Raises MigrationError, ValueError for an address without user or password, and asyncpg's errors.
    """
    logins = [_login(url) for url in (urls.app, urls.worker)]
    applied = await migrate(urls.admin)
    connection = await asyncpg.connect(urls.admin, statement_cache_size=0)
    try:
        for role, password in logins:
            # ALTER ROLE takes no parameters: the server itself quotes both.
            statement = await connection.fetchval(
                "SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)", role, password
            )
            await connection.execute(statement)
    finally:
        await connection.close()
    return applied


async def set_up(home: Path, urls: RoleUrls, master_key: str, rails: Sequence[str]) -> Installation:
    """Bring the database up to date and create tenant, routes and keys; each key's files go to its reader's folder."""
    await bring_up_to_date(urls)
    made = await install(home / "setup" / "keys.json", urls, master_key, rails)
    for rail, key in made.rails.items():
        _write_key(home / f"rail-{rail}", asdict(key), "core_key_")
    _write_key(home / "client", asdict(made.client), "key_")
    _write_key(home / "client", asdict(made.operator), "operator_")
    return made


def _write_key(folder: Path, key: dict[str, str], prefix: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in key.items():
        path = folder / f"{prefix}{name}"
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o444)


def _login(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    if not parts.username or not parts.password:
        raise ValueError("an address of a role carries its user and its password")
    return unquote(parts.username), unquote(parts.password)
