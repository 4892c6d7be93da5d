"""The adapter's way into the core: registration, permits, evidence. Signed, repeated only where that is safe."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp
from pydantic import BaseModel, ValidationError
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt, wait_random_exponential
from tenacity.stop import stop_after_delay

from adapters.runtime.timing import clock_s
from schemas.collections import ProviderPaymentAnswers, ProviderPaymentBatch
from schemas.permits import LAST_SENDING, PermitAnswer, PermitRequest, PermitResponse, Sending
from schemas.rails import EvidenceBatch, EvidenceItem, RailRegistration, RailWaits
from wire.sending import sends_once
from wire.signing import signed_headers

ATTEMPTS: Final = 3
UNHEARD_S: Final = 15.0
"""A failure that is older says nothing: nobody has asked since."""

Answer = TypeVar("Answer", bound=BaseModel)


class CoreUnavailableError(Exception):
    """The core did not answer. Nothing was learned, so nothing may be sent."""


class CoreRefusedError(Exception):
    """The core answered that it will not; `status` is HTTP's, the text is the core's own."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:300]}")
        self.status = status


@dataclass(frozen=True, slots=True)
class PermitReply:
    """One answer per job id, in order; `sent_at_s` is where the clock of S starts (see timing.clock_s).

    That is the sending of the very request that was answered: what is left of a permit that an earlier one committed is
    counted by the core, after this sending.
    """

    answers: Sequence[PermitAnswer]
    sent_at_s: float


class Asking:
    """One asking for permits, until it is answered: each sending has the next number in its id.

    So the core knows that no answer to an earlier sending was read, and that one which arrives late is the older.
    """

    def __init__(self) -> None:
        self._last = _anew()

    def next_id(self) -> UUID:
        """Return the id of the sending that begins now; no answer to an earlier one may be read any more."""
        asking, number = self._last
        if number == LAST_SENDING:
            asking, number = _anew()
        self._last = Sending(asking, number + 1)
        return self._last.request_id


def _anew() -> Sending:
    return Sending(Sending.of(uuid.uuid4()).asking, 0)


class PermitPort(Protocol):
    """Where permits come from. The core over HTTP; a benchmark may answer in its own process."""

    async def request(self, job_ids: Sequence[UUID], asking: Asking) -> PermitReply:
        """Ask for these jobs. Raises CoreUnavailableError or CoreRefusedError.

        Asked again as the same asking, it says that no answer was read before, and none will be: so no permit is burnt
        by a lost answer (protocol.md §3).
        """
        ...


class EvidencePort(Protocol):
    """Where raw answers are kept, encrypted."""

    async def post_evidence(self, items: Sequence[EvidenceItem]) -> None:
        """Keep these; a repeat is one row. Raises CoreUnavailableError or CoreRefusedError."""
        ...


class PaymentsPort(Protocol):
    """Where facts about money that came in are taken."""

    async def post_payments(self, batch: ProviderPaymentBatch) -> ProviderPaymentAnswers:
        """Take these; a repeat has no further effect. Raises CoreUnavailableError or CoreRefusedError."""
        ...


class LearnedPort(EvidencePort, PaymentsPort, Protocol):
    """Where what a job brought is taken, beside its verdict."""


