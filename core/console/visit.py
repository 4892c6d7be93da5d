"""One click of one person: what a screen is given, and what it may answer."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import IO, Any, Final, Literal, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from core.bootstrap import Core
from core.domain.roles import Role
from core.services.access.keys import Caller
from core.services.access.people import Person, Session
from core.services.on_call.redrives import background_context
from core.services.on_call.stream_repair import RepairedStreams
from core.services.problems import Refusal
from schemas.faults import first_fault
from schemas.tenants import TenantView

Model = TypeVar("Model", bound=BaseModel)
Word = TypeVar("Word", bound=StrEnum)
PAGE: Final = 50
"""Rows of one page of a list."""


@dataclass(frozen=True, slots=True)
class Page:
    """HTML out of a template."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True, slots=True)
class Redirect:
    """Go and look there; `told` names a sentence of `core.console.views.TOLD` for the top of that page."""

    path: str
    told: str = ""
    cookies: Mapping[str, str | None] = field(default_factory=dict)
    """Cookies to set, or to delete where the value is None."""

    @property
    def location(self) -> str:
        """The address with what is told."""
        if not self.told:
            return self.path
        return f"{self.path}{'&' if '?' in self.path else '?'}{urlencode({'told': self.told})}"


@dataclass(frozen=True, slots=True)
class Asset:
    """Bytes as they are: a style sheet, an export."""

    body: bytes
    media_type: str
    file_name: str = ""


Answer = Page | Redirect | Asset


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that a form brought; it waits on disk and goes when the click is answered."""

    name: str
    file: IO[bytes]


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that came this far: its session is in force, its role covers the screen, its form is ours."""

    core: Core
    request: Request
    session: Session | None
    form: Mapping[str, str]
    """The fields of the query or, of a POST, of the form; what was left empty is not among them."""
    tenants: list[TenantView]
    """Of the system's people: whom they can look at."""
    streams: RepairedStreams | None = None
    upload: Upload | None = None
    """The file of the form, where one was chosen."""

    @property
    def person(self) -> Person:
        """Who is signed in. Raises Refusal `sign_in_refused` on a screen for everybody."""
        if self.session is None:
            raise Refusal("sign_in_refused", "sign in first")
        return self.session.person

    @property
    def caller(self) -> Caller:
        """The person as use cases know them; one of the system's reaches every tenant."""
        return self.person.caller()

    @property
    def tenant_id(self) -> UUID:
        """Whose payments are looked at. Raises Refusal `not_found` where there is no tenant yet."""
        if not self.person.everywhere:
            return self.person.tenant_id
        chosen = None if self.session is None else self.session.acting_tenant
        if chosen is None and not self.tenants:
            raise Refusal("not_found", "there is no tenant yet: fleet tenants create makes one")
        return chosen or self.tenants[0].id

    @property
    def in_tenant(self) -> Caller:
        """The person as one of the tenant whose payments are looked at."""
        return self.person.acting_in(self.tenant_id)

    def background(self) -> AbstractAsyncContextManager[Any]:
        """Open a transaction under the worker role; each use case names the tenant that the caller reaches."""
        return self.core.worker_ports.unit_of_work(background_context(self.caller))

    def can(self, role: Role) -> bool:
        """Whether the person's role covers this one."""
        return self.session is not None and self.session.person.role.covers(role)

    def path_id(self, name: str) -> UUID:
        """Return an id of the path. Raises Refusal `not_found`: what is no id names nothing."""
        return id_in(self.request.path_params[name])

    def asked(self, model: type[Model], **more: Any) -> Model:
        """Return the model that the form's fields make, with `more` beside them. Raises Refusal `invalid_request`."""
        names = model.model_fields
        try:
            return model.model_validate({name: text for name, text in self.form.items() if name in names} | more)
        except ValidationError as error:
            raise refusal_of(error) from error

    def word(self, name: str, words: type[Word]) -> Word | None:
        """Return the word that a list is narrowed by; None takes any. Raises Refusal `invalid_request`."""
        text = self.form.get(name)
        if text is not None and text not in list(words):
            raise Refusal("invalid_request", f"a {name} is one of {', '.join(words)}", field=name)
        return None if text is None else words(text)

    def here(self, **changed: str | None) -> str:
        """Return this page's address with some of its query changed; None takes a field out."""
        query = {name: text for name, text in self.form.items() if name != "told"} | changed
        kept = {name: text for name, text in query.items() if text}
        return f"{self.request.url.path}?{urlencode(kept)}" if kept else self.request.url.path


Handler = Callable[[Visit], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Screen:
    """One address of the console. `role` is the least that may ask for it; None is whoever comes."""

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    role: Role | None
    uploads: bool = False
    """Whether its form brings a file."""


def id_in(text: str) -> UUID:
    """Return the id. Raises Refusal `not_found`."""
    try:
        return UUID(text)
    except ValueError as error:
        raise Refusal("not_found", "this is not an id") from error


def refusal_of(error: ValidationError) -> Refusal:
    """Return the refusal of the first fault. The value at fault stays out of the text: it may be a payee."""
    fault = first_fault(error)
    return Refusal("invalid_request", f"{fault.field or 'form'}: {fault.words}", field=fault.field or None)
