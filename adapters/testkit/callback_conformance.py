"""The part of the conformance suite about callbacks: genuine ones are understood, all others have no effect."""

# ruff: noqa: S101 - a suite asserts

import time
from collections.abc import Sequence
from typing import Any, Final, Protocol, runtime_checkable

import httpx
import pytest

from adapters.runtime.callbacks import CallbackReceiver, CallbackRefused, CallbackSettings
from adapters.runtime.port import Callback, Rail, ReceivesCallbacks, Verified
from schemas.collections import PaymentFate, ProviderPayment, ProviderPaymentAnswers, ProviderPaymentBatch
from schemas.rails import EvidenceItem

_YEAR_S: Final = 366 * 86_400


class _HasRail(Protocol):
    rail: Rail


@runtime_checkable
class CallsBack(Protocol):
    """A harness whose provider can be made to call back."""

    async def callback(self) -> Callback:
        """Return what the provider would send now about a transaction that succeeded, signed as it signs."""
        ...


class _Core:
    """Keeps what the receiver brings, as the core would: the same event again is a replay."""

    def __init__(self) -> None:
        self.evidence: list[EvidenceItem] = []
        self.batches: list[ProviderPaymentBatch] = []

    async def post_evidence(self, items: Sequence[EvidenceItem]) -> None:
        self.evidence += items

    async def post_payments(self, batch: ProviderPaymentBatch) -> ProviderPaymentAnswers:
        replayed = any(batch.event_id == known.event_id for known in self.batches)
        self.batches.append(batch)
        return ProviderPaymentAnswers(fates=[PaymentFate.NOTED] * len(batch.facts), replayed=replayed)


class CallbackConformance:
    """Every rail that receives callbacks passes these; its harness is a `CallsBack` too."""

    async def test_a_genuine_callback_is_kept_before_it_is_acknowledged_and_a_repeat_is_the_same_event(
        self, harness: _HasRail
    ) -> None:
        rail, callback = await _genuine(harness)
        first, second = await rail.verify(callback), await rail.verify(callback)
        assert _told(first) == _told(second)
        assert first.event_id == second.event_id
        core = _Core()
        assert [await _deliver(rail, core, callback) for _ in range(2)] == [200, 200]
        assert core.evidence
        assert callback.body.decode(errors="backslashreplace")[:64_000] == core.evidence[0].raw
        assert len({batch.event_id for batch in core.batches}) <= 1

    async def test_a_forged_callback_has_no_effect(self, harness: _HasRail) -> None:
        rail, genuine = await _genuine(harness)
        believed = _believed(await rail.verify(genuine))
        core = _Core()
        for forged in _forgeries(genuine):
            try:
                verified = await rail.verify(forged)
            except CallbackRefused:
                # 503 where what no signature covers names something that the provider does not show: not taken either.
                assert await _deliver(rail, core, forged) in (400, 401, 403, 503)
                continue
            # Where the signature leaves a field out, what is confirmed must be the provider's truth all the same.
            assert _believed(verified) in ([], believed)
        assert not core.evidence
        assert not core.batches

    async def test_a_callback_without_a_signature_is_refused(self, harness: _HasRail) -> None:
        rail, genuine = await _genuine(harness)
        core = _Core()
        assert await _deliver(rail, core, Callback(genuine.body, {}, genuine.path)) in (400, 401, 403)
        assert not core.evidence
        assert not core.batches

    async def test_a_late_callback_is_refused_where_its_time_is_signed_and_else_known_by_its_id(
        self, harness: _HasRail
    ) -> None:
        rail, genuine = await _genuine(harness)
        verified, core, late_s = await rail.verify(genuine), _Core(), time.time() + _YEAR_S
        if verified.sent_at_s is not None:
            assert await _deliver(rail, core, genuine, now_s=late_s) == 401
            assert not core.evidence
            assert not core.batches
            return
        # Without a signed time a replay is told by its id alone: the late one must bring the very event of the first.
        assert [await _deliver(rail, core, genuine), await _deliver(rail, core, genuine, now_s=late_s)] == [200, 200]
        first, late = core.batches
        assert first.event_id
        assert late.event_id == first.event_id
        assert _paid(late.facts) == _paid(first.facts)
        other = await rail.verify(await _genuine_of(harness))
        assert other.event_id != first.event_id, "another payment is another event"

    async def test_what_may_be_paid_again_and_again_is_not_named_by_names_that_are_used_again(
        self, harness: _HasRail
    ) -> None:
        rail, callback = await _genuine(harness)
        recycled = [fact for fact in (await rail.verify(callback)).facts if fact.recycled_on is not None]
        # An inquiry lists further payments by their names alone: tomorrow's would be taken for today's.
        assert not (recycled and harness.rail.registration().reusable)


async def _genuine(harness: _HasRail) -> tuple[ReceivesCallbacks, Callback]:
    rail: Any = harness.rail
    if not isinstance(rail, ReceivesCallbacks):
        pytest.skip("this rail is never called back")
    return rail, await _genuine_of(harness)


async def _genuine_of(harness: _HasRail) -> Callback:
    if not isinstance(harness, CallsBack):
        pytest.fail("this rail receives callbacks: give its harness `callback()`")
    return await harness.callback()


async def _deliver(rail: ReceivesCallbacks, core: _Core, callback: Callback, now_s: float | None = None) -> int:
    own = CallbackSettings("conformance")
    receiver = CallbackReceiver(rail, core, own, time.time if now_s is None else lambda: now_s)
    await receiver.start("127.0.0.1", 0)
    try:
        runner = receiver._runner  # noqa: SLF001 - the port that the system chose
        assert runner is not None
        port = runner.addresses[0][1]
        async with httpx.AsyncClient(trust_env=False) as provider:
            url = f"http://127.0.0.1:{port}{callback.path}"
            headers = {k: v for k, v in callback.headers.items() if k not in ("host", "content-length")}
            return (await provider.post(url, content=callback.body, headers=headers)).status_code
    finally:
        await receiver.stop()


def _forgeries(genuine: Callback) -> list[Callback]:
    """The body changed digit by digit, the signature's headers changed one by one."""
    body, forged = genuine.body, []
    digits = [at for at, byte in enumerate(body) if chr(byte).isdigit()]
    for at in digits[:: max(1, len(digits) // 20)]:
        other = b"1" if body[at : at + 1] != b"1" else b"7"
        forged.append(genuine._replace(body=body[:at] + other + body[at + 1 :]))
    forged.append(genuine._replace(body=body + b" "))
    for name, value in genuine.headers.items():
        if name not in (
            "host",
            "content-length",
            "content-type",
            "accept",
            "accept-encoding",
            "connection",
            "user-agent",
        ):
            forged.append(genuine._replace(headers={**genuine.headers, name: value[::-1] + "0"}))
    return forged


def _told(verified: Verified) -> list[ProviderPayment]:
    return list(verified.facts)


def _paid(facts: Sequence[ProviderPayment]) -> list[tuple[str, int, str]]:
    return [(each.transaction_id, each.amount_minor, each.reference) for each in facts]


def _believed(verified: Verified) -> list[tuple[str, int, str]]:
    """What would be credited without asking: the money facts of what is confirmed."""
    return _paid([each for each in verified.facts if each.confirmed])
