"""The console's listener."""

import asyncio

from core.bootstrap import Core
from core.bus.stream_repair import StreamRepair
from core.console.app import console_app
from core.store.settling.dispatch import PostgresDispatch
from wire.client import StreamServers
from wire.listener import listener, serve_until


async def serve_console(core: Core, stopping: asyncio.Event) -> None:
    """Serve until `stopping`, then finish what is under way."""
    settings = core.settings
    servers = StreamServers(settings.redis_url.get_secret_value(), "core-console")
    try:
        streams = StreamRepair(servers, settings.rail_parts, PostgresDispatch(core.worker_database))
        app = console_app(core, streams)
        await serve_until(stopping, [listener(app, settings.host, settings.console_port, settings.drain_s)])
    finally:
        await servers.aclose()
