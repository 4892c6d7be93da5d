"""The audit journal: who did what, to what, and why; and the walk that proves it whole."""

from typing import Final

from core.console.visit import PAGE, Answer, Page, Screen, Visit
from core.domain.roles import Role
from core.services.access.keys import AUDIT_SCOPE
from core.services.cursors import BIGINT_MAX, decode_cursor, encode_cursor, id_of, number_of
from core.services.on_call.audit import AuditFilter, prove
from core.services.on_call.redrives import reach

_FIELDS: Final = ("actor", "action", "subject")


async def list_entries(visit: Visit) -> Answer:
    """List entries, newest first."""
    visit.caller.require_operation(AUDIT_SCOPE)
    before = None
    if "cursor" in visit.form:
        tenant, number = decode_cursor(visit.form["cursor"], 2)
        before = (id_of(tenant), number_of(number, BIGINT_MAX))
    kept = {name: visit.form[name] for name in _FIELDS if name in visit.form}
    wanted = AuditFilter(reach(visit.caller), **kept)
    async with visit.background() as uow:
        found = await visit.core.worker_ports.journal.page(uow, wanted, before, PAGE + 1)
    following = None
    if len(found) > PAGE:
        following = encode_cursor(str(found[PAGE - 1].tenant_id), str(found[PAGE - 1].seq))
    return Page("audit.html", {"entries": found[:PAGE], "following": following, "kept": kept, "proof": None})


async def proof(visit: Visit) -> Answer:
    """Walk the chains that the person may see and name every fault."""
    visit.caller.require_operation(AUDIT_SCOPE)
    async with visit.background() as uow:
        found = await prove(uow, visit.core.worker_ports.journal, reach(visit.caller))
    return Page("audit.html", {"entries": [], "following": None, "kept": {}, "proof": found})


SCREENS = (
    Screen("GET", "/audit", list_entries, Role.VIEWER),
    Screen("GET", "/audit/proof", proof, Role.VIEWER),
)
