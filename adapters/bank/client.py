"""The bank's two doors: files go in at one, messages wait behind the other. It knows no jobs and repeats nothing.

The dialect is mock-bank's (`POST /payments`, a numbered mailbox that reading does not empty). A bank that is reached
by folders of an SFTP host needs these two methods and nothing else.
"""

import httpx

from adapters.runtime import errors

_XML = "application/xml; charset=utf-8"


class BankClient:
    """Speaks to the bank over a client whose time-outs the runtime set."""

    def __init__(self, http: httpx.AsyncClient, user: str = "", password: str = "") -> None:
        self._http = http
        self._auth = httpx.BasicAuth(user, password) if user else None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def hand_in(self, file: bytes) -> None:
        """Hand in a file; what became of it is told by messages alone. Raises NotSent, Indeterminate, Misconfigured."""
        response = await self._ask("POST", "/payments", content=file)
        # 422 refuses the file as a whole, and a report in the mailbox says why.
        if response.status_code not in (httpx.codes.ACCEPTED, httpx.codes.UNPROCESSABLE_ENTITY):
            raise errors.Indeterminate(f"HTTP {response.status_code}", reason="provider_error")

    async def message(self, number: int) -> bytes | None:
        """Return one message, None where there is none yet. Raises NotSent, Indeterminate, Misconfigured."""
        response = await self._ask("GET", f"/_mock/mailbox/{number}")
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        if not response.is_success:
            raise errors.Indeterminate(f"HTTP {response.status_code}", reason="provider_error")
        return response.content

    async def _ask(self, method: str, path: str, content: bytes | None = None) -> httpx.Response:
        headers = {"Content-Type": _XML} if content is not None else {}
        try:
            response = await self._http.request(
                method, path, content=content, headers=headers, auth=self._auth or httpx.USE_CLIENT_DEFAULT
            )
        except httpx.HTTPError as error:
            raise errors.transport_error(error) from error
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise errors.Misconfigured(f"the bank refuses our credentials: {response.status_code}")
        return response
