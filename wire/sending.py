"""HTTP requests that leave once: whether one is repeated is decided by who knows what it means."""

import aiohttp
from httpx_aiohttp import AiohttpTransport


def sends_once(session: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """Return the session, which repeats nothing by itself any more.

    Where a connection is lost, aiohttp sends a GET, PUT or DELETE again at once, headers and all: the core refuses the
    nonce of a request that it has seen, and a provider is called twice within a time, a rate and a count that know of
    one call.
    """
    session._retry_connection = False  # noqa: SLF001 - there is no option; aiohttp's own test client does so too
    return session


class OnceTransport(AiohttpTransport):
    """aiohttp's connections for an httpx client; each request is sent once."""

    def get_client(self) -> aiohttp.ClientSession:
        """Return the session of these connections."""
        return sends_once(super().get_client())
