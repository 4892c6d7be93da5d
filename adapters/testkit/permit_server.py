"""A small core for tests of adapters: permits, registration and evidence over real sockets, scripted per job."""

# ruff: noqa: S101 - it asserts

import asyncio
import uuid
from collections import Counter
from typing import Any
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel

from adapters.runtime.timing import clock_s
from adapters.testkit.files import FilesInMemory
from schemas.collections import ProviderPayment, ProviderPaymentAnswers, ProviderPaymentBatch
from schemas.files import FileAgain, FileGivenUp, FilesAsked, FilesHolding, FileStored, FileToStore
from schemas.jobs import Job
from schemas.permits import PermitMode, PermitRequest, Sending
from schemas.rails import EvidenceBatch, EvidenceItem, RailRegistration

KEY_ID, SECRET = "test-rail", "a secret of the tests"


class PermitServer:
    """Grants every known job, unless `script` says otherwise. `away` makes it answer 503."""

    def __init__(self) -> None:
        self.jobs: dict[UUID, Job] = {}
        self.fences: Counter[UUID] = Counter()
        self.script: dict[UUID, dict[str, Any]] = {}
        self.granted: list[tuple[UUID, str]] = []
        self.request_ids: list[UUID] = []
        self.asked_at_s: list[float] = []
        """When each request arrived, on the clock that S is measured with."""
        self.registrations: list[RailRegistration] = []
        self.evidence: list[EvidenceItem] = []
        self.payments: list[ProviderPayment] = []
        self.files = FilesInMemory()
        self.away = False
        self.asked_times = 0
        """Requests for permits that came, answered or not."""
        self.holds: dict[UUID, asyncio.Event] = {}
        """Jobs whose permits are answered once their event is set."""
        self.lose_replies = 0
        self.refuse_evidence = False
        self.refuse_payments = False
        self._answers: dict[int, dict[str, Any]] = {}
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen on a free loopback port."""
        app = web.Application()
        app.router.add_post("/internal/v1/permits", self._permits)
        app.router.add_post("/internal/v1/evidence", self._evidence)
        app.router.add_post("/internal/v1/provider-payments", self._payments)
        app.router.add_put("/internal/v1/rails/{rail}", self._register)
        app.router.add_post("/internal/v1/files", self._store_file)
        app.router.add_post("/internal/v1/files/holding", self._holding)
        app.router.add_post("/internal/v1/files/{id}/again", self._again)
        app.router.add_post("/internal/v1/files/{id}/give-up", self._give_up)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    def know(self, job: Job, **answer: Any) -> None:
        """Hold a job; `answer` overrides fields of its permit, or its kind of answer."""
        self.jobs[job.job_id] = job
        if answer:
            self.script[job.job_id] = answer

    async def _permits(self, request: web.Request) -> web.Response:
        self.asked_times += 1
        if self.away:
            return web.Response(status=503)
        asked = PermitRequest.model_validate_json(await request.read())
        self.request_ids.append(asked.request_id)
        self.asked_at_s.append(clock_s())
        for held in [self.holds[each] for each in asked.job_ids if each in self.holds]:
            await held.wait()
        asking = Sending.of(asked.request_id).asking
        answer = self._answers.get(asking)
        if answer is None:
            answer = {"answers": [self._answer(job_id) for job_id in asked.job_ids]}
            self._answers[asking] = answer
        if self.lose_replies > 0:
            self.lose_replies -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(answer)

    def _answer(self, job_id: UUID) -> dict[str, Any]:
        job, script = self.jobs.get(job_id), self.script.get(job_id, {})
        if job is None:
            return {"answer": "NOT_FOUND", "job_id": str(job_id)}
        if script.get("answer", "GRANTED") != "GRANTED":
            return {"job_id": str(job_id), **script}
        reads = not job.kind.moves_money
        fence = 0 if reads else self._next_fence(job_id)
        mode = PermitMode.READ if reads else PermitMode.SEND if fence == 1 else PermitMode.INQUIRE_ONLY
        granted = {
            "answer": "GRANTED",
            "job_id": str(job_id),
            "kind": job.kind,
            "mode": mode,
            "fence": fence,
            "first": fence == 1,
            "send_by_s": 5,
            "reference": f"REF{uuid.UUID(int=job_id.int).hex[:21].upper()}",
            "amount_minor": job.amount_minor,
            "currency": job.currency,
            "provider_account": "noop" if job.rail == "noop" else "acct",
            "environment": "sandbox",
            "instruction": {"payee": {"type": "any", "value": "0812345678"}, "message": "rent"},
        }
        self.granted.append((job_id, mode))
        return {**granted, **script}

    def _next_fence(self, job_id: UUID) -> int:
        self.fences[job_id] += 1
        return self.fences[job_id]

    async def _evidence(self, request: web.Request) -> web.Response:
        if self.away or self.refuse_evidence:
            return web.Response(status=503)
        self.evidence += EvidenceBatch.model_validate_json(await request.read()).items
        return web.json_response({})

    async def _payments(self, request: web.Request) -> web.Response:
        if self.refuse_payments:
            return web.Response(status=503)
        self.payments += ProviderPaymentBatch.model_validate_json(await request.read()).facts
        return _told(ProviderPaymentAnswers(fates=[]))

    async def _register(self, request: web.Request) -> web.Response:
        if self.away:
            return web.Response(status=503)
        self.registrations.append(RailRegistration.model_validate_json(await request.read()))
        return web.json_response({})

    async def _store_file(self, request: web.Request) -> web.Response:
        asked = FileToStore.model_validate_json(await request.read())
        stored = await self.files.place(asked.id, asked.message_id, asked.body.encode(), asked.members)
        return _told(FileStored(stored=stored))

    async def _holding(self, request: web.Request) -> web.Response:
        asked = FilesAsked.model_validate_json(await request.read())
        return _told(FilesHolding(files=list((await self.files.holding(asked.references)).values())))

    async def _again(self, request: web.Request) -> web.Response:
        body = await self.files.again(UUID(request.match_info["id"]))
        return _told(FileAgain(body=None if body is None else body.decode()))

    async def _give_up(self, request: web.Request) -> web.Response:
        return _told(FileGivenUp(given_up=await self.files.give_up(UUID(request.match_info["id"]))))


def _told(answer: BaseModel) -> web.Response:
    return web.Response(body=answer.model_dump_json(), content_type="application/json")
