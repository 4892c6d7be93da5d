"""The console's listener."""

import asyncio

from core.bootstrap import Core
from core.bus.stream_overview import StreamOverview
from core.console.app import console_app
from wire.client import StreamServers
from wire.listener import listener, serve_until


async def serve_console(core: Core, stopping: asyncio.Event) -> None:
    """Serve until `stopping`, then finish what is under way."""
    settings = core.settings
    servers = StreamServers(settings.redis_url.get_secret_value(), "core-console")
    try:
        app = console_app(core, StreamOverview(servers, [part.shard(rail) for rail, part in settings.rail_parts]))
        await serve_until(stopping, [listener(app, settings.host, settings.console_port, settings.drain_s)])
    finally:
        await servers.aclose()
