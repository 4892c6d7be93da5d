"""The internal API: permits, evidence and registration, for adapters alone. A rail's key sees only its rail."""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response

from core.api.announced_returns import announced_routes
from core.api.answers import contracts_answer, json_answer
from core.api.bank_messages import message_routes
from core.api.files import file_routes
from core.api.hot_paths import HotPaths
from core.api.openapi import Described, install_document
from core.api.provider_payments import payment_routes
from core.api.rail_routes import rail_routes
from core.api.registers import register_routes
from core.api.requests import BATCH_BODY_MAX_BYTES, SignedAndUnspent, parse, read_body, signed_by
from core.api.signed_routes import Route
from core.bootstrap import PASSING_FAULTS, UNSTORABLE, Core
from core.domain.context import Context
from core.services.access.keys import Caller, HeldNonce
from core.services.problems import Refusal
from core.services.settling.permits import Attempts, Throttle, grant_permits
from core.services.settling.rails import Rails, RailUnknownError
from core.services.vault_port import Vault
from core.store.database import UnitOfWork
from core.store.settling import attempts, rails
from core.store.settling.announced_returns import AnnouncedStore
from core.store.settling.evidence import EvidenceStore
from core.store.settling.files import FileStore
from core.store.settling.messages import MessageStore
from core.telemetry.catalogue import PERMITS
from schemas.permits import PermitAnswer, PermitRequest, PermitResponse, Sending
from schemas.rails import EvidenceBatch, EvidenceItem, EvidenceKept
from wire.failpoints import failpoint

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InternalPorts:
    """What the internal API works with, under the worker role."""

    attempts: Attempts
    rails: Rails
    vault: Vault
    throttle: Throttle
    evidence: EvidenceStore


def install_internal(app: FastAPI, core: Core, throttle: Throttle) -> HotPaths:
    """Add the routes under /internal/v1; return the application with those that every payment asks in front."""
    vault = core.worker_ports.vault
    ports = InternalPorts(attempts, rails, vault, throttle, EvidenceStore(vault))

    def unit_of_work(rail: str, behind: str | None = None) -> AbstractAsyncContextManager[UnitOfWork]:
        return core.worker_database.unit_of_work(Context(None, f"rail:{rail}"), behind=behind)

    storing = _storing(unit_of_work)

    async def ask_permits(request: Request) -> Response:
        """Ask whether jobs may be sent; each has its answer."""
        body = await read_body(request, BATCH_BODY_MAX_BYTES)
        async with SignedAndUnspent(request, body, core.worker_authenticator, "rail") as (caller, nonce):
            answers = await _permits(unit_of_work, ports, _of_a_rail(caller), parse(PermitRequest, body), nonce)
        for answer, count in Counter(answer.answer for answer in answers).items():
            PERMITS.labels(caller.rail or "", answer).inc(count)
        return contracts_answer({"answers": answers})

    async def keep_evidence(request: Request) -> Response:
        """Keep raw answers, encrypted; a repeat changes nothing."""
        body = await read_body(request, BATCH_BODY_MAX_BYTES)
        caller = await _caller_of(request, body)
        rail, items = caller.rail or "", parse(EvidenceBatch, body, sealed=True).items
        foreign: list[EvidenceItem] = []
        async with unit_of_work(rail) as uow:
            if caller.serves is not None:
                served = await ports.evidence.served_jobs(uow, rail, items, caller.serves)
                foreign = [item for item in items if item.job_id not in served]
                items = [item for item in items if item.job_id in served]
            await ports.evidence.insert_evidence(uow, rail, items)
        for item in foreign:
            _log.warning("audit: key %s of rail %s told of foreign job %s", caller.key_id, rail, item.job_id)
        return json_answer(EvidenceKept(kept=len(items), not_found=tuple(item.id for item in foreign)))

    async def _caller_of(request: Request, body: bytes) -> Caller:
        return _of_a_rail(await signed_by(request, body, core.worker_authenticator, "rail"))

    table: list[Route] = [
        ("POST", "/internal/v1/permits", ask_permits, PermitResponse, 200, PermitRequest),
        ("POST", "/internal/v1/evidence", keep_evidence, EvidenceKept, 200, EvidenceBatch),
        *rail_routes(ports.rails, unit_of_work, _caller_of),
        *file_routes(FileStore(vault), storing, _caller_of),
        *message_routes(MessageStore(vault), storing, _caller_of),
        *announced_routes(AnnouncedStore(ports.evidence), storing, _caller_of),
        *register_routes(core.worker_ports, storing, _caller_of),
        *payment_routes(core.worker_ports, storing, _caller_of),
    ]
    for method, path, handler, _, _, _ in table:
        app.add_api_route(path, handler, methods=[method], include_in_schema=False)
    install_document(app, [Described(*route) for route in table])
    hot = {("POST", "/internal/v1/permits"): ask_permits, ("POST", "/internal/v1/evidence"): keep_evidence}
    return HotPaths(app, hot, PASSING_FAULTS)


async def _permits(
    unit_of_work: Callable[[str, str | None], AbstractAsyncContextManager[UnitOfWork]],
    ports: InternalPorts,
    caller: Caller,
    asked: PermitRequest,
    nonce: HeldNonce,
) -> list[PermitAnswer]:
    rail = caller.rail or ""

    @asynccontextmanager
    async def deciding() -> AsyncIterator[UnitOfWork]:
        # An adapter that waited too long for the answer repeats the request while the first is still at work: it is
        # told the same. BUSY would cost its payments as long as a permit counts.
        async with unit_of_work(rail, f"permits:{rail}:{Sending.of(asked.request_id).asking}") as uow:
            yield uow
            failpoint("permits.before_commit")

    try:
        answers = await grant_permits(deciding, ports, rail, caller.key_id, asked, caller.serves, nonce)
    except RailUnknownError as error:
        raise Refusal("rail_unavailable", "register the rail before asking for permits") from error
    failpoint("permits.after_commit")
    return answers


def _storing(
    unit_of_work: Callable[[str], AbstractAsyncContextManager[UnitOfWork]],
) -> Callable[[str], AbstractAsyncContextManager[UnitOfWork]]:
    """Return units of work in which a value that cannot be stored is refused: a 500 would have it told for ever."""

    @asynccontextmanager
    async def storing(rail: str) -> AsyncIterator[UnitOfWork]:
        try:
            async with unit_of_work(rail) as uow:
                yield uow
        except UNSTORABLE as fault:
            _log.warning("rail %s told a value that cannot be stored: %s", rail, type(fault).__name__)
            raise Refusal("invalid_request", "a value of the body cannot be stored: leave it out") from fault

    return storing


def _of_a_rail(caller: Caller) -> Caller:
    if caller.rail is None:
        raise Refusal("operation_not_permitted", "a rail's key is needed here")
    return caller
