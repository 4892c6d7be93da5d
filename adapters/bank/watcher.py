"""Looks into the mailbox when nobody asks, and tells of what nobody asked about: money in, and money that came back."""

import asyncio
import logging
import time as clock
from collections import deque
from datetime import UTC, datetime, time
from itertools import islice
from zoneinfo import ZoneInfo

from redis.exceptions import RedisError

from adapters.bank import metrics
from adapters.bank.answers import RETURN_REASONS, outcome_of
from adapters.bank.files import Files
from adapters.bank.mailbox import Mailbox
from adapters.bank.names import visible
from adapters.bank.references import virtual_reference
from adapters.bank.reports import Entry, Fact, ReturnNotice
from adapters.bank.settings import BankSettings
from adapters.runtime import errors
from adapters.runtime.core_client import CoreRefusedError, CoreUnavailableError
from adapters.runtime.port import Listener
from adapters.runtime.telling import tell_facts
from schemas.announced_returns import MOST_ANNOUNCED, REASON_LENGTH_MAX, AnnouncedReturn, AnnouncedReturns
from schemas.collections import PaymentKind, PaymentSource, PaymentStatus, ProviderPayment
from schemas.ids import derive_id
from schemas.operations import JobKind
from schemas.rails import EvidenceItem
from schemas.results import Basis, Result, Verdict

log = logging.getLogger(__name__)

_PAGE = 200
_AGAIN_S = 60
"""How long a fact that the core refused waits, in seconds, until it is told again."""
_REFERENCE_MAX = 40
"""The longest reference, in characters, that a file of ours can name."""
_EVIDENCE_MAX = 64_000


