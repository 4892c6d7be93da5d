"""People of the console: who they are, what their role lets them do, their passwords and sessions."""

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.ids import mint_id
from core.domain.roles import Role
from core.services.access.keys import (
    AUDIT_SCOPE,
    DEAD_LETTERS_SCOPE,
    RAILS_SCOPE,
    RECONCILIATION_SCOPE,
    REDRIVE_APPROVAL_SCOPE,
    REVEAL_SCOPE,
    REVIEW_SCOPE,
    SUSPENSE_SCOPE,
    Caller,
)
from core.services.on_call.audit import Act, Journal
from core.services.problems import Refusal

SYSTEM_TENANT: Final = UUID(int=0)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")
_PASSWORD_SHORTEST: Final = 12
_PASSWORD_LONGEST: Final = 200
_SCRYPT: Final = {"n": 2**15, "r": 8, "p": 1, "maxmem": 64 * 1024 * 1024}
_FREE_FAILURES: Final = 5
"""So many wrong passwords cost nothing; each further one doubles the wait."""
_LONGEST_WAIT_S: Final = 300
_SEEN_EVERY: Final = timedelta(seconds=30)
"""A session in use is marked so at most this often."""

_READS: Final = frozenset(
    {DEAD_LETTERS_SCOPE, RECONCILIATION_SCOPE, SUSPENSE_SCOPE, REVIEW_SCOPE, AUDIT_SCOPE, RAILS_SCOPE}
)
# Scopes say what is reached; whether it may be changed is the role that each screen and route demands.
_SCOPES: Final = {
    Role.VIEWER: _READS,
    Role.OPERATOR: _READS | {REVEAL_SCOPE},
    Role.APPROVER: _READS | {REDRIVE_APPROVAL_SCOPE, REVEAL_SCOPE},
    Role.ADMIN: _READS | {REDRIVE_APPROVAL_SCOPE, REVEAL_SCOPE},
}


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may sign in; `secret` is the hash of a local password."""

    id: UUID
    tenant_id: UUID
    name: str
    role: Role
    secret: str | None = None
    issuer: str | None = None
    subject: str | None = None
    created_by: str = ""
    created_at: datetime | None = None
    revoked_at: datetime | None = None

    @property
    def everywhere(self) -> bool:
        """Whether they see every tenant's rows."""
        return self.tenant_id == SYSTEM_TENANT

    def caller(self) -> Caller:
        """Return them as use cases know whoever asks."""
        return caller_of(self.name, self.tenant_id, self.role)

    def acting_in(self, tenant_id: UUID) -> Caller:
        """Return them as one of a tenant; the system's people act in whichever tenant has what they decide about."""
        return replace(self.caller(), tenant_id=tenant_id if self.everywhere else self.tenant_id)


