"""Service keys: who may ask, for what. Verified from memory; a revocation is obeyed within seconds."""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol
from uuid import UUID

from pydantic import ValidationError

from core.domain.context import Context
from core.domain.registry import OPERATIONS
from core.services.access.nonces import RecentNonces
from core.services.problems import Refusal
from core.services.terms.quotas import Quotas
from core.services.vault_port import Vault
from schemas.api import OnBehalfOf
from schemas.limits import QuotaObject
from schemas.operations import OperationType
from wire.signing import TOLERANCE_S, canonical, digest_of, verify

_READS: Final = frozenset({"GET", "HEAD"})
"""Methods that change nothing."""
ANY: Final = "*"
"""Every operation and scope, but those of NAMED_ONLY."""
WALLETS_SCOPE: Final = "WALLETS"
"""What a key must carry to open wallets."""
WEBHOOKS_SCOPE: Final = "WEBHOOKS"
"""What a key must carry, and no list of wallets beside it, to say where events are sent."""
FEES_SCOPE: Final = "FEES"
"""What a key must carry to set fee rules."""
LIMITS_SCOPE: Final = "LIMITS"
"""What a key must carry to set limits and the tiers of wallets."""
RATES_SCOPE: Final = "RATES"
"""What a key must carry to set pairs and rates of exchange."""
LIQUIDITY_SCOPE: Final = "LIQUIDITY"
"""What a key must carry to see liquidity, to let it be overdrawn and, beside MANUAL_ADJUSTMENT, to move it by hand."""
DEBIT_SCOPE: Final = "ADJUSTMENT_DEBIT"
"""What a key must carry, beside MANUAL_ADJUSTMENT, to take money out of a wallet by hand."""
ADJUSTMENT_ALONE_SCOPE: Final = "ADJUSTMENT_ALONE"
"""What a key must carry, beside MANUAL_ADJUSTMENT, to adjust without a second key: for imports of opening balances."""
SUSPENSE_SCOPE: Final = "SUSPENSE"
"""What a key must carry, beside REFUND, to give to a wallet what rests in suspense."""
REVIEW_SCOPE: Final = "REVIEW"
"""What a key must carry to see and decide reviews."""
WALLET_STATES_SCOPE: Final = "WALLET_STATES"
"""What a key must carry to freeze, unfreeze and close wallets."""
TENANTS_SCOPE: Final = "TENANTS"
"""What a key must carry to make tenants and see them all."""
DEAD_LETTERS_SCOPE: Final = "DEAD_LETTERS"
"""What a key must carry to see dead letters and to ask for redrives, discards and settlements by hand."""
REDRIVE_APPROVAL_SCOPE: Final = "REDRIVE_APPROVAL"
"""What a key must carry to approve or reject what another asked for."""
AUDIT_SCOPE: Final = "AUDIT"
"""What a key must carry to read the audit journal."""
RECONCILIATION_SCOPE: Final = "RECONCILIATION"
"""What a key must carry to see breaks and to put them right."""
RAILS_SCOPE: Final = "RAILS"
"""What a key of the system's tenant must carry to see rails and streams, to pause and to repair them."""
REVEAL_SCOPE: Final = "REVEAL"
"""What a key must carry to see a payment's personal data in the clear."""
NAMED_ONLY: Final[frozenset[str]] = frozenset(
    {
        *(operation.type for operation in OPERATIONS.values() if operation.named_only),
        DEBIT_SCOPE,
        ADJUSTMENT_ALONE_SCOPE,
        FEES_SCOPE,
        LIMITS_SCOPE,
        RATES_SCOPE,
        LIQUIDITY_SCOPE,
        SUSPENSE_SCOPE,
        REVIEW_SCOPE,
        TENANTS_SCOPE,
        WALLET_STATES_SCOPE,
        DEAD_LETTERS_SCOPE,
        REDRIVE_APPROVAL_SCOPE,
        AUDIT_SCOPE,
        RECONCILIATION_SCOPE,
        RAILS_SCOPE,
        REVEAL_SCOPE,
    }
)
"""What makes money out of equity, takes from another's wallet, or sets what others pay or may pay, is carried by a key
that names it; `*` does not."""
KNOWN_SCOPES: Final[frozenset[str]] = frozenset({ANY, WALLETS_SCOPE, WEBHOOKS_SCOPE, *NAMED_ONLY, *OperationType})
"""Whatever a key may carry."""
OPERATORS_ONLY: Final[frozenset[str]] = frozenset(
    {WEBHOOKS_SCOPE, *NAMED_ONLY}
    - {WALLET_STATES_SCOPE, *(each.type for each in OPERATIONS.values() if each.refundable)}
)
"""What is the tenant's business and no user's: no key does it while it acts for a user, whatever it carries."""
_SECRET_BYTES: Final = 32
_KEY_ID_LONGEST: Final = 64
_PAUSE_S: Final = 0.1
"""Between two look-ups of one key: bad signatures cost the database no more than this, however many come."""
_REMEMBERED: Final = 10_000
_NONCE_SIGNS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is stored: its secrets are sealed."""

    id: str
    tenant_id: UUID
    kind: Literal["service", "rail"]
    rail: str | None
    name: str
    operations: frozenset[str]
    accounts: frozenset[UUID] | None
    secret: bytes
    secret_next: bytes | None = None
    revoked: bool = False
    serves: frozenset[UUID] | None = None
    """Of a rail's key: the tenants whose payments its adapter may carry; None for every tenant."""
    acts_for_users: bool = False
    """Whether each of its requests must say for which user it is made."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who signed the request, and what the key permits."""

    key_id: str
    tenant_id: UUID
    kind: str
    rail: str | None
    operations: frozenset[str]
    accounts: frozenset[UUID] | None
    serves: frozenset[UUID] | None = None
    acts_for_users: bool = False
    acting: OnBehalfOf | None = None
    """Whom the request is made for."""

    @property
    def actor(self) -> str:
        """Who acts, and the user that the key acts for."""
        actor = self.key_id if self.kind == "person" else f"key:{self.key_id}"
        if self.acting is not None:
            actor += f" for {self.acting.user}" + (f" by {self.acting.agent}" if self.acting.agent else "")
        return actor

    def context(self, traceparent: str | None = None) -> Context:
        """Return the context of a use case."""
        return Context(self.tenant_id, self.actor, traceparent)

    def require_operation(self, operation: str) -> None:
        """Raise Refusal `operation_not_permitted` unless the key carries it, and may while it acts for a user."""
        if self.acting is not None and operation in OPERATORS_ONLY:
            text = f"{operation} is not done for a user: leave Fleet-On-Behalf-Of out"
            raise Refusal("operation_not_permitted", text, field="Fleet-On-Behalf-Of")
        if operation in self.operations or (ANY in self.operations and operation not in NAMED_ONLY):
            return
        text = f"this key does not carry {operation}: use one whose operations name it"
        raise Refusal("operation_not_permitted", text, field="operation")

    def require_account(self, wallet_id: UUID) -> None:
        """Raise Refusal `account_not_permitted` unless the key covers the wallet."""
        if self.accounts is not None and wallet_id not in self.accounts:
            raise Refusal("account_not_permitted", "this key does not cover the wallet", field="wallet_id")


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What is signed, as it came in."""

    method: str
    path: str
    query: str
    body: bytes
    key_id: str
    timestamp: str
    nonce: str
    signature: str
    on_behalf_of: str | None = None
    idempotency_key: str | None = None
    digest: str | None = None
    """The SHA-256 of a body that has not been read yet, as the request tells it."""


@dataclass(slots=True)
class HeldNonce:
    """The nonce of a request whose signature fits. It is spent with the first thing that the request changes.

    `is_spent` is set by whoever has committed that, or has found that it was seen before.
    """

    tenant_id: UUID
    key_id: str
    text: str
    is_spent: bool = False


class KeyFinder(Protocol):
    """Finds keys before the tenant is known."""

    async def find_key(self, key_id: str) -> StoredKey | None: ...


class Nonces(Protocol):
    """Claims a nonce; False where it was seen before."""

    async def claim(self, tenant_id: UUID, key_id: str, nonce: str) -> bool: ...


class Keyring(Protocol):
    """What creating, rotating and revoking need."""

    async def insert_key(self, uow: Any, key: StoredKey) -> None: ...
    async def set_secrets(self, uow: Any, key_id: str, secret: bytes, secret_next: bytes | None) -> bool: ...
    async def revoke_key(self, uow: Any, key_id: str) -> bool: ...
    async def find_key(self, key_id: str) -> StoredKey | None: ...
    async def list_keys(self, uow: Any, tenant_id: UUID | None) -> Sequence[StoredKey]: ...


@dataclass(frozen=True, slots=True)
class _Live:
    caller: Caller
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _LookedUp:
    at_s: float
    """When the look-up began: what was committed before is in it."""
    found: _Live | None


class Authenticator:
    """Checks signatures. A key is looked up anew after `fresh_s` seconds, so a revocation holds within them.

    A signature that does not fit is refused only after a look-up that began since its request came, so a key and a
    secret count from the moment they are made. Such look-ups are one per key and `_PAUSE_S`, whoever waits for them.
    """

    def __init__(
        self,
        finder: KeyFinder,
        nonces: Nonces,
        vault: Vault,
        *,
        fresh_s: int = 2,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._finder, self._nonces, self._vault = finder, nonces, vault
        self._read = RecentNonces()
        self._fresh_s, self._clock = fresh_s, clock
        self._known: dict[str, _LookedUp] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}

    async def authenticate(self, request: SignedRequest) -> Caller:
        """Return who signed. Raises Refusal: unauthenticated, stale_timestamp, replayed_nonce, invalid_request."""
        caller, nonce = await self.examine(request)
        if request.method in _READS:
            # A read that is repeated changes nothing, and has to be answered where nothing can be written.
            nonce.is_spent = self._read.claim(nonce.tenant_id, nonce.key_id, nonce.text)
            if not nonce.is_spent:
                raise replayed()
        await self.spend(nonce)
        return acting_of(caller, request)

    async def living(self, key_id: str) -> Caller:
        """Return whose key it is, as it was within `fresh_s`. Raises Refusal `unauthenticated` where it was revoked."""
        live = await self._key(key_id, time.monotonic() - self._fresh_s)
        if live is None:
            raise _unauthenticated("the key was revoked")
        return live.caller

    async def examine(self, request: SignedRequest) -> tuple[Caller, HeldNonce]:
        """Return whose key signed, whomever it acts for, and the nonce, which nobody has looked at yet.

        Raises Refusal: unauthenticated, stale_timestamp.
        """
        self._check_time(request.timestamp)
        if not 8 <= len(request.nonce) <= 64 or not _NONCE_SIGNS.issuperset(request.nonce):
            raise _unauthenticated("the nonce is 8 to 64 characters out of A-Z a-z 0-9 _ -")
        # Spent after the signature is checked: a stranger can burn nobody's nonces.
        caller = await self._signer(request)
        return caller, HeldNonce(caller.tenant_id, request.key_id, request.nonce)

    async def spend(self, nonce: HeldNonce) -> None:
        """Spend the nonce unless it is spent. Raises Refusal `replayed_nonce` where it was seen before."""
        if nonce.is_spent:
            return
        nonce.is_spent = True
        if not await self._nonces.claim(nonce.tenant_id, nonce.key_id, nonce.text):
            raise replayed()

    async def _signer(self, request: SignedRequest) -> Caller:
        digest = request.digest or digest_of(request.body)
        # A caller that does not sign its Idempotency-Key is heard too; one that does is heard under no other key.
        told = dict.fromkeys((request.idempotency_key, None))
        came_at_s = time.monotonic()
        for since_s in (came_at_s - self._fresh_s, came_at_s):
            live = await self._key(request.key_id, since_s)
            if live is not None and any(
                verify(live.secrets, _text(request, digest, key), request.signature) for key in told
            ):
                return live.caller
        raise _unauthenticated("no live key made this signature: see docs/signing.md")

    def _check_time(self, timestamp: str) -> None:
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
            raise _unauthenticated("Fleet-Timestamp is whole seconds since 1970")
        if abs(self._clock() - int(timestamp)) > TOLERANCE_S:
            raise Refusal("stale_timestamp", f"the timestamp is more than {TOLERANCE_S} s off: set the clock by NTP")

    async def _key(self, key_id: str, since_s: float) -> _Live | None:
        """Return the key as it was looked up at `since_s` or later, None where none lives."""
        if not 0 < len(key_id) <= _KEY_ID_LONGEST:
            return None
        while (known := self._known.get(key_id)) is None or known.at_s < since_s:
            task = self._looking.get(key_id)
            if task is None:
                # One look-up for all the requests that wait for it.
                wait_s = 0.0 if known is None else known.at_s + _PAUSE_S - time.monotonic()
                task = self._looking[key_id] = asyncio.create_task(self._look_up(key_id, wait_s))
            await asyncio.shield(task)
        return known.found

    async def _look_up(self, key_id: str, wait_s: float) -> None:
        try:
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            at_s = time.monotonic()
            stored = await self._finder.find_key(key_id)
        finally:
            # In its last step, not in a callback after it: to await a look-up that is done lets nothing else run, so
            # whoever found it here in between, and came after it began, would go round for ever.
            del self._looking[key_id]
        found = None if stored is None or stored.revoked else self._live(stored)
        if found is None and len(self._known) >= _REMEMBERED:
            # Only strangers name keys without end: what is forgotten of them is looked up again.
            self._known = {name: known for name, known in self._known.items() if known.found is not None}
        self._known[key_id] = _LookedUp(at_s, found)

    def _live(self, stored: StoredKey) -> _Live:
        sealed = [text for text in (stored.secret, stored.secret_next) if text is not None]
        opened = tuple(self._vault.open_bytes(text, bound_to=_binding(stored.id)).decode() for text in sealed)
        caller = Caller(
            stored.id,
            stored.tenant_id,
            stored.kind,
            stored.rail,
            stored.operations,
            stored.accounts,
            stored.serves,
            stored.acts_for_users,
        )
        return _Live(caller, opened)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made; the secret is shown this once."""

    id: str
    secret: str


