"""Accept payments: many requests in one transaction, each under its idempotency key, each with its own answer."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.fees import FREE, Pricing
from core.domain.ids import mint_ids
from core.domain.intents import IntentRow
from core.domain.registry import OPERATIONS
from core.services.access.acting import made_for
from core.services.access.keys import Caller, HeldNonce, replayed
from core.services.ledger_port import TrustMisplacedError
from core.services.payments.authorize import (
    AuthorizePorts,
    Intents,
    Moment,
    Outcome,
    new_job,
    place_holds,
    refused_at_last,
)
from core.services.payments.mandates import Mandates, Signed, lock_mandates
from core.services.payments.micro_batch import MicroBatcher
from core.services.payments.plans import (
    Asked,
    Plan,
    adjusts_alone,
    asking_wallet,
    payee_of,
    plan_payment,
    priced_as,
    require_operation,
    row_of,
    take,
    with_fees,
)
from core.services.payments.refunds import FeeRules, lock_originals
from core.services.payments.request_hash import request_hash
from core.services.problems import Refusal
from core.services.terms.fees import Payment
from core.services.terms.quotes import Quotes, lock_quotes
from core.services.vault_port import Plain, Sealed, SubjectRacedError, Vault
from core.services.wallets.wallets import Wallet
from schemas.api import IntentRequest
from schemas.events import IntentState
from schemas.operations import JobKind
from wire.failpoints import failpoint

_WALLETS_KEPT: Final = 50_000
_WORTH_ANOTHER: Final = 100
"""Fewer single payments than this wait for the transaction under way and share the next."""
_RACES: Final = 5
"""A race is another transaction making the same payee's key first: the next attempt finds it."""


class InFlightError(RuntimeError):
    """Another transaction holds one of the keys and has not committed."""


class DrawnInVainError(RuntimeError):
    """A debit stood before others of its mandate in a batch, and was not made: each of them is asked for alone."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One idempotency key; it is claimed only where the request is `valid`."""

    key: str
    request_hash: bytes
    intent_id: UUID
    valid: bool
    nonce: str | None = None
    """Spent with the claim, whether the request is valid or not."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a key stands for."""

    request_hash: bytes
    intent_id: UUID


@dataclass(frozen=True, slots=True)
class Claimed:
    """What acceptance is told at its beginning, in one call: a round trip costs a lone payment more than the work."""

    moment: Moment
    known: Mapping[str, Known]
    wrapped_keys: Mapping[UUID, bytes | None]
    """The keys of the subjects that exist; None for one that was erased."""
    replayed: frozenset[str] = frozenset()
    """The keys whose requests had a nonce that was seen before: nothing was claimed for them."""


class Idempotency(Protocol):
    """Spends nonces, claims keys, and tells the transaction's moment and the subjects' keys. Raises InFlightError."""

    async def claim(
        self, uow: Any, service_key_id: str, claims: Sequence[Claim], subjects: Sequence[UUID]
    ) -> Claimed: ...


class AcceptedIntents(Intents, Protocol):
    """What acceptance needs of the intents' store."""

    async def insert_intents(self, uow: Any, intents: Sequence[IntentRow], actors: Sequence[str] = ()) -> None: ...
    async def load_intents(self, uow: Any, ids: Sequence[UUID], *, lock: bool = False) -> dict[UUID, IntentRow]: ...
    async def refunds_of(self, uow: Any, originals: Sequence[UUID]) -> list[IntentRow]: ...
    async def accept_deadlines(self, uow: Any, ids: Sequence[UUID]) -> dict[UUID, datetime | None]: ...


class Wallets(Protocol):
    """Finds wallets of the tenant."""

    async def find_wallets(self, uow: Any, ids: Sequence[UUID]) -> dict[UUID, Wallet]: ...


class Fees(Protocol):
    """Prices payments of a tenant, each alone."""

    async def fees_for(self, uow: Any, tenant_id: UUID, payments: Sequence[Payment]) -> Sequence[Pricing | Refusal]: ...