class CoreClient:
    """Speaks the internal API under one rail's key. `timeout_s` bounds one request, `budget_s` all repeats."""

    def __init__(
        self, base_url: str, *, key_id: str, secret: str, timeout_s: float = 2.0, budget_s: float = 4.0
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._prefix = urlsplit(self._base_url).path
        self._key_id, self._secret = key_id, secret
        self._timeout_s, self._budget_s = timeout_s, budget_s
        self.incarnation: Final = uuid.uuid4()
        self._session: aiohttp.ClientSession | None = None
        self._unanswered_s: float | None = None

    @property
    def is_cut_off(self) -> bool:
        """Whether the last that was asked, a moment ago, was not answered; a refusal is an answer."""
        return self._unanswered_s is not None and clock_s() - self._unanswered_s < UNHEARD_S

    async def register(self, registration: RailRegistration) -> None:
        """Announce the rail, once. Raises CoreUnavailableError or CoreRefusedError (with the numbers)."""
        body = registration.model_dump_json().encode()
        await self._call("PUT", f"/internal/v1/rails/{registration.rail}", body)

    async def say_waits(self, rail: str, waits: RailWaits) -> None:
        """Say which operations are held back. Raises CoreUnavailableError or CoreRefusedError."""
        await self._call("POST", f"/internal/v1/rails/{rail}/waits", waits.model_dump_json().encode())

    async def request(self, job_ids: Sequence[UUID], asking: Asking) -> PermitReply:
        """Ask for permits; a lost answer is asked for again as the same asking, here and by whoever calls again."""
        ids, sent_at_s = list(job_ids), 0.0

        async def ask() -> bytes:
            nonlocal sent_at_s
            request = PermitRequest(request_id=asking.next_id(), incarnation=self.incarnation, job_ids=ids)
            sent_at_s = clock_s()
            return await self._call("POST", "/internal/v1/permits", request.model_dump_json().encode())

        response = self._read(PermitResponse, await self._repeated(ask))
        if [answer.job_id for answer in response.answers] != ids:
            raise CoreRefusedError(200, "the answers are not those of the jobs that were asked for")
        return PermitReply(response.answers, sent_at_s)

    async def post_evidence(self, items: Sequence[EvidenceItem]) -> None:
        """Keep raw answers; the ids are ours, so a repeat is one row."""
        body = EvidenceBatch(items=list(items)).model_dump_json().encode()
        await self.ask("/internal/v1/evidence", body)

    async def post_payments(self, batch: ProviderPaymentBatch) -> ProviderPaymentAnswers:
        """Take facts about money that came in; a repeat is harmless."""
        path = "/internal/v1/provider-payments"
        answer = await self.ask(path, batch.model_dump_json().encode())
        return self._read(ProviderPaymentAnswers, answer)

    async def ask(self, path: str, body: bytes) -> bytes:
        """POST what may be repeated without harm and return the answer. Raises as `request` does."""
        return await self._repeated(lambda: self._call("POST", path, body))

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()

    async def _repeated(self, call: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(CoreUnavailableError),
                stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(self._budget_s),
                wait=wait_random_exponential(multiplier=0.05, max=0.5),
            ):
                with attempt:
                    return await call()
        except RetryError as error:
            raise CoreUnavailableError(str(error.last_attempt.exception())) from error
        raise AssertionError("unreachable: tenacity returns or raises")

    async def _call(self, method: str, path: str, body: bytes) -> bytes:
        try:
            status, answer = await self._sent(method, path, body)
        except CoreUnavailableError:
            self._unanswered_s = clock_s()
            raise
        self._unanswered_s = None
        if status >= 300:
            raise CoreRefusedError(status, answer.decode(errors="replace"))
        return answer

    async def _sent(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if self._session is None:
            self._session = sends_once(
                aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(total=self._timeout_s), cookie_jar=aiohttp.DummyCookieJar()
                )
            )
        headers = signed_headers(
            method=method,
            path=self._prefix + path,
            body=body,
            key_id=self._key_id,
            secret=self._secret,
            timestamp=int(time.time()),
            nonce=uuid.uuid4().hex,
        )
        headers["Content-Type"] = "application/json"
        try:
            async with self._session.request(
                method, self._base_url + path, data=body, headers=headers, allow_redirects=False
            ) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise CoreUnavailableError(type(error).__name__) from error
        if response.status >= 500 or response.status == 429:
            raise CoreUnavailableError(f"HTTP {response.status}")
        return response.status, answer

    def _read(self, model: type[Answer], answer: bytes) -> Answer:
        """Return the answer. Raises CoreUnavailableError where a front, or a newer core, said what we cannot read."""
        try:
            return model.model_validate_json(answer)
        except ValidationError as error:
            # Nobody gets a permit by it: the core is as far away as behind a front that says nothing.
            self._unanswered_s = clock_s()
            fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
            raise CoreUnavailableError(f"no {model.__name__}: {fault['type']} at {fault['loc']}") from None


async def register_until_answered(client: CoreClient, registration: RailRegistration, stop: asyncio.Event) -> bool:
    """Announce the rail until the core has answered; False if `stop` came first. Raises CoreRefusedError on 4xx."""
    wait_s = 0.1
    while not stop.is_set():
        try:
            await client.register(registration)
        except CoreUnavailableError:
            try:
                async with asyncio.timeout(wait_s):
                    await stop.wait()
            except TimeoutError:
                wait_s = min(wait_s * 2, 5.0)
            continue
        return True
    return False
