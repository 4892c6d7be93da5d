"""One webhook over HTTP: to the address that was checked, bounded in time and size, following nobody elsewhere."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from ssl import SSLContext
from typing import Final

import httpx

from core.domain.webhooks import UrlRefusedError, check_address, check_url
from core.services.told.notify import Answer

Resolve = Callable[[str, int], Awaitable[list[str]]]
_CONNECT_WITHIN_S: Final = 5


async def resolve_by_system(host: str, port: int) -> list[str]:
    """Return the addresses of a name as the machine knows them. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class WebhookSender:
    """Sends to addresses of the public internet alone, unless a developer lets it send to private ones."""

    def __init__(
        self,
        *,
        private: bool,
        total_s: float,
        resolve: Resolve = resolve_by_system,
        trust: SSLContext | None = None,
    ) -> None:
        self._private, self._total_s, self._resolve = private, total_s, resolve
        # Reading the trusted certificates takes longer than a delivery: once.
        self._trust = trust or httpx.create_ssl_context()

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """POST once and return what came of it; raises nothing but cancellation.

        A name is resolved once, all its addresses must be public, and the connection goes to the first of them: what
        the name stands for a moment later does not matter. The certificate is that of the name.
        """
        try:
            async with asyncio.timeout(self._total_s):
                return await self._post(url, headers, body)
        except TimeoutError:
            return Answer(None, "no answer in time")
        except UrlRefusedError as error:
            return Answer(None, f"refused: {error}")
        except (OSError, UnicodeError, httpx.HTTPError, httpx.InvalidURL) as error:
            return Answer(None, type(error).__name__)

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        host, port = check_url(url, private=self._private)
        addresses = await self._resolve(host, port)
        if not addresses:
            raise UrlRefusedError(f"{host} has no address")
        for address in addresses:
            check_address(address, private=self._private)
        asked = httpx.URL(url)
        transport = httpx.AsyncHTTPTransport(verify=self._trust, trust_env=False, retries=0)
        timeout = httpx.Timeout(self._total_s, connect=_CONNECT_WITHIN_S)
        # A connection of its own: one that was opened for another name's certificate is never used again.
        async with httpx.AsyncClient(transport=transport, timeout=timeout, trust_env=False) as client:
            request = client.build_request(
                "POST",
                asked.copy_with(host=addresses[0]),
                content=body,
                headers={**headers, "Host": asked.netloc.decode("ascii"), "Connection": "close"},
                extensions={"sni_hostname": host},
            )
            answer = await client.send(request, stream=True, follow_redirects=False)
            # The body is nobody's concern: it is left where it is, however long.
            await answer.aclose()
        return Answer(answer.status_code, None, _retry_after_s(answer.headers.get("retry-after", "")))


def _retry_after_s(told: str) -> int | None:
    return int(told) if told.isascii() and told.isdigit() and len(told) <= 9 else None