class TenantPolicies(Protocol):
    """What a tenant's operator has set."""

    async def adjusts_alone_minor(self, uow: Any, tenant_id: UUID) -> int:
        """Return up to which amount one key adjusts alone, in minor units of any currency."""
        ...


class AcceptPorts(AuthorizePorts, Protocol):
    """What acceptance works with."""

    @property
    def intents(self) -> AcceptedIntents: ...
    @property
    def idempotency(self) -> Idempotency: ...
    @property
    def wallets(self) -> Wallets: ...
    @property
    def tenants(self) -> TenantPolicies: ...
    @property
    def vault(self) -> Vault: ...
    @property
    def fees(self) -> Fees: ...
    @property
    def fee_rules(self) -> FeeRules: ...
    @property
    def quotes(self) -> Quotes: ...
    @property
    def mandates(self) -> Mandates: ...
    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...
    @property
    def shared_faults(self) -> tuple[type[Exception], ...]: ...


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer: the intent as it was when it was accepted."""

    intent: IntentRow
    replayed: bool


class AcceptService:
    """Accepts through one door per service key; at most `in_flight` transactions run at a time."""

    def __init__(self, ports: AcceptPorts, *, batch: int, in_flight: int, confirm_within: timedelta) -> None:
        self._ports, self._batch, self._in_flight, self._confirm_within = ports, batch, in_flight, confirm_within
        self._slots = asyncio.Semaphore(in_flight)
        self._doors: dict[str, MicroBatcher[Asked, Accepted | Refusal]] = {}
        self._busy: dict[tuple[str, str], HeldNonce | None] = {}
        self._wallets: dict[UUID, Wallet] = {}
        self._doubted: set[str] = set()
        """The keys of whose last payments limits or ledger did not take all."""

    async def accept(
        self,
        caller: Caller,
        key: str,
        request: IntentRequest,
        traceparent: str | None = None,
        nonce: HeldNonce | None = None,
    ) -> Accepted:
        """Accept one request, or answer it as the first time. Raises Refusal; then nothing was changed.

        The nonce is spent in the same transaction; it stays unspent where the refusal came before that.
        """
        [answer] = await self.accept_all(caller, [(key, request)], traceparent, nonce)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def accept_all(
        self,
        caller: Caller,
        requests: Sequence[tuple[str, IntentRequest]],
        traceparent: str | None = None,
        nonce: HeldNonce | None = None,
    ) -> list[Accepted | Exception]:
        """Accept many requests, each under its key. An answer that is a Refusal, or a fault, changed nothing."""
        answers: dict[int, Accepted | Exception] = {}
        asked: dict[int, Asked] = {}
        minted = mint_ids(time.time_ns() // 1_000_000, len(requests))
        for place, ((key, request), intent_id) in enumerate(zip(requests, minted, strict=True)):
            try:
                require_operation(caller, request)
                caller.require_account(asking_wallet(request))
                asking = made_for(caller, request)
                self._begin(caller, key, nonce)
            except Refusal as refusal:
                answers[place] = refusal
                continue
            asked[place] = Asked(caller, key, asking, request_hash(asking), intent_id, traceparent, nonce)
        try:
            answers |= zip(asked, await self._door(caller).submit_all(list(asked.values())), strict=True)
        finally:
            for each in asked.values():
                del self._busy[caller.key_id, each.key]
        return [answers[place] for place in range(len(requests))]

    def _begin(self, caller: Caller, key: str, nonce: HeldNonce | None) -> None:
        claim = (caller.key_id, key)
        if claim in self._busy:
            first = self._busy[claim]
            if nonce is not None and first is not None and first is not nonce and first.text == nonce.text:
                # The same bytes twice. The first spends the nonce: spent here, it would turn that one into the replay.
                nonce.is_spent = True
                raise replayed()
            raise Refusal("idempotency_in_flight", "the first request under this key is not answered yet: repeat soon")
        self._busy[claim] = nonce

    def _door(self, caller: Caller) -> MicroBatcher[Asked, Accepted | Refusal]:
        door = self._doors.get(caller.key_id)
        if door is None:
            door = self._doors[caller.key_id] = MicroBatcher(
                self._run,
                limit=self._batch,
                in_flight=self._in_flight,
                worth=_WORTH_ANOTHER,
                shared_faults=self._ports.shared_faults,
            )
        return door

    async def _run(self, batch: Sequence[Asked]) -> list[Accepted | Refusal]:
        async with self._slots:
            try:
                answers = await self._committed(batch)
            except InFlightError:
                if len(batch) > 1:
                    raise
                text = "the first request under this key is not answered yet: repeat soon"
                return [Refusal("idempotency_in_flight", text)]
        for asked in batch:
            if asked.nonce is not None:
                asked.nonce.is_spent = True
        failpoint("api.after_commit")
        return answers

    async def _committed(self, batch: Sequence[Asked]) -> list[Accepted | Refusal]:
        # As if limits and ledger took every payment: their word comes with the last statement, so that what is hot is
        # locked for the commit alone. Where it is no, all is asked again, and each payment that is refused is told why.
        key_id = batch[0].caller.key_id
        if key_id not in self._doubted:
            with suppress(TrustMisplacedError):
                return await self._raced(batch, trusting=True)
        # Who has one refused mostly has the next refused too: each such batch would be written twice.
        self._doubted.add(key_id)
        answers = await self._raced(batch, trusting=False)
        if not any(isinstance(each, Accepted) and refused_at_last(each.intent) for each in answers):
            self._doubted.discard(key_id)
        return answers

    async def _raced(self, batch: Sequence[Asked], *, trusting: bool) -> list[Accepted | Refusal]:
        for _ in range(_RACES - 1):
            with suppress(SubjectRacedError):
                return await self._once(batch, trusting=trusting)
        return await self._once(batch, trusting=trusting)

    async def _once(self, batch: Sequence[Asked], *, trusting: bool) -> list[Accepted | Refusal]:
        async with self._ports.unit_of_work(batch[0].caller.context()) as uow:
            uow.trusting = trusting
            answers = await self._accept_batch(uow, batch)
            failpoint("api.before_commit")
        return answers

    async def _accept_batch(self, uow: Any, batch: Sequence[Asked]) -> list[Accepted | Refusal]:
        ports = self._ports
        plans, signed = await self._plans(uow, batch)
        claims = [
            Claim(
                asked.key,
                asked.request_hash,
                asked.intent_id,
                isinstance(plan, Plan),
                asked.nonce.text if asked.nonce is not None else None,
            )
            for asked, plan in zip(batch, plans, strict=True)
        ]
        plains = {
            asked.intent_id: plain
            for asked, plan in zip(batch, plans, strict=True)
            if isinstance(plan, Plan) and (plain := self._plain(asked, plan)) is not None
        }
        subjects = list({plain.subject_id for plain in plains.values()})
        claimed = await ports.idempotency.claim(uow, batch[0].caller.key_id, claims, subjects)
        known = claimed.known
        fresh = {
            asked.intent_id: (asked, plan)
            for asked, plan in zip(batch, plans, strict=True)
            if isinstance(plan, Plan) and (one := known.get(asked.key)) and one.intent_id == asked.intent_id
        }
        sealed = await ports.vault.seal_instructions(
            uow, [plain for intent_id, plain in plains.items() if intent_id in fresh], claimed.wrapped_keys
        )
        rows = await self._create(uow, fresh, claimed.moment, sealed)
        if len(batch) > 1 and signed.drawn_in_vain(
            plan.drawn for each, (_, plan) in fresh.items() if rows[each].state != IntentState.FAILED
        ):
            raise DrawnInVainError("a debit counted as an earlier one of its mandate, and was not made")
        first = await self._first_answers(
            uow, [item.intent_id for item in known.values() if item.intent_id not in fresh]
        )
        return [
            replayed() if asked.key in claimed.replayed else _answer(asked, plan, known.get(asked.key), rows, first)
            for asked, plan in zip(batch, plans, strict=True)
        ]

    def _plain(self, asked: Asked, plan: Plan) -> Plain | None:
        payee, tenant_id = payee_of(plan), asked.caller.tenant_id
        if payee is None:
            return None
        subject_id = self._ports.vault.subject_id(tenant_id, payee)
        return Plain(asked.intent_id, tenant_id, subject_id, payee, asked.request.message)

    async def _plans(self, uow: Any, batch: Sequence[Asked]) -> tuple[list[Plan | Refusal], Signed]:
        routes = await self._ports.routes.routes_of(uow, batch[0].caller.tenant_id)
        wanted = {asked.request.wallet_id for asked in batch}
        wanted |= {other for asked in batch if (other := asked.request.counterparty_wallet_id) is not None}
        # A batch holds on to its own: another one, beside it, may clear what all remember.
        wallets = {wallet_id: self._wallets[wallet_id] for wallet_id in wanted if wallet_id in self._wallets}
        if unknown := [wallet_id for wallet_id in wanted if wallet_id not in wallets]:
            read = await self._ports.wallets.find_wallets(uow, unknown)
            wallets |= read
            if len(self._wallets) > _WALLETS_KEPT:
                self._wallets.clear()
            # Kept for good: a wallet's tenant and currency never change.
            self._wallets |= read
        tenant_id, requests = batch[0].caller.tenant_id, [each.request for each in batch]
        originals = await lock_originals(uow, self._ports, tenant_id, requests)
        quotes = await lock_quotes(uow, self._ports.quotes, tenant_id, requests)
        signed = await lock_mandates(uow, self._ports, requests)
        sources = {each.original.rail for each in originals.values() if each.original.is_collected}
        rails = {
            rail: found
            for rail in sources
            if rail is not None and (found := await self._ports.routes.registration_of(uow, rail)) is not None
        }
        plans: list[Plan | Refusal] = []
        for asked in batch:
            try:
                plans.append(plan_payment(asked, wallets, routes, originals, quotes, rails, signed))
            except Refusal as refusal:
                plans.append(refusal)
        await self._need_two(uow, batch, plans)
        await self._price(uow, batch, plans)
        return plans, signed

    async def _need_two(self, uow: Any, batch: Sequence[Asked], plans: Sequence[Plan | Refusal]) -> None:
        """Let what a hand moves above what the tenant lets one key do alone wait for a second key."""
        adjusted = [
            (plan, asked.request.amount_minor)
            for asked, plan in zip(batch, plans, strict=True)
            if isinstance(plan, Plan) and plan.moved_by_hand(asked.request) and not adjusts_alone(asked.caller)
        ]
        if not adjusted:
            return
        alone_minor = await self._ports.tenants.adjusts_alone_minor(uow, batch[0].caller.tenant_id)
        released: Counter[UUID] = Counter()
        for plan, amount_minor in adjusted:
            if plan.refunds is None:
                plan.by_two = amount_minor > alone_minor
                continue
            # All parts of what rests in suspense are one decision, whoever asked for those before.
            original = plan.refunds.original.id
            released[original] += amount_minor
            plan.by_two = plan.refunds.refunded_minor + released[original] > alone_minor

    async def _price(self, uow: Any, batch: Sequence[Asked], plans: list[Plan | Refusal]) -> None:
        """Put the fees into the plans; a payment that has no price becomes a refusal."""
        priced = [
            (place, plan)
            for place, plan in enumerate(plans)
            if isinstance(plan, Plan) and OPERATIONS[plan.operation].takes_fees
        ]
        if not priced:
            return
        payments = [priced_as(batch[place].request, plan.quote) for place, plan in priced]
        answers = await self._ports.fees.fees_for(uow, batch[0].caller.tenant_id, payments)
        for (place, plan), answer in zip(priced, answers, strict=True):
            if answer is not FREE:
                plans[place] = with_fees(plan, batch[place].request, answer)

    async def _create(
        self,
        uow: Any,
        fresh: Mapping[UUID, tuple[Asked, Plan]],
        moment: Moment,
        sealed: Mapping[UUID, Sealed],
    ) -> dict[UUID, IntentRow]:
        if not fresh:
            return {}
        rows: dict[UUID, IntentRow] = {}
        for intent_id, (asked, plan) in fresh.items():
            row = rows[intent_id] = row_of(asked, plan, moment)
            if intent_id in sealed:
                row.subject_id, row.instruction = sealed[intent_id].subject_id, sealed[intent_id].ciphertext
        gone = {row.id: why for row in rows.values() if (why := take(row, fresh[row.id][1])) is not None}
        used = {row.exchange.quote_id: row.id for row in rows.values() if row.exchange and row.id not in gone}
        if used:
            await self._ports.quotes.use_quotes(uow, used)
        drawn = {
            each: (plan.drawn.mandate.mandate_id, plan.drawn.sequence)
            for each, (_, plan) in fresh.items()
            if plan.drawn
        }
        if drawn:
            await self._ports.mandates.draw(uow, drawn)
        direct = [row for intent_id, row in rows.items() if not fresh[intent_id][1].lookup and row.id not in gone]
        # The terms are those that each payment was planned by: no item can fail on them here, among its neighbours.
        terms = {intent_id: plan.chosen.terms for intent_id, (_, plan) in fresh.items() if plan.chosen is not None}
        originals = {
            intent_id: plan.refunds.original for intent_id, (_, plan) in fresh.items() if plan.refunds is not None
        }
        outcomes = await place_holds(uow, self._ports, direct, terms, moment, originals)
        failed = {each: Outcome(each, IntentState.FAILED, None, *why) for each, why in gone.items()}
        for row in rows.values():
            if fresh[row.id][1].lookup:
                continue
            outcome = failed.get(row.id) or outcomes[row.id]
            row.state = row.accept_state = outcome.state
            row.deadline = outcome.deadline
            row.review_until = outcome.deadline if outcome.state is IntentState.REVIEW else None
            row.failure_code, row.failure_message = outcome.failure_code, outcome.failure_message
            row.decision = "POST" if outcome.state is IntentState.SETTLED else None
        lookups = []
        for row in rows.values():
            if fresh[row.id][1].lookup:
                row.deadline = moment.now + self._confirm_within
                length = terms[row.id].reference_length
                lookups.append(new_job(row, JobKind.LOOKUP, row.deadline, length, moment.ledger_epoch))
        await self._ports.jobs.insert_first_jobs(uow, lookups)
        actors = [fresh[intent_id][0].caller.actor for intent_id in rows]
        await self._ports.intents.insert_intents(uow, list(rows.values()), actors)
        return rows

    async def _first_answers(self, uow: Any, ids: Sequence[UUID]) -> dict[UUID, IntentRow]:
        """The intents as they were when they were accepted."""
        if not ids:
            return {}
        rows = await self._ports.intents.load_intents(uow, ids)
        deadlines = await self._ports.intents.accept_deadlines(uow, ids)
        for row in rows.values():
            row.state, row.updated_at, row.deadline = row.accept_state, row.created_at, deadlines.get(row.id)
            row.provider_reference = row.lookup = None
            if row.accept_state == IntentState.VALIDATED:
                row.fee_minor = row.fees_on_top_minor
            if row.accept_state != IntentState.FAILED:
                row.failure_code = row.failure_message = None
        return rows


def _answer(
    asked: Asked,
    plan: Plan | Refusal,
    known: Known | None,
    rows: dict[UUID, IntentRow],
    first: dict[UUID, IntentRow],
) -> Accepted | Refusal:
    if known is None:
        # Only what is not valid stays unclaimed.
        return plan if isinstance(plan, Refusal) else Refusal("internal", "the key was not claimed")
    if known.intent_id == asked.intent_id:
        return Accepted(rows[asked.intent_id], replayed=False)
    if known.request_hash != asked.request_hash:
        text = "this Idempotency-Key was used for another request: use a key of its own for each payment"
        return Refusal("idempotency_conflict", text, field="Idempotency-Key")
    return Accepted(first[known.intent_id], replayed=True)