class KeyService:
    """Creates, rotates and revokes keys, under the worker role."""

    def __init__(
        self,
        unit_of_work: Callable[[Context], AbstractAsyncContextManager[Any]],
        keyring: Keyring,
        vault: Vault,
        quotas: Quotas,
    ) -> None:
        self._unit_of_work, self._keyring, self._vault = unit_of_work, keyring, vault
        self._quotas = quotas

    async def create(
        self,
        context: Context,
        *,
        tenant_id: UUID,
        name: str,
        operations: Sequence[str] = (ANY,),
        accounts: Sequence[UUID] | None = None,
        rail: str | None = None,
        serves: Sequence[UUID] | None = None,
        acts_for_users: bool = False,
    ) -> NewKey:
        """Make a key of a tenant, or of a rail's adapter where `rail` is given; that may be for some tenants only.

        Raises Refusal `limit_exceeded` where the tenant's quota of keys leaves no room; adapters' keys are not counted.
        """
        async with self._unit_of_work(context) as uow:
            return await self.create_in(
                uow,
                tenant_id=tenant_id,
                name=name,
                operations=operations,
                accounts=accounts,
                rail=rail,
                serves=serves,
                acts_for_users=acts_for_users,
            )

    async def create_in(
        self,
        uow: Any,
        *,
        tenant_id: UUID,
        name: str,
        operations: Sequence[str] = (ANY,),
        accounts: Sequence[UUID] | None = None,
        rail: str | None = None,
        serves: Sequence[UUID] | None = None,
        acts_for_users: bool = False,
    ) -> NewKey:
        """Make a key within a transaction; see `create`."""
        key_id = f"{'rk' if rail else 'fk'}_{secrets.token_urlsafe(12)}"
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        stored = StoredKey(
            id=key_id,
            tenant_id=tenant_id,
            kind="rail" if rail else "service",
            rail=rail,
            name=name,
            operations=frozenset(operations),
            accounts=None if accounts is None else frozenset(accounts),
            secret=self._seal(key_id, secret),
            serves=None if serves is None else frozenset(serves),
            acts_for_users=acts_for_users,
        )
        await self._keyring.insert_key(uow, stored)
        if rail is None:
            await self._quotas.check(uow, tenant_id, QuotaObject.KEYS)
        return NewKey(key_id, secret)

    async def rotate(self, context: Context, key_id: str) -> NewKey:
        """Make a new secret; the one before it stays live until the next rotation. Raises Refusal `not_found`."""
        stored = await self._keyring.find_key(key_id)
        if stored is None or stored.revoked:
            raise Refusal("not_found", f"there is no live key {key_id[:64]}")
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        async with self._unit_of_work(context) as uow:
            await self._keyring.set_secrets(uow, key_id, self._seal(key_id, secret), stored.secret)
        return NewKey(key_id, secret)

    async def revoke(self, context: Context, key_id: str) -> None:
        """Revoke for good; obeyed everywhere within seconds. Raises Refusal `not_found`."""
        async with self._unit_of_work(context) as uow:
            if not await self._keyring.revoke_key(uow, key_id):
                raise Refusal("not_found", f"there is no live key {key_id[:64]}")

    async def list_keys(self, uow: Any, tenant_id: UUID | None) -> Sequence[StoredKey]:
        """Return the keys of a tenant, or all, revoked ones too, the oldest first; their secrets are sealed."""
        return await self._keyring.list_keys(uow, tenant_id)

    def _seal(self, key_id: str, secret: str) -> bytes:
        return self._vault.seal_bytes(secret.encode(), bound_to=_binding(key_id))


