"""A console over a core with dead letters in it, without its listener; and people who use it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from core.console.app import console_app
from core.domain.roles import Role
from core.services.access import people
from fleet.stack.provision import RoleUrls
from tests.integration.permits.conftest import World, open_world
from tests.support.browsing import Browser

PASSWORD = "a long enough password"


@dataclass
class ConsoleWorld:
    """The console, and a browser for each person."""

    world: World
    app: FastAPI
    stack: AsyncExitStack
    browsers: dict[str, Browser] = field(default_factory=dict)

    async def stranger(self, **more: Any) -> Browser:
        """Return a browser that nobody has signed in with."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        http = httpx.AsyncClient(transport=transport, base_url="http://console.test", **more)
        return Browser(await self.stack.enter_async_context(http))

    async def person(self, role: Role, name: str = "") -> Browser:
        """Return the browser of somebody of this role, signed in."""
        name = name or role.value
        if name not in self.browsers:
            await self.world.core.people.add("test", name=name, role=role, password=PASSWORD)
            browser = await self.stranger()
            await browser.sign_in(name, PASSWORD)
            self.browsers[name] = browser
        return self.browsers[name]


@pytest.fixture
async def console(
    fresh_database: RoleUrls, admin_connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ConsoleWorld]:
    """A console whose passwords are hashed cheaply; what they cost is no matter here."""
    monkeypatch.setitem(people._SCRYPT, "n", 2)
    async with open_world(fresh_database, admin_connection) as world, AsyncExitStack() as stack:
        await world.register(inquiry=True, deduplicates_reference=True, dedup_window_s=3600)
        yield ConsoleWorld(world, console_app(world.core), stack)
