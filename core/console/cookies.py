"""Cookies and the tokens of forms. Behind TLS a cookie has the prefix that binds it to this host alone."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

SESSION: Final = "session"
DOOR: Final = "door"
"""Of a browser that is not signed in yet: what its sign-in form is bound to."""
SIGN_IN: Final = "sign-in"
"""A sign-in that is at the identity provider, sealed."""
_LIVES_S: Final = {SIGN_IN: 600}


@dataclass(frozen=True, slots=True)
class Cookies:
    """Reads and writes cookies; `secure` is whether browsers come by https."""

    secure: bool

    def read(self, request: Request, name: str) -> str:
        """Return a cookie, or an empty text."""
        return request.cookies.get(self._name(name), "")

    def write(self, response: Response, name: str, value: str | None) -> None:
        """Set a cookie that no script reads and no other site sends; None deletes it."""
        if value is None:
            response.delete_cookie(self._name(name), path="/", secure=self.secure, httponly=True, samesite="lax")
            return
        response.set_cookie(
            self._name(name),
            value,
            max_age=_LIVES_S.get(name),
            path="/",
            secure=self.secure,
            httponly=True,
            # Lax, so that a person comes back from the identity provider signed in; what changes something is a POST.
            samesite="lax",
        )

    def _name(self, name: str) -> str:
        return f"__Host-fleet-{name}" if self.secure else f"fleet-{name}"


def form_token(cookie: str) -> str:
    """Return what every form of the session carries; nobody without the cookie can make it."""
    return hmac.new(cookie.encode(), b"psp-fleet console form", hashlib.sha256).hexdigest()


def is_form_token(cookie: str, given: str) -> bool:
    """Whether a form was made for this cookie."""
    return bool(cookie) and hmac.compare_digest(form_token(cookie).encode(), given.encode())
