"""The audit journal over HTTP, under a key that names AUDIT."""

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from core.api.answers import json_answer
from core.api.openapi import tells
from core.api.requests import Page, query_of
from core.api.signed_routes import Route, SignedRoutes
from core.domain.audit import AuditEntry
from core.services.access.keys import AUDIT_SCOPE
from core.services.cursors import BIGINT_MAX, decode_cursor, encode_cursor, id_of, number_of
from core.services.on_call.audit import AuditFilter, Head, entry_document, export, prove
from core.services.on_call.redrives import background_context, narrowed
from core.services.problems import Refusal
from schemas.on_call import AuditEntryView, AuditPage, AuditProof

_Text = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]*$")]


class _ChainQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    tenant_id: UUID | None = None
    """Of a key of the system's tenant: whose chain; left out, all."""


class _AuditQuery(Page, _ChainQuery):
    actor: _Text | None = None
    action: _Text | None = None
    subject: _Text | None = None


class _ProofQuery(_ChainQuery):
    expect: Annotated[str, Field(max_length=8000)] | None = None
    """Ends that were noted before, TENANT:NUMBER:HASH divided by commas."""

    @property
    def anchors(self) -> list[Head]:
        """Return the ends. Raises Refusal `anchor_malformed`."""
        return [_anchor(text) for text in self.expect.split(",")] if self.expect else []


def _anchor(text: str) -> Head:
    tenant, _, rest = text.partition(":")
    number, _, digest = rest.partition(":")
    try:
        return Head(UUID(tenant), int(number), bytes.fromhex(digest))
    except ValueError as error:
        told = "an end is TENANT:NUMBER:HASH as a proof shows it: copy it whole"
        raise Refusal("anchor_malformed", told, field="expect") from error


class AuditRoutes(SignedRoutes):
    """The routes of the journal."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        return (
            ("GET", "/v1/audit", self.list_entries, AuditPage, 200, None),
            ("GET", "/v1/audit/proof", self.prove, AuditProof, 200, None),
            ("GET", "/v1/audit/export", self.export, AuditEntryView, 200, None),
        )

    @tells(query=_AuditQuery)
    async def list_entries(self, request: Request) -> Response:
        """List entries, newest first."""
        caller, _ = await self._operator(request, AUDIT_SCOPE)
        query, ports = query_of(_AuditQuery, request), self._core.worker_ports
        before = None
        if query.cursor is not None:
            tenant, number = decode_cursor(query.cursor, 2)
            before = (id_of(tenant), number_of(number, BIGINT_MAX))
        wanted = AuditFilter(narrowed(query, caller), query.actor, query.action, query.subject)
        async with ports.unit_of_work(background_context(caller)) as uow:
            found = await ports.journal.page(uow, wanted, before, query.limit + 1)
        items, following = found[: query.limit], None
        if len(found) > query.limit:
            following = encode_cursor(str(items[-1].tenant_id), str(items[-1].seq))
        return json_answer({"items": [entry_document(entry) for entry in items], "next_cursor": following})

    @tells(query=_ProofQuery)
    async def prove(self, request: Request) -> Response:
        """Walk the chains that the key may see and name every fault."""
        caller, _ = await self._operator(request, AUDIT_SCOPE)
        query, ports = query_of(_ProofQuery, request), self._core.worker_ports
        tenant, anchors = narrowed(query, caller), query.anchors
        async with ports.unit_of_work(background_context(caller)) as uow:
            proof = await prove(uow, ports.journal, tenant, anchors)
        counted = {"tenants": proof.tenants, "entries": proof.entries, "ends": [str(end) for end in proof.ends]}
        return json_answer(AuditProof(holds=not proof.faults, faults=list(proof.faults), **counted))

    @tells(query=_ChainQuery, media=("application/x-ndjson",))
    async def export(self, request: Request) -> Response:
        """Write every entry that the key may see, oldest first, one JSON object a line."""
        caller, _ = await self._operator(request, AUDIT_SCOPE)
        tenant = narrowed(query_of(_ChainQuery, request), caller)
        pages = export(self._core.worker_ports, background_context(caller), tenant)
        headers = {"Content-Disposition": 'attachment; filename="audit.jsonl"'}
        return StreamingResponse(_lines(pages), media_type="application/x-ndjson", headers=headers)


async def _lines(pages: AsyncIterator[list[AuditEntry]]) -> AsyncIterator[bytes]:
    async for page in pages:
        yield b"".join(orjson.dumps(entry_document(entry), default=str) + b"\n" for entry in page)
