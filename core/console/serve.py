"""The console's listener."""

import asyncio

from core.bootstrap import Core
from core.bus.stream_overview import StreamOverview
from core.console.app import console_app
from wire.client import connect_redis
from wire.listener import listener, serve_until


async def serve_console(core: Core, stopping: asyncio.Event) -> None:
    """Serve until `stopping`, then finish what is under way."""
    settings = core.settings
    client = connect_redis(settings.redis_url.get_secret_value(), "core-console")
    try:
        app = console_app(core, StreamOverview(client, settings.rail_names))
        await serve_until(stopping, [listener(app, settings.host, settings.console_port, settings.drain_s)])
    finally:
        await client.aclose()
