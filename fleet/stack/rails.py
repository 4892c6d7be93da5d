"""The rails of a one-machine stack: one entry says what a rail faces, what its adapter is told and what was paid."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import httpx

from adapters.promptpay.simulator.book import read_book as read_ipps_book
from adapters.promptpay.simulator.book import read_received as read_ipps_received
from adapters.promptpay.simulator.book import read_refunds as read_ipps_refunds
from adapters.sbp.simulator.book import read_book as read_qp_book
from adapters.sbp.simulator.book import read_received as read_qp_received
from adapters.sbp.simulator.book import read_refunds as read_qp_refunds
from adapters.testkit.serving import SECRET_VARIABLE
from fleet.proof import BookPayment
from fleet.stack.bank import bank_process, bank_settings, open_account, pay_in, read_bank_book, read_bank_received
from fleet.stack.profile import Profile
from fleet.stack.supervisor import ChildSpec
from schemas.money import currency_of, to_major_text
from schemas.operations import OperationType


@dataclass(frozen=True, slots=True)
class Place:
    """Where what plays a rail's provider runs, and how it shall behave."""

    home: Path
    rail: str
    port: int
    callback_port: int
    """Where the rail's first adapter takes callbacks."""
    secret: str
    """What the adapter and its provider share."""
    profile: Profile
    latency_ms: int

    @property
    def url(self) -> str:
        """Return where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def book(self) -> Path:
        """Return where it keeps its book."""
        return self.home / f"{self.rail}-book.sqlite"


@dataclass(frozen=True, slots=True)
class Provider:
    """What plays a rail's provider: its process, what the adapters are told of it, and who was paid by its own book."""

    process: Callable[[Place], ChildSpec]
    adapter_env: Callable[[Place], Mapping[str, str]]
    read_book: Callable[[Place], Awaitable[list[BookPayment]]]
    prepare: Callable[[str], Awaitable[None]] | None = None
    """What is done at its address once it runs. Raises TimeoutError."""
    pay_in: Callable[[Place, str, int], Awaitable[None]] | None = None
    """Plays a payer of a collection: its reference and the amount in minor units."""
    read_received: Callable[[Place], Awaitable[list[BookPayment]]] | None = None
    """Who paid us, by its own book."""


@dataclass(frozen=True, slots=True)
class StackRail:
    """One rail: the provider and account that its routes name, its routes, and what plays the provider."""

    provider: str
    account: str
    routes: tuple[tuple[OperationType, str], ...]
    """Operation and currency."""
    played_by: Provider | None = None


def _simulator(place: Place) -> ChildSpec:
    # A timed-out answer is withheld for longer than the adapter waits.
    delay_s = place.profile.call_total_s * 2
    module = f"adapters.{place.rail}.simulator"
    argv = (sys.executable, "-m", module, "--port", str(place.port), "--db", str(place.book))
    options = ("--timeout-delay-s", str(delay_s), "--latency-ms", str(place.latency_ms))
    callbacks = ("--callback-url", f"http://127.0.0.1:{place.callback_port}/callbacks", "--callback-delay-s", "0")
    return ChildSpec(f"{place.rail}-simulator", (*argv, *options, *callbacks), {SECRET_VARIABLE: place.secret})


def _simulated(place: Place) -> dict[str, str]:
    prefix = place.rail.upper()
    return {
        f"{prefix}_BASE_URL": place.url,
        f"{prefix}_SECRET": place.secret,
        f"{prefix}_SETTLEMENT_S": str(place.profile.settlement_s),
    }


async def _ipps_payments(place: Place) -> list[BookPayment]:
    entries = [*read_ipps_book(place.book), *read_ipps_refunds(place.book)]
    return [BookPayment(entry.reference, entry.amount_minor, place.rail) for entry in entries]


async def _ipps_received(place: Place) -> list[BookPayment]:
    return [BookPayment(entry.reference, entry.amount_minor, place.rail) for entry in read_ipps_received(place.book)]


async def _qp_received(place: Place) -> list[BookPayment]:
    return [BookPayment(entry.reference, entry.amount_minor, place.rail) for entry in read_qp_received(place.book)]


async def _pay_code(place: Place, reference: str, amount_minor: int) -> None:
    await _control(place, "/_control/pay", {"reference": reference, "amount_minor": amount_minor})