def replayed() -> Refusal:
    """Return the refusal of a nonce that was seen before."""
    return Refusal("replayed_nonce", "sign every request, repeats too, with a nonce of its own")


def acting_of(caller: Caller, request: SignedRequest) -> Caller:
    """Return the caller as who signed says to act. Raises Refusal `invalid_request`."""
    return caller if request.on_behalf_of is None else replace(caller, acting=_acting(request.on_behalf_of))


def _acting(told: str) -> OnBehalfOf:
    user, _, agent = told.partition(" ")
    try:
        return OnBehalfOf(user=user, agent=agent or None)
    except ValidationError as error:
        text = "Fleet-On-Behalf-Of is a user, and after a space who acts: visible ASCII characters, at most 64 each"
        raise Refusal("invalid_request", text, field="Fleet-On-Behalf-Of") from error


def _binding(key_id: str) -> str:
    return f"service-key:{key_id}"


def _text(request: SignedRequest, digest: str, idempotency_key: str | None) -> bytes:
    return canonical(
        method=request.method,
        path=request.path,
        query=request.query,
        body=request.body,
        key_id=request.key_id,
        timestamp=request.timestamp,
        nonce=request.nonce,
        on_behalf_of=request.on_behalf_of,
        idempotency_key=idempotency_key,
        digest=digest,
    )


def _unauthenticated(detail: str) -> Refusal:
    return Refusal("unauthenticated", detail)