class Watcher:
    """Tells each booked movement once. What could not be told goes on waiting; a new process tells all again."""

    def __init__(self, rail: str, mailbox: Mailbox, files: Files, settings: BankSettings) -> None:
        self._rail, self._mailbox, self._files, self._settings = rail, mailbox, files, settings
        self._seen: set[tuple[str, bool, str, int]] = set()
        self._facts: deque[ProviderPayment] = deque()
        self._came_back: deque[Entry] = deque()
        self._refused: deque[ProviderPayment] = deque()
        self._again_at_s = 0.0
        self._early: dict[str, list[Entry]] = {}
        self._announced: deque[AnnouncedReturn] = deque()
        mailbox.listeners.append(self._note)

    async def run(self, listener: Listener) -> None:
        """Read and tell until cancelled."""
        while True:
            try:
                await self._mailbox.read()
                await self.tell(listener)
            except errors.AdapterError as error:
                log.warning("the mailbox cannot be read: %s", error)
            except (CoreUnavailableError, CoreRefusedError, RedisError) as error:
                log.warning("what the bank reported is told later: %s", type(error).__name__)
            except Exception:
                # Money in must not stop for what nobody foresaw in one message.
                log.exception("the mailbox was not read to its end")
            await asyncio.sleep(self._settings.watch_every_s)

    async def tell(self, listener: Listener) -> None:
        """Tell what waits. Raises the core client's errors and RedisError; what was not told goes on waiting.

        What the core refuses by itself is set aside and told again every minute, a page of it, behind all others.
        """
        for _ in range(len(self._came_back)):
            later = await self._try_return(listener, self._came_back[0])
            self._came_back.popleft()
            self._came_back += later
        while self._facts:
            await self._tell_page(listener, self._facts)
        if self._refused and clock.monotonic() >= self._again_at_s:
            await self._tell_page(listener, self._refused)
        # Last: they move nothing, and hold nothing up that does.
        while self._announced:
            items = [self._announced[at] for at in range(min(MOST_ANNOUNCED, len(self._announced)))]
            await listener.announce(self._batch(items))
            for _ in items:
                self._announced.popleft()

    async def _tell_page(self, listener: Listener, waiting: deque[ProviderPayment]) -> None:
        page = list(islice(waiting, _PAGE))
        refused = await tell_facts(listener, page)
        for _ in page:
            waiting.popleft()
        if refused:
            self._refused += refused
            self._again_at_s = clock.monotonic() + _AGAIN_S
        metrics.FACTS_REFUSED.set(len(self._refused))

    async def _try_return(self, listener: Listener, entry: Entry) -> list[Entry]:
        """Tell of money that came back; return it where the core refuses it, to be told in the next round."""
        try:
            await self._tell_return(listener, entry)
        except CoreRefusedError as error:
            log.warning("money that came back is told later: %s", error)
            return [entry]
        except (CoreUnavailableError, RedisError):
            raise
        except Exception as error:  # noqa: BLE001 - no other return and no payment in waits behind an odd one
            metrics.ENTRIES_REFUSED.inc()
            log.error("money that came back is not told: %s", type(error).__name__)  # noqa: TRY400 - may quote the bank
        return []

    async def _tell_return(self, listener: Listener, entry: Entry) -> None:
        reference = entry.end_to_end_id
        held = (await self._files.holding([reference])).get(reference) if 0 < len(reference) <= _REFERENCE_MAX else None
        if held is None:
            self._tell_unowned(entry, "of no payment of ours")
            return
        try:
            outcome = outcome_of(self._mailbox.known(reference), None)
        except errors.ProtocolViolation:
            self._tell_unowned(entry, "of a payment that the account shows twice")
            return
        if outcome is None or outcome.verdict is not Verdict.RETURNED:
            # Back before the account shows that it left: told when it does.
            self._early.setdefault(reference, []).append(entry)
            return
        shown = EvidenceItem(
            id=derive_id(held.job_id, "returned", str(outcome.amount_minor)),
            job_id=held.job_id,
            kind="statement_return",
            raw=outcome.evidence[:_EVIDENCE_MAX],
        )
        evidence_id = await listener.keep_evidence(shown)
        await listener.tell(
            Result(
                job_id=held.job_id,
                rail=self._rail,
                kind=JobKind.PAY,  # or a refund: the file does not say, and the core knows the job
                fence=1,
                verdict=outcome.verdict,
                basis=Basis.REFERENCE_STATUS,
                reference=reference,
                amount_minor=outcome.amount_minor,
                currency=outcome.currency,
                provider_tx_id=outcome.provider_tx_id,
                reason=outcome.reason,
                evidence_id=evidence_id,
                observed_at=datetime.now(UTC),
            )
        )

    def _tell_unowned(self, entry: Entry, why: str) -> None:
        """It is money on our account whatever it came for: a payment in that names nothing rests in suspense."""
        log.error("money came back, %s: it is told as paid in by nobody", why)
        self._facts.append(self._fact(entry, PaymentKind.PAYMENT, entry.bank_reference, reference=""))

    def _batch(self, items: list[AnnouncedReturn]) -> AnnouncedReturns:
        settings = self._settings
        return AnnouncedReturns(
            provider_account=settings.provider_account,
            environment=settings.environment,
            booked_within_s=settings.settlement_s,
            items=items,
        )

    def _note(self, fact: Fact) -> None:
        if isinstance(fact, ReturnNotice):
            if fact.is_about(self._settings.account):
                self._announced.append(_announcement(fact))
            return
        if not isinstance(fact, Entry) or not fact.is_booked or fact.account != self._settings.account:
            return
        # Movements of one entry may share its name: who and how much tell them apart.
        movement = (fact.bank_reference, fact.is_credit, fact.end_to_end_id, fact.amount_minor)
        if not fact.amount_minor or movement in self._seen or self._mailbox.is_total(fact):
            return  # told before, told in parts, or nothing that moved
        if fact.is_credit and fact.is_return:
            self._came_back.append(fact)
        elif fact.is_credit:
            self._facts.append(self._fact(fact, PaymentKind.PAYMENT, fact.bank_reference))
        elif fact.is_return:
            known = self._mailbox.known(fact.end_to_end_id)
            paid_in = next(iter(known.credits), "") if known is not None else ""
            # Under the name of what was paid in, which is what is taken back.
            self._facts.append(self._fact(fact, PaymentKind.RETURN, paid_in or fact.bank_reference))
        else:
            self._came_back += self._early.pop(fact.end_to_end_id, ())
        # Only now: where it could not be taken, another message that shows it may be read better.
        self._seen.add(movement)

    def _fact(
        self, entry: Entry, kind: PaymentKind, transaction_id: str, reference: str | None = None
    ) -> ProviderPayment:
        day = datetime.fromisoformat(entry.value_date).date() if entry.value_date else datetime.now(UTC).date()
        return ProviderPayment(
            provider_account=self._settings.provider_account,
            environment=self._settings.environment,
            transaction_id=transaction_id,
            kind=kind,
            status=PaymentStatus.SUCCEEDED,
            amount_minor=entry.amount_minor,
            currency=entry.currency,
            reference=visible(virtual_reference(entry) or entry.end_to_end_id) if reference is None else reference,
            source=PaymentSource.STATEMENT,
            occurred_at=datetime.combine(day, time(), ZoneInfo(self._settings.timezone)),
        )


def _announcement(notice: ReturnNotice) -> AnnouncedReturn:
    return AnnouncedReturn(
        name=notice.name,
        reference=notice.end_to_end_id,
        amount_minor=notice.amount_minor,
        currency=notice.currency,
        reason=RETURN_REASONS.get(notice.reason, ""),
        provider_reason=visible(notice.reason, REASON_LENGTH_MAX),
        raw=notice.evidence,
    )
