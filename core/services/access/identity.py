"""What an identity provider says of a person, and which role and tenant follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from core.domain.roles import Role
from core.services.access.people import SYSTEM_TENANT, Identity
from core.services.problems import Refusal


class IssuerError(RuntimeError):
    """The identity provider is away, or its answer is not one that we may trust; the text has no token in it."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in that was begun; all but `url` stays with the browser, sealed, until it comes back."""

    url: str
    state: str
    nonce: str
    verifier: str


class Issuer(Protocol):
    """An identity provider: OpenID Connect by authorization code with PKCE, and bearer tokens."""

    async def begin(self, redirect_uri: str) -> Begun:
        """Return where to send the browser. Raises IssuerError."""
        ...

    async def finish(self, redirect_uri: str, code: str, begun: Begun) -> Mapping[str, Any]:
        """Redeem the code and return the claims of a checked id token. Raises IssuerError."""
        ...

    async def bearer(self, token: str) -> Mapping[str, Any]:
        """Return the claims of a checked bearer token for the API. Raises IssuerError."""
        ...


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """Which claims name a person, their role and their tenant."""

    name_claim: str
    role_claim: str
    roles: Mapping[str, Role]
    tenant_claim: str = ""

    def identity(self, claims: Mapping[str, Any]) -> Identity:
        """Return who is meant. Raises Refusal: sign_in_refused, role_missing."""
        issuer, subject, name = claims.get("iss"), claims.get("sub"), claims.get(self.name_claim)
        if not (isinstance(issuer, str) and isinstance(subject, str) and isinstance(name, str) and subject and name):
            raise Refusal("sign_in_refused", f"the identity provider names nobody: {self.name_claim} is needed")
        given = claims.get(self.role_claim, ())
        values = [given] if isinstance(given, str) else given if isinstance(given, list) else []
        roles = [self.roles[value] for value in values if isinstance(value, str) and value in self.roles]
        if not roles:
            raise Refusal("role_missing", f"no value of the claim {self.role_claim} is a role here: ask who keeps them")
        highest = next(role for role in reversed(Role) if role in roles)
        return Identity(issuer, subject, name.strip().lower(), highest, self._tenant(claims))

    def _tenant(self, claims: Mapping[str, Any]) -> UUID:
        if not self.tenant_claim:
            return SYSTEM_TENANT
        try:
            return UUID(str(claims.get(self.tenant_claim)))
        except ValueError as error:
            raise Refusal("sign_in_refused", f"the claim {self.tenant_claim} names no tenant") from error


def roles_of(text: str) -> dict[str, Role]:
    """Return the roles by claim value out of `VALUE=ROLE,…`, as the settings have checked it."""
    parts = (part.rpartition("=") for part in text.split(",") if part.strip())
    return {value.strip(): Role(role.strip()) for value, _, role in parts}
