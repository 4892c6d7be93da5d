"""The console's application: who may come to which screen, and the headers of every answer."""

import logging
import secrets
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from fastapi import FastAPI
from jinja2 import Environment
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from core.bootstrap import PASSING_FAULTS, Core
from core.console.cookies import DOOR, SESSION, Cookies, form_token, is_form_token
from core.console.pages import SCREENS
from core.console.uploads import form_with_file
from core.console.views import TOLD, environment
from core.console.visit import Answer, Asset, Page, Redirect, Screen, Upload, Visit
from core.domain.roles import Role
from core.services.access.people import Session
from core.services.on_call.stream_repair import RepairedStreams
from core.services.problems import PROBLEMS, Refusal
from schemas.tenants import TenantView

_log = logging.getLogger(__name__)
_FORM_MAX_BYTES: Final = 128 * 1024
_FORM: Final = "application/x-www-form-urlencoded"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_BY_STATUS: Final = {404: "not_found", 405: "method_not_allowed"}


def console_app(core: Core, streams: RepairedStreams | None = None, screens: Sequence[Screen] = SCREENS) -> FastAPI:
    """Return the application of the console's listener. Nothing is served but screens: each has said its role."""
    app = FastAPI(title="psp-fleet console", docs_url=None, redoc_url=None, openapi_url=None)
    door = _Door(core, streams)
    for screen in screens:
        app.add_api_route(screen.path, door.opening(screen), methods=[screen.method], include_in_schema=False)
    for kind in (Refusal, HTTPException, *PASSING_FAULTS, Exception):
        app.add_exception_handler(kind, door.failed)
    return app