async def _pay_order(place: Place, reference: str, amount_minor: int) -> None:
    amount = to_major_text(amount_minor, currency_of("RUB"))
    await _control(place, f"/_control/orders/{reference}/pay", {"amount": amount})


async def _control(place: Place, path: str, body: Mapping[str, object]) -> None:
    async with httpx.AsyncClient(base_url=place.url, timeout=10, trust_env=False) as http:
        (await http.post(path, json=body)).raise_for_status()


async def _qp_payments(place: Place) -> list[BookPayment]:
    entries = [*read_qp_book(place.book), *read_qp_refunds(place.book)]
    return [BookPayment(entry.reference, entry.amount_minor, place.rail) for entry in entries]


_MOCK_BANK: Final = Provider(
    process=lambda place: bank_process(place.port, place.home),
    adapter_env=lambda place: bank_settings(place.url, place.profile),
    read_book=lambda place: read_bank_book(place.url),
    prepare=open_account,
    pay_in=lambda place, reference, amount_minor: pay_in(place.url, reference, amount_minor),
    read_received=lambda place: read_bank_received(place.url),
)

RAILS: Final[Mapping[str, StackRail]] = {
    "promptpay": StackRail(
        "ipps",
        "ipps-1",
        ((OperationType.PAYOUT, "THB"), (OperationType.BILL_PAYMENT, "THB"), (OperationType.TOPUP, "THB")),
        Provider(_simulator, _simulated, _ipps_payments, pay_in=_pay_code, read_received=_ipps_received),
    ),
    "sbp": StackRail(
        "qp",
        "qp-1",
        tuple((operation, "RUB") for operation in (OperationType.PAYOUT, OperationType.TOPUP, OperationType.DEPOSIT)),
        Provider(_simulator, _simulated, _qp_payments, pay_in=_pay_order, read_received=_qp_received),
    ),
    "bank": StackRail(
        "bank",
        "bank-1",
        (
            (OperationType.WITHDRAWAL, "THB"),
            (OperationType.DEPOSIT, "THB"),
            (OperationType.DIRECT_DEBIT, "THB"),
        ),
        _MOCK_BANK,
    ),
    "noop": StackRail("noop", "noop", ((OperationType.PAYOUT, "THB"),)),
}


def rail_of(name: str) -> StackRail:
    """Return the rail of this name: one of those above, or a folder as `fleet rails new` writes it.

    Such a one has no route of its own: `fleet routes` gives it payments. Raises LookupError where there is no folder.
    """
    if name in RAILS:
        return RAILS[name]
    if find_spec("adapters") is None or find_spec(f"adapters.{name}") is None:
        raise LookupError(f"there is no rail {name}: no folder adapters/{name}")
    return StackRail(name, f"{name}-1", (), Provider(_written, _told_of_written, _written_payments))


def _written(place: Place) -> ChildSpec:
    module, delay_s = f"adapters.{place.rail}.simulator", str(place.profile.call_total_s * 2)
    argv = (sys.executable, "-m", module, "--port", str(place.port), "--db", str(place.book))
    return ChildSpec(f"{place.rail}-simulator", (*argv, "--timeout-delay-s", delay_s), {SECRET_VARIABLE: place.secret})


def _told_of_written(place: Place) -> dict[str, str]:
    prefix, settlement_s = place.rail.upper(), str(place.profile.settlement_s)
    told = {"BASE_URL": place.url, "TOKEN": place.secret, "SETTLEMENT_S": settlement_s}
    return {f"{prefix}_{name}": value for name, value in told.items()}


async def _written_payments(place: Place) -> list[BookPayment]:
    async with httpx.AsyncClient(base_url=place.url, timeout=10, trust_env=False) as http:
        rows = (await http.get("/_control/book")).raise_for_status().json()["executed"]
    return [BookPayment(row["reference"], row["amount_minor"], place.rail) for row in rows]


SIMULATED: Final = ("promptpay", "sbp")
"""Rails whose provider is a simulator of ours, with faults and a control API."""

EVERY_RAIL: Final[Mapping[str, int]] = {"promptpay": 2, "sbp": 1, "bank": 1}
"""Every rail that the stack has a provider for, and how many adapters the demo gives it."""
