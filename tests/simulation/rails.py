"""The simulated provider behind the adapters' own port, and in the PromptPay adapter's own dialect."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import httpx
import orjson
from pydantic import SecretStr

from adapters.promptpay.adapter import PAYEE_TYPES, PromptPayRail
from adapters.promptpay.client import IppsClient
from adapters.promptpay.settings import PromptPaySettings
from adapters.runtime import errors
from adapters.runtime.port import Order, Outcome, Rail
from schemas.money import currency_of, to_major_text, to_minor
from schemas.operations import OperationType
from schemas.permits import LookupBinding
from schemas.rails import Capabilities, RailRegistration, Timing
from schemas.results import Basis, Verdict
from tests.simulation.hosts import Host
from tests.simulation.provider import LookupExpiredError, NoSuchTransferError, Profile, Provider, Status, Transfer

TIMING: Final = Timing(send_by_s=4, call_total_s=8, claim_idle_s=30)
_LATE_S: Final = 32.0
"""How long after its permit a request may still arrive: S, T_psp, and what the network holds it back."""
_THB: Final = currency_of("THB")
_VERDICTS: Final = {
    Status.PROCESSING: Verdict.PENDING,
    Status.SUCCEEDED: Verdict.SUCCEEDED,
    Status.FAILED: Verdict.DECLINED,
    Status.CANCELED: Verdict.CANCELLED,
}


def registration(profile: Profile, account: str) -> RailRegistration:
    """Return what the adapter of this provider declares."""
    horizon_s = _LATE_S + profile.settles_within_s + (profile.lookup_lives_s if profile.expires else 0)
    capabilities = Capabilities(
        lookup=profile.lookup,
        inquiry=profile.inquiry,
        deduplicates_reference=profile.deduplicates,
        dedup_window_s=profile.dedup_window_s if profile.deduplicates else None,
        cancel_by_reference=profile.cancels,
        negative_is_final_for_reference=profile.negative_is_final,
        not_found_horizon_s=horizon_s,
        request_expiry=profile.expires,
        max_amount_minor=1_000_000,
        currencies=["THB"],
    )
    return RailRegistration(
        rail="simulated",
        provider="simulator",
        provider_account=account,
        operations={OperationType.PAYOUT: capabilities},
        payee_types=PAYEE_TYPES,
        timing=TIMING,
    )


class _Base:
    """Pays, and declares itself. What else a provider can do its rail has as a method, as the port wants it."""

    def __init__(self, provider: Provider, host: Host, account: str) -> None:
        self._provider, self._host, self._account = provider, host, account

    def registration(self) -> RailRegistration:
        """Return the provider's record."""
        return registration(self._provider.profile, self._account)

    async def close(self) -> None:
        """Nothing is open."""

    async def pay(self, order: Order) -> Outcome:
        """Submit under the reference, in the account of the order."""
        until = order.lookup.expires_at if order.lookup is not None else None
        subject = str(order.job_id)
        act = partial(
            self._provider.submit, order.provider_account, order.reference, subject, order.amount_minor, until
        )
        try:
            taken = await self._provider.carry(self._host, "a payment", act)
        except LookupExpiredError:
            return Outcome(Verdict.NOT_SENT, reason="lookup_expired")
        basis = Basis.REFERENCE_STATUS if self._provider.profile.deduplicates else Basis.SUBMISSION
        return self._outcome(taken, basis)

    def _outcome(self, found: Transfer, basis: Basis) -> Outcome:
        status = found.status(self._provider.world.now)
        paid = status is Status.SUCCEEDED
        return Outcome(
            _VERDICTS[status],
            amount_minor=found.amount_minor if paid else None,
            currency="THB" if paid else None,
            provider_tx_id=f"TX{found.number}" if paid else None,
            basis=basis,
        )


class _Asks(_Base):
    async def inquire(self, order: Order) -> Outcome:
        """Ask for the status of the reference in the order's account."""
        act = partial(self._provider.inquire, order.provider_account, order.reference)
        try:
            found = await self._provider.carry(self._host, "an inquiry", act)
        except NoSuchTransferError:
            return Outcome(Verdict.NOT_FOUND, basis=Basis.REFERENCE_STATUS)
        return self._outcome(found, Basis.REFERENCE_STATUS)


class _LooksUp(_Asks):
    async def lookup(self, order: Order) -> Outcome:
        """Ask who the payee is; the answer bounds the payment."""
        act = partial(self._provider.look_up, order.reference, str(order.job_id))
        until = await self._provider.carry(self._host, "a lookup", act)
        binding = LookupBinding(lookup_id=order.reference, expires_at=until, fee_minor=0)
        return Outcome(Verdict.FOUND, lookup=binding, payee_name="Anong P.")