class _Door:
    """Lets people through to a screen, or tells them why not."""

    def __init__(self, core: Core, streams: RepairedStreams | None) -> None:
        self._core, self._streams = core, streams
        address = urlsplit(core.settings.console_url)
        self._host, self._secure = address.netloc, address.scheme == "https"
        self._cookies = Cookies(self._secure)
        self._templates: Environment = environment()

    def opening(self, screen: Screen) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint of a screen."""

        async def endpoint(request: Request) -> Response:
            session = await self._session(request)
            if screen.role is not None:
                if session is None:
                    return self._dressed(RedirectResponse("/sign-in", 303))
                if not session.person.role.covers(screen.role):
                    text = f"this takes the role {screen.role}: yours is {session.person.role}"
                    raise Refusal("role_missing", text)
            async with self._filled_in(request, session, screen) as (form, upload):
                tenants = await self._tenants(session)
                visit = Visit(self._core, request, session, form, tenants, self._streams, upload)
                return self._answered(visit, await screen.handler(visit))

        return endpoint

    async def failed(self, request: Request, error: Exception) -> Response:
        """Answer a failure with a page that says what it is."""
        if isinstance(error, HTTPException):
            error = Refusal(_BY_STATUS.get(error.status_code, "invalid_request"), str(error.detail))
        elif isinstance(error, PASSING_FAULTS):
            _log.warning("a click found the database away: %s", type(error).__name__)
            error = Refusal("unavailable", "the database is away: try again in a moment")
        elif not isinstance(error, Refusal):
            # The text of an error may quote a payee: its class and the places it passed are logged, never the text.
            places = " <- ".join(
                f"{f.filename}:{f.lineno}" for f in reversed(traceback.extract_tb(error.__traceback__)[-8:])
            )
            _log.error("a click failed: %s at %s", type(error).__name__, places)
            error = Refusal("internal", "the core failed: its log says where")
        return await self._problem(request, error)

    async def _problem(self, request: Request, refusal: Refusal) -> Response:
        try:
            session = await self._session(request)
            tenants = await self._tenants(session)
        except PASSING_FAULTS:
            session, tenants = None, []
        visit = Visit(self._core, request, session, {}, tenants)
        title = PROBLEMS[refusal.code].title
        page = Page("problem.html", {"refusal": refusal, "title": title, "back": _back(request)}, refusal.status)
        return self._answered(visit, page)

    async def _session(self, request: Request) -> Session | None:
        token = self._cookies.read(request, SESSION)
        used = "fleet-refresh" not in request.headers
        return await self._core.people.session(token, used=used) if token else None

    async def _tenants(self, session: Session | None) -> list[TenantView]:
        if session is None or not session.person.everywhere:
            return []
        ports = self._core.worker_ports
        async with ports.unit_of_work(session.person.caller().context()) as uow:
            return list(await ports.tenants.list_tenants(uow))

    @asynccontextmanager
    async def _filled_in(
        self, request: Request, session: Session | None, screen: Screen
    ) -> AsyncIterator[tuple[dict[str, str], Upload | None]]:
        """Lend the fields and the file; of a POST, once it is known to come from a page of this session."""
        if request.method == "GET":
            yield {name: text.strip() for name, text in request.query_params.items() if text.strip()}, None
            return
        self._require_own_page(request)
        if not screen.uploads:
            yield self._form(request, session, await self._fields(request)), None
            return
        async with form_with_file(request, self._core.settings.register_file_max_bytes) as (fields, upload):
            yield self._form(request, session, fields), upload

    async def _fields(self, request: Request) -> list[tuple[str, str]]:
        if request.headers.get("content-type", "").partition(";")[0] != _FORM:
            raise Refusal("unsupported_media_type", "send a form")
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > _FORM_MAX_BYTES:
                raise Refusal("body_too_large", f"a form has at most {_FORM_MAX_BYTES} bytes")
        return parse_qsl(body.decode("utf-8", "replace"), max_num_fields=1000)

    def _form(self, request: Request, session: Session | None, fields: list[tuple[str, str]]) -> dict[str, str]:
        form = {name: text.strip() for name, text in fields if text.strip()}
        if any("\0" in text for text in form.values()):
            raise Refusal("invalid_request", "the character U+0000 cannot be stored")
        bound_to = self._cookies.read(request, DOOR if session is None else SESSION)
        if not is_form_token(bound_to, form.pop("form_token", "")):
            raise Refusal("form_refused", "open the page again and send its form once more")
        return form

    def _require_own_page(self, request: Request) -> None:
        """Refuse what a browser says that another site sent."""
        origin = request.headers.get("origin")
        own = {self._host or request.headers.get("host", "")}
        if origin is not None and urlsplit(origin).netloc not in own:
            raise Refusal("form_refused", "this form was sent by another site")
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Refusal("form_refused", "this form was sent by another site")

    def _answered(self, visit: Visit, answer: Answer) -> Response:
        response: Response
        if isinstance(answer, Redirect):
            response = RedirectResponse(answer.location, 303)
            for name, value in answer.cookies.items():
                self._cookies.write(response, name, value)
        elif isinstance(answer, Asset):
            response = Response(answer.body, media_type=answer.media_type)
            if answer.file_name:
                response.headers["Content-Disposition"] = f'attachment; filename="{answer.file_name}"'
        else:
            response = self._rendered(visit, answer)
        return self._dressed(response)

    def _rendered(self, visit: Visit, page: Page) -> Response:
        cookie, fresh = self._cookies.read(visit.request, SESSION if visit.session else DOOR), ""
        if not cookie:
            cookie = fresh = secrets.token_urlsafe(32)
        values: dict[str, Any] = {
            "visit": visit,
            "person": visit.session.person if visit.session else None,
            "path": visit.request.url.path,
            "told": TOLD.get(visit.request.query_params.get("told", ""), ""),
            "form_token": form_token(cookie),
            "can": visit.can,
        }
        text = self._templates.get_template(page.template).render(values | dict(page.values))
        response = Response(text, page.status, media_type="text/html; charset=utf-8")
        if fresh:
            self._cookies.write(response, DOOR, fresh)
        return response

    def _dressed(self, response: Response) -> Response:
        headers = response.headers
        headers["Content-Security-Policy"] = _POLICY
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "same-origin"
        headers["X-Frame-Options"] = "DENY"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        headers.setdefault("Cache-Control", "no-store")
        if self._secure:
            headers["Strict-Transport-Security"] = "max-age=31536000"
        return response


def _back(request: Request) -> str:
    """Return the page before, where it was one of ours."""
    before = urlsplit(request.headers.get("referer", ""))
    own = before.netloc == request.headers.get("host", "") and before.path[:1] == "/" and before.path[:2] != "//"
    return f"{before.path}?{before.query}" if own and before.query else before.path if own else "/"


def roles_by_route(app: FastAPI, screens: Sequence[Screen] = SCREENS) -> dict[tuple[str, str], Role | None]:
    """Return the role of every route that the application serves. Raises LookupError for one that is no screen."""
    declared = {(screen.method, screen.path): screen.role for screen in screens}
    found: dict[tuple[str, str], Role | None] = {}
    for route in app.routes:
        for method in sorted((getattr(route, "methods", None) or set()) - {"HEAD"}):
            key = method, str(getattr(route, "path", ""))
            found[key] = declared[key]
    return found
