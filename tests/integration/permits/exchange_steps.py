"""Steps of the money machine that exchange baht with dollars and yen, which have no decimals, against plain sums."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from core.services.problems import Refusal
from core.services.terms.quotes import make_quote
from schemas.api import WalletRequest
from schemas.exchange import QuoteRequest, QuoteView
from tests.integration.permits.conftest import World
from tests.integration.permits.plain_sums import ON_EXCHANGE, Wallet

WORTH: Final = {("THB", "USD"): (1, 3), ("USD", "THB"): (3, 1), ("THB", "JPY"): (42, 1000), ("JPY", "THB"): (1000, 42)}
"""What a minor unit of one currency is worth in those of the other: a dollar is 3 baht, a baht 4.2 yen."""
IN_PURSE: Final = 40
AMOUNTS, PICKS, FOREIGN = st.integers(1, 150), st.integers(0, 1000), st.sampled_from(["USD", "JPY"])


@dataclass
class Purse:
    """The one wallet of a foreign currency, and what it must have; minor units."""

    id: UUID
    posted: int = IN_PURSE


class ExchangeSteps(RuleBasedStateMachine):
    """The house keeps a hundredth of what is bought and every fraction; rules take a fee on top, and a tenth of it."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.purses = {currency: Purse(self._run(self._purse(currency))) for currency in ("USD", "JPY")}

    def _run(self, work: Any) -> Any:
        raise NotImplementedError

    def _ask(self, **asked: Any) -> tuple[Any, Any, str]:
        raise NotImplementedError

    def _reach(self, what: str) -> None:
        raise NotImplementedError

    def _wallet(self, pick: int) -> Wallet:
        raise NotImplementedError

    async def _purse(self, currency: str) -> UUID:
        owned = WalletRequest(owner="anna", currency=currency)
        made = (await self.world.core.wallets.create(self.world.caller, owned))[0].id
        put = {"operation": "MANUAL_ADJUSTMENT", "wallet_id": made, "amount_minor": IN_PURSE, "currency": currency}
        await self.world._accept(put)
        return made

    @rule(pick=PICKS, amount=AMOUNTS, currency=FOREIGN)
    def exchange(self, pick: int, amount: int, currency: str) -> None:
        """Buy dollars or yen."""
        wallet, purse = self._wallet(pick), self.purses[currency]
        bought = self._bought(amount, "THB", currency)
        accepted = self._exchanged(wallet.id, purse.id, amount, "THB", currency)
        if accepted is None:
            return
        on_top = ON_EXCHANGE["THB"]
        code = wallet.refusal(amount + on_top, amount)
        assert (accepted.state, accepted.failure_code) == ("FAILED" if code else "SETTLED", code)
        if code is None:
            wallet.posted -= amount + on_top
            wallet.used += amount
            purse.posted += bought - (bought + 5) // 10
        self._reach(code or f"{currency} bought")

    @rule(pick=PICKS, amount=st.integers(1, 20), currency=FOREIGN)
    def exchange_back(self, pick: int, amount: int, currency: str) -> None:
        """Sell dollars or yen: no limit is in their currency."""
        wallet, purse = self._wallet(pick), self.purses[currency]
        bought = self._bought(amount, currency, "THB")
        accepted = self._exchanged(purse.id, wallet.id, amount, currency, "THB")
        if accepted is None:
            return
        on_top = ON_EXCHANGE[currency]
        # The legs are looked at in their order: what is paid, what is bought, the fees.
        code = None
        if purse.posted < amount:
            code = "insufficient_funds"
        elif wallet.closed:
            code = "account_closed"
        elif purse.posted < amount + on_top:
            code = "insufficient_funds"
        assert (accepted.state, accepted.failure_code) == ("FAILED" if code else "SETTLED", code)
        if code is None:
            purse.posted -= amount + on_top
            wallet.posted += bought - (bought + 5) // 10
        self._reach(code or f"{currency} sold")

    @staticmethod
    def _bought(amount: int, paid: str, bought: str) -> int:
        numerator, denominator = WORTH[paid, bought]
        return amount * numerator * 99 // (denominator * 100)

    def _exchanged(self, payer: UUID, payee: UUID, amount: int, paid: str, bought: str) -> Any:
        """Exchange by a quote, which can be used once; None where the amount buys nothing."""
        asked = QuoteRequest(
            wallet_id=payer, counterparty_wallet_id=payee, from_currency=paid, to_currency=bought, amount_minor=amount
        )
        if self._bought(amount, paid, bought) == 0:
            with pytest.raises(Refusal) as caught:
                self._run(self._quote(asked))
            assert caught.value.code == "exchange_amount_out_of_bounds"
            return None
        quote = self._run(self._quote(asked))
        assert quote.to_minor == self._bought(amount, paid, bought)
        use = {
            "operation": "EXCHANGE", "wallet_id": payer, "counterparty_wallet_id": payee, "amount_minor": amount,
            "currency": paid, "quote_id": quote.id,
        }  # fmt: skip
        accepted, _, _ = self._ask(**use)
        with pytest.raises(Refusal) as caught:
            self._ask(**use)
        assert caught.value.code == "quote_used"
        return accepted.intent

    async def _quote(self, asked: QuoteRequest) -> QuoteView:
        ports, caller = self.world.core.ports, self.world.caller
        async with ports.unit_of_work(caller.context()) as uow:
            return await make_quote(uow, ports, caller, asked)

    def purses_are_where_the_sums_are(self) -> None:
        """Compare what purses have."""
        for purse in self.purses.values():
            assert self._run(self.world.money(purse.id)) == (purse.posted, 0)
