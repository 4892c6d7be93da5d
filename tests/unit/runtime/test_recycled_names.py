"""The certificate refuses a rail whose codes are paid again and again under names that are used again."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.runtime.port import Callback, Verified
from adapters.testkit.callback_conformance import CallbackConformance
from schemas.collections import PaymentSource, PaymentStatus, ProviderPayment

_NOW = datetime(2026, 1, 5, tzinfo=UTC)


class _Rail:
    def __init__(self, *, reusable: bool, recycles: bool) -> None:
        self._reusable = frozenset({"DEPOSIT"}) if reusable else frozenset()
        self._recycled_on = _NOW.date() if recycles else None

    def registration(self) -> Any:
        return SimpleNamespace(reusable=self._reusable)

    async def verify(self, callback: Callback) -> Verified:
        fact = ProviderPayment(
            provider_account="main",
            transaction_id="000001",
            recycled_on=self._recycled_on,
            status=PaymentStatus.SUCCEEDED,
            amount_minor=100,
            currency="THB",
            source=PaymentSource.CALLBACK,
            occurred_at=_NOW,
        )
        return Verified([fact], "event")


class _Harness:
    def __init__(self, rail: _Rail) -> None:
        self.rail: Any = rail

    async def callback(self) -> Callback:
        return Callback(b"{}", {}, "/")


_certify = CallbackConformance().test_what_may_be_paid_again_and_again_is_not_named_by_names_that_are_used_again


async def test_a_reusable_code_under_recycled_names_fails_the_certificate() -> None:
    with pytest.raises(AssertionError):
        await _certify(_Harness(_Rail(reusable=True, recycles=True)))


@pytest.mark.parametrize(("reusable", "recycles"), [(True, False), (False, True)])
async def test_either_of_the_two_alone_passes(reusable: bool, recycles: bool) -> None:
    await _certify(_Harness(_Rail(reusable=reusable, recycles=recycles)))