def caller_of(name: str, tenant_id: UUID, role: Role) -> Caller:
    """Return a person as use cases know whoever asks: named in events, audit and approvals as `person:NAME`."""
    return Caller(f"person:{name}", tenant_id, "person", None, _SCOPES[role], None)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom an identity provider vouches for."""

    issuer: str
    subject: str
    name: str
    role: Role
    tenant_id: UUID


@dataclass(frozen=True, slots=True)
class Session:
    """A session that is in force."""

    hash: bytes
    person: Person
    acting_tenant: UUID | None
    seen_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SignIn:
    """A session that was just opened; the token is the cookie and is kept nowhere else."""

    token: str
    person: Person


class PeopleStore(Protocol):
    """Where people and their sessions are kept."""

    async def insert(self, uow: Any, person: Person) -> bool: ...
    async def find(self, uow: Any, name: str) -> Person | None: ...
    async def find_subject(self, uow: Any, issuer: str, subject: str) -> Person | None: ...
    async def page(self, uow: Any, tenant_id: UUID | None) -> list[Person]: ...
    async def change(self, uow: Any, person_id: UUID, **changed: Any) -> None: ...
    async def open_session(self, uow: Any, session_hash: bytes, person: Person, expires_at: datetime) -> None: ...
    async def find_session(self, uow: Any, session_hash: bytes) -> Session | None: ...
    async def touch_session(self, uow: Any, session_hash: bytes) -> None: ...
    async def act_in(self, uow: Any, session_hash: bytes, tenant_id: UUID) -> None: ...
    async def end_session(self, uow: Any, session_hash: bytes) -> bool: ...
    async def end_sessions(self, uow: Any, person_id: UUID) -> int: ...
    async def blocked_s(self, uow: Any, name_hash: bytes) -> int: ...
    async def note_failure(self, uow: Any, name_hash: bytes, free: int, longest_s: int) -> None: ...
    async def forget_failures(self, uow: Any, name_hash: bytes) -> None: ...


class PeopleService:
    """Signs people in and out, and says who they are; under the worker role.

    A session ends `idle` after its last use, `longest` after its beginning, with a sign-out, and with a revocation.
    """

    def __init__(
        self,
        unit_of_work: Callable[[Context], AbstractAsyncContextManager[Any]],
        store: PeopleStore,
        journal: Journal,
        *,
        idle: timedelta,
        longest: timedelta,
    ) -> None:
        self._unit_of_work, self._store, self._journal = unit_of_work, store, journal
        self._idle, self._longest = idle, longest
        # Hashing takes 32 MB and a core each time: strangers get no more of either than this.
        self._hashing = asyncio.Semaphore(2)

    async def add(self, actor: str, *, name: str, role: Role, tenant_id: UUID = SYSTEM_TENANT, password: str) -> Person:
        """Make a local person. Raises Refusal: invalid_request, person_exists."""
        name = checked_name(name)
        person = Person(_new_id(), tenant_id, name, role, await self._hashed(password), created_by=actor)
        async with self._unit_of_work(Context(SYSTEM_TENANT, actor)) as uow:
            if not await self._store.insert(uow, person):
                raise Refusal("person_exists", f"{name} is somebody's name already", field="name")
        return person

    async def first_admin(self, actor: str, name: str, password: str) -> bool:
        """Make the first person of an installation; False where there is somebody already."""
        async with self._unit_of_work(Context(None, actor)) as uow:
            if await self._store.page(uow, None):
                return False
        await self.add(actor, name=name, role=Role.ADMIN, password=password)
        return True

    async def list_people(self, tenant_id: UUID | None) -> list[Person]:
        """Return the people of a tenant, or all, by name."""
        async with self._unit_of_work(Context(None, "console")) as uow:
            return await self._store.page(uow, tenant_id)

    async def set_role(self, actor: str, name: str, role: Role, within: UUID | None = None) -> None:
        """Give another role; in force at their next click. Raises Refusal: not_found, own_role."""
        await self._change(actor, name, within, role=role)

    async def set_password(self, actor: str, name: str, password: str, within: UUID | None = None) -> None:
        """Give another password and end their sessions. Raises Refusal: not_found, invalid_request."""
        await self._change(actor, name, within, ends_sessions=True, secret=await self._hashed(password))

    async def revoke(self, actor: str, name: str, within: UUID | None = None) -> None:
        """Let them in no more, and end their sessions at once. Raises Refusal: not_found, own_role."""
        await self._change(actor, name, within, ends_sessions=True, revoked_at="now")

    async def _change(
        self, actor: str, name: str, within: UUID | None, *, ends_sessions: bool = False, **changed: Any
    ) -> None:
        if actor == f"person:{name}" and changed.keys() & {"role", "revoked_at"}:
            raise Refusal("own_role", "nobody changes their own role: ask another admin")
        async with self._unit_of_work(Context(SYSTEM_TENANT, actor)) as uow:
            person = await self._store.find(uow, name)
            if person is None or within not in (None, person.tenant_id):
                raise Refusal("not_found", f"there is no {name[:64]}")
            if "secret" in changed and person.subject is not None:
                raise Refusal("invalid_request", f"{name} is signed in by {person.issuer}: there is no password here")
            await self._store.change(uow, person.id, **changed)
            if ends_sessions:
                await self._store.end_sessions(uow, person.id)

    async def sign_in(self, name: str, password: str) -> SignIn:
        """Open a session by a password. Raises Refusal: sign_in_refused, too_many_attempts."""
        name = name.strip().lower()
        name_hash = hashlib.sha256(name.encode()).digest()
        async with self._unit_of_work(Context(None, "console")) as uow:
            if wait_s := await self._store.blocked_s(uow, name_hash):
                raise Refusal("too_many_attempts", f"too many wrong passwords: try again in {wait_s} s")
            person = await self._store.find(uow, name)
        known = person is not None and person.revoked_at is None and person.secret is not None
        # As long for a name that nobody has: the time tells nothing.
        stored = person.secret if person is not None and known and person.secret is not None else _NOBODYS
        right = await self._matches(stored, password)
        if person is None or not (known and right):
            async with self._unit_of_work(Context(None, "console")) as uow:
                await self._store.note_failure(uow, name_hash, _FREE_FAILURES, _LONGEST_WAIT_S)
                if person is not None:
                    act = Act(person.tenant_id, f"person:{person.name}", "sign_in_refused", f"person:{person.name}", {})
                    await self._journal.append(uow, [act])
            raise Refusal("sign_in_refused", "name or password is not right")
        return await self._open(person, {"by": "password"}, forget=name_hash)

    async def sign_in_by(self, identity: Identity) -> SignIn:
        """Open a session for whom an identity provider vouches. Raises Refusal as `vouched` does."""
        return await self._open(await self.vouched(identity), {"by": identity.issuer})

    async def vouched(self, identity: Identity) -> Person:
        """Return the person for whom an identity provider vouches; role and tenant are what it says now.

        Raises Refusal: sign_in_refused (revoked here), person_exists, invalid_request.
        """
        name = checked_name(identity.name)
        role, tenant_id, actor = identity.role, identity.tenant_id, f"person:{name}"
        async with self._unit_of_work(Context(SYSTEM_TENANT, actor)) as uow:
            person = await self._store.find_subject(uow, identity.issuer, identity.subject)
            if person is None:
                by = identity.issuer
                person = Person(_new_id(), tenant_id, name, role, None, by, identity.subject, created_by=by)
                if not await self._store.insert(uow, person):
                    raise Refusal("person_exists", f"{name} is another person's name here", field="name")
            elif person.revoked_at is not None:
                raise Refusal("sign_in_refused", "an admin has revoked this person here")
            elif (person.role, person.tenant_id) != (role, tenant_id):
                await self._store.change(uow, person.id, role=role, tenant_id=tenant_id)
                person = replace(person, role=role, tenant_id=tenant_id)
        return person

    async def _open(self, person: Person, data: dict[str, str], forget: bytes | None = None) -> SignIn:
        token = secrets.token_urlsafe(32)
        async with self._unit_of_work(Context(None, f"person:{person.name}")) as uow:
            await self._store.open_session(uow, hash_of(token), person, datetime.now(UTC) + self._longest)
            if forget is not None:
                await self._store.forget_failures(uow, forget)
            act = Act(person.tenant_id, f"person:{person.name}", "signed_in", f"person:{person.name}", data)
            await self._journal.append(uow, [act])
        return SignIn(token, person)

    async def session(self, token: str, *, used: bool = True) -> Session | None:
        """Return the session of a cookie; None where it never was, has ended, or was idle for too long.

        A page that refreshes itself is no use of it.
        """
        if not 20 <= len(token) <= 100:
            return None
        async with self._unit_of_work(Context(None, "console")) as uow:
            found = await self._store.find_session(uow, hash_of(token))
            if found is None:
                return None
            now = datetime.now(UTC)
            if found.expires_at <= now or found.seen_at + self._idle <= now or found.person.revoked_at is not None:
                await self._store.end_session(uow, found.hash)
                return None
            if used and found.seen_at + _SEEN_EVERY <= now:
                await self._store.touch_session(uow, found.hash)
        return found

    async def act_in(self, session: Session, tenant_id: UUID) -> None:
        """Look at another tenant's payments. Raises Refusal `operation_not_permitted` but for the system's people."""
        if not session.person.everywhere:
            raise Refusal("operation_not_permitted", "you work for one tenant")
        async with self._unit_of_work(Context(None, "console")) as uow:
            await self._store.act_in(uow, session.hash, tenant_id)

    async def sign_out(self, session: Session) -> None:
        """End the session."""
        async with self._unit_of_work(Context(None, "console")) as uow:
            await self._store.end_session(uow, session.hash)
            actor = f"person:{session.person.name}"
            await self._journal.append(uow, [Act(session.person.tenant_id, actor, "signed_out", actor, {})])

    async def _hashed(self, password: str) -> str:
        if not _PASSWORD_SHORTEST <= len(password) <= _PASSWORD_LONGEST:
            text = f"a password has {_PASSWORD_SHORTEST} to {_PASSWORD_LONGEST} characters"
            raise Refusal("invalid_request", text, field="password")
        salt = secrets.token_bytes(16)
        async with self._hashing:
            derived = await asyncio.to_thread(_scrypt, password, salt)
        return f"scrypt:{salt.hex()}:{derived.hex()}"

    async def _matches(self, stored: str, password: str) -> bool:
        _, salt, derived = stored.split(":")
        async with self._hashing:
            given = await asyncio.to_thread(_scrypt, password[:_PASSWORD_LONGEST], bytes.fromhex(salt))
        return hmac.compare_digest(given, bytes.fromhex(derived))


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, dklen=32, **_SCRYPT)


_NOBODYS: Final = f"scrypt:{bytes(16).hex()}:{bytes(32).hex()}"


def hash_of(token: str) -> bytes:
    """Return what is kept of a cookie."""
    return hashlib.sha256(token.encode()).digest()


def checked_name(name: str) -> str:
    """Return the name. Raises Refusal `invalid_request`."""
    if _NAME.fullmatch(name) is None:
        text = "a name is 1 to 64 of a-z 0-9 . _ @ + -, and begins with a letter or a digit"
        raise Refusal("invalid_request", text, field="name")
    return name


def _new_id() -> UUID:
    return mint_id(time.time_ns() // 1_000_000)