class _Cancels(_Asks):
    async def cancel(self, order: Order) -> Outcome:
        """Bury the reference in the order's account."""
        act = partial(self._provider.cancel, order.provider_account, order.reference)
        found = await self._provider.carry(self._host, "a cancel", act)
        return self._outcome(found, Basis.REFERENCE_STATUS)


def rail_of(provider: Provider, host: Host, account: str) -> Rail:
    """Return the rail of a provider: the shipping adapter where it speaks that dialect."""
    profile = provider.profile
    if profile.dialect:
        settings = PromptPaySettings(
            base_url="http://provider", secret=SecretStr("s"), provider_account=account,
            settlement_s=profile.settles_within_s, dedup_window_s=profile.dedup_window_s,
        )  # fmt: skip
        http = httpx.AsyncClient(base_url="http://provider", transport=_Dialect(provider, host, account))
        return _Renamed(PromptPayRail(IppsClient(http, "k", "s"), settings, TIMING), provider.profile, account)
    if profile.lookup:
        return _LooksUp(provider, host, account)
    if profile.cancels:
        return _Cancels(provider, host, account)
    return _Asks(provider, host, account) if profile.inquiry else _Base(provider, host, account)


class _Renamed:
    """The PromptPay rail, declared like the others so that the core meets one rail in every seed."""

    def __init__(self, rail: PromptPayRail, profile: Profile, account: str) -> None:
        self._rail, self._profile, self._account = rail, profile, account
        self.pay, self.lookup, self.inquire, self.cancel = rail.pay, rail.lookup, rail.inquire, rail.cancel
        self.close = rail.close

    def registration(self) -> RailRegistration:
        """Return the provider's record."""
        return registration(self._profile, self._account)


class _Dialect(httpx.AsyncBaseTransport):
    """IPPS over the simulated network. The account is the one whose credentials the adapter has."""

    def __init__(self, provider: Provider, host: Host, account: str) -> None:
        self._provider, self._host, self._account = provider, host, account

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request, or fail as the network does."""
        path, body = request.url.path, orjson.loads(request.content or b"null")
        try:
            answer = await self._provider.carry(self._host, path, self._act(path, body))
        except NoSuchTransferError:
            return _refusal(404, "transfer_not_found")
        except LookupExpiredError:
            return _refusal(410, "lookup_expired")
        except errors.Rejected as refused:
            return _refusal(404, refused.code)
        except errors.Throttled:
            return httpx.Response(429, headers={"Retry-After": "2"})
        except errors.NotSent as refused:
            raise httpx.ConnectError("no connection") from refused
        except errors.ProtocolViolation:
            return httpx.Response(200, content=b"<html>")
        except errors.Indeterminate:
            return httpx.Response(502)
        if isinstance(answer, Transfer):
            return self._told(answer, body, path)
        reply = {
            "lookup_id": body["client_ref"], "payee_name": "Anong P.", "fee": "0.00", "expires_at": answer.isoformat(),
        }  # fmt: skip
        return httpx.Response(200, content=orjson.dumps(reply))

    def _act(self, path: str, body: Any) -> Callable[[], Any]:
        provider, account = self._provider, self._account
        parts = path.split("/")
        if path == "/v1/lookups":
            return partial(provider.look_up, body["client_ref"], body["client_ref"])
        if path == "/v1/transfers":
            subject, until = provider.lookups[body["lookup_id"]]
            amount_minor = to_minor(body["amount"], _THB)
            return partial(provider.submit, account, body["client_ref"], subject, amount_minor, until)
        if parts[-1] == "cancel":
            return partial(provider.cancel, account, parts[-2])
        return partial(provider.inquire, account, parts[-1])

    def _told(self, found: Transfer, body: Any, path: str) -> httpx.Response:
        status = found.status(self._provider.world.now)
        told: dict[str, object] = {"client_ref": found.reference, "status": status}
        if status is Status.SUCCEEDED:
            told |= {"psp_txid": f"TX{found.number}", "amount": to_major_text(found.amount_minor, _THB)}
        too_late = path.endswith("/cancel") and status in (Status.SUCCEEDED, Status.FAILED)
        if too_late:
            told["code"] = "not_cancelable"
        return httpx.Response(409 if too_late else 200, content=orjson.dumps(told))


def _refusal(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, content=orjson.dumps({"code": code}))
