"""The HTTP client of every rail: explicit time-outs, bounded connections, no retries, honest errors.

httpx's own pool scans quadratically with hundreds of connections, so the connections are aiohttp's
(`httpx-aiohttp`). That transport reports *every* broken connection as ConnectTimeout, also one that broke
after the request had left; read as "never sent" that would pay twice. Here a failure counts as a connect
failure only where aiohttp itself says that no connection came about.
"""

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

_NEVER_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class HonestTransport(AiohttpTransport):
    """aiohttp's connections with errors that never call a sent request unsent."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request once. Raises httpx.ConnectError/ConnectTimeout only if nothing was sent."""
        try:
            return await super().handle_async_request(request)
        except (httpx.ConnectTimeout, httpx.ConnectError) as error:
            if isinstance(error.__cause__, _NEVER_CONNECTED):
                raise
            raise httpx.ReadError(f"connection lost after sending: {error}", request=request) from error
        except aiohttp.ClientError as error:
            # What the transport leaves unmapped, such as a status line that is none: something answered.
            name = type(error).__name__
            raise httpx.RemoteProtocolError(f"the answer is not HTTP: {name}", request=request) from error


def provider_client(
    base_url: str, *, call_total_s: float, connect_s: float, max_connections: int, verify: bool = True
) -> httpx.AsyncClient:
    """Return a client for one provider. All durations are seconds; the runtime adds the total of T_psp.

    Redirects are not followed (a payment is never re-sent to another address) and the environment's proxies
    are not read.
    """
    limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
    return httpx.AsyncClient(
        base_url=base_url,
        timeout=httpx.Timeout(call_total_s, connect=connect_s, pool=connect_s),
        transport=HonestTransport(verify=verify, trust_env=False, limits=limits),
        follow_redirects=False,
        trust_env=False,
    )
