"""The audit journal over HTTP, under a key that names AUDIT."""

from typing import Annotated

import orjson
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.openapi import tells
from core.api.requests import Page, query_of
from core.api.signed_routes import Route, SignedRoutes
from core.domain.audit import AuditEntry
from core.services.audit import AuditFilter, prove
from core.services.cursors import BIGINT_MAX, decode_cursor, encode_cursor, id_of, number_of
from core.services.keys import AUDIT_SCOPE
from core.services.redrives import background_context, reach
from schemas.on_call import AuditPage, AuditProof

_Text = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]*$")]


class _AuditQuery(Page):
    actor: _Text | None = None
    action: _Text | None = None
    subject: _Text | None = None


class AuditRoutes(SignedRoutes):
    """The routes of the journal."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        return (
            ("GET", "/v1/audit", self.list_entries, AuditPage, 200, None),
            ("GET", "/v1/audit/proof", self.prove, AuditProof, 200, None),
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
        wanted = AuditFilter(reach(caller), query.actor, query.action, query.subject)
        async with ports.unit_of_work(background_context(caller)) as uow:
            found = await ports.journal.page(uow, wanted, before, query.limit + 1)
        items, following = found[: query.limit], None
        if len(found) > query.limit:
            following = encode_cursor(str(items[-1].tenant_id), str(items[-1].seq))
        return json_answer({"items": [entry_document(entry) for entry in items], "next_cursor": following})

    async def prove(self, request: Request) -> Response:
        """Walk the chains that the key may see and name every fault."""
        caller, _ = await self._operator(request, AUDIT_SCOPE)
        ports = self._core.worker_ports
        async with ports.unit_of_work(background_context(caller)) as uow:
            proof = await prove(uow, ports.journal, reach(caller))
        return json_answer(
            AuditProof(holds=not proof.faults, tenants=proof.tenants, entries=proof.entries, faults=list(proof.faults))
        )


def entry_document(entry: AuditEntry) -> dict[str, object]:
    """Return an entry in the shape of `schemas.on_call.AuditEntryView`."""
    return {
        "tenant_id": entry.tenant_id,
        "seq": entry.seq,
        "at": entry.at,
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "data": orjson.loads(entry.data),
        "hash": entry.hash.hex(),
    }
