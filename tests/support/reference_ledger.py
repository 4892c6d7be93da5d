"""A ledger in plain Python, written from the documented words alone: what every engine is compared with.

It shares no code with the engines. A chain is tried on a copy of everything and the copy is kept or thrown away;
balances are not stored but summed from the transfers each time. Slow, short, and easy to believe.
"""

from copy import copy
from dataclasses import dataclass, field, replace
from uuid import UUID

from core.domain.ledger import Account, AccountFlags, Transfer

_TOP = 9_223_372_036_854_775_807
_LINKED, _PENDING, _POST, _VOID = 1, 2, 4, 8
_NO_ID = UUID(int=0)

_COMPARED = (
    ("flags", "flags"),
    ("pending_id", "pending_id"),
    ("timeout_s", "timeout"),
    ("debit_account_id", "debit_account_id"),
    ("credit_account_id", "credit_account_id"),
    ("amount_minor", "amount"),
    ("user_data", "user_data"),
    ("ledger", "ledger"),
    ("code", "code"),
)


@dataclass(frozen=True)
class Balances:
    """Sums in minor units."""

    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int


@dataclass
class ReferenceLedger:
    """Accounts, and the transfers that were accepted, in order."""

    accounts: dict[UUID, Account] = field(default_factory=dict)
    accepted: dict[UUID, Transfer] = field(default_factory=dict)
    expired: set[UUID] = field(default_factory=set)
    batches: dict[UUID, int] = field(default_factory=dict)
    """The number of the batch that each transfer came with."""

    def apply(self, batch: list[Transfer]) -> list[str]:
        """Answer each transfer in order."""
        answers: list[str] = []
        while len(answers) < len(batch):
            start = len(answers)
            end = start
            while end < len(batch) - 1 and batch[end].flags & _LINKED:
                end += 1
            answers += self._apply_chain(batch[start : end + 1])
        number = len(self.batches)
        for transfer in batch:
            if transfer.id in self.accepted:
                self.batches.setdefault(transfer.id, number)
        return answers

    def change(self, account_id: UUID, change: str) -> str:
        """Freeze, unfreeze or close an account."""
        if account_id not in self.accounts:
            return "account_not_found"
        flags, own = int(self.accounts[account_id].flags), self.balances(account_id)
        if flags & 4:
            return "account_already_closed"
        after = {"freeze": flags | 8, "unfreeze": flags & ~8, "close": flags | 4}[change]
        if after == flags:
            return "exists"
        if change == "close" and (own.debits_pending or own.credits_pending):
            return "account_has_holds"
        if change == "close" and own.debits_posted != own.credits_posted:
            return "account_has_balance"
        self.accounts[account_id] = replace(self.accounts[account_id], flags=AccountFlags(after))
        return "ok"

    def expire(self, hold_ids: set[UUID]) -> set[UUID]:
        """Release those of the holds that nothing has resolved; return them."""
        released = {each for each in hold_ids if each in self.accepted and self._end_of(each) is None}
        self.expired |= released
        return released

    def balances(self, account_id: UUID) -> Balances:
        """Sum the account from its transfers."""
        sums = [0, 0, 0, 0]
        for transfer in self.accepted.values():
            for side, own in enumerate((transfer.debit_account_id, transfer.credit_account_id)):
                if own != account_id:
                    continue
                if transfer.flags & _PENDING:
                    sums[2 * side] += transfer.amount_minor if self._end_of(transfer.id) is None else 0
                elif not transfer.flags & _VOID:
                    sums[2 * side + 1] += transfer.amount_minor
        return Balances(*sums)

    def history(self, account_id: UUID) -> list[tuple[UUID, int]]:
        """The account's posted movements as (transfer, signed amount): newest batch first, and in it the newest id."""
        moved = [
            (self.batches[t.id], t.id, -t.amount_minor if t.debit_account_id == account_id else t.amount_minor)
            for t in self.accepted.values()
            if not t.flags & (_PENDING | _VOID) and account_id in (t.debit_account_id, t.credit_account_id)
        ]
        return [(transfer_id, delta) for _, transfer_id, delta in sorted(moved, reverse=True)]

    def _apply_chain(self, chain: list[Transfer]) -> list[str]:
        is_open = bool(chain[-1].flags & _LINKED)
        kept = copy(self.accepted)
        answers = ["linked_event_failed"] * len(chain)
        for place, transfer in enumerate(chain):
            last_of_open = is_open and place == len(chain) - 1
            answer = "linked_event_chain_open" if last_of_open else self._answer(transfer)
            if answer != "ok":
                self.accepted = kept
                answers[place] = answer
                if is_open:
                    answers[-1] = "linked_event_chain_open"
                return answers
            self.accepted[transfer.id] = transfer
        return ["ok"] * len(chain)

    def _answer(self, asked: Transfer) -> str:
        if asked.id == _NO_ID:
            return "id_must_not_be_zero"
        if asked.id in self.accepted:
            known = self.accepted[asked.id]
            for attribute, word in _COMPARED:
                if getattr(known, attribute) != getattr(asked, attribute):
                    return f"exists_with_different_{word}"
            return "exists"
        return self._malformed(asked) or self._misplaced(asked) or self._refused(asked) or "ok"

    def _malformed(self, asked: Transfer) -> str:
        resolves = bool(asked.flags & (_POST | _VOID))
        faults = {
            "flags_are_mutually_exclusive": sum(bool(asked.flags & bit) for bit in (_PENDING, _POST, _VOID)) > 1,
            "accounts_must_be_different": asked.debit_account_id == asked.credit_account_id,
            "pending_id_must_not_be_zero": resolves and (asked.pending_id is None or asked.pending_id == _NO_ID),
            "pending_id_must_be_zero": not resolves and asked.pending_id is not None,
            "pending_id_must_be_different": asked.pending_id == asked.id,
            "timeout_reserved_for_pending_transfer": asked.timeout_s is not None and not asked.flags & _PENDING,
            "timeout_must_be_positive": asked.timeout_s is not None and asked.timeout_s <= 0,
            "amount_must_not_be_zero": asked.amount_minor <= 0,
            "ledger_must_not_be_zero": asked.ledger <= 0,
            "code_must_not_be_zero": asked.code <= 0,
        }
        return next((name for name, is_so in faults.items() if is_so), "")

    def _misplaced(self, asked: Transfer) -> str:
        debit, credit = self.accounts.get(asked.debit_account_id), self.accounts.get(asked.credit_account_id)
        if debit is None:
            return "debit_account_not_found"
        if credit is None:
            return "credit_account_not_found"
        if debit.ledger != credit.ledger:
            return "accounts_must_have_the_same_ledger"
        return "" if asked.ledger == debit.ledger else "transfer_must_have_the_same_ledger_as_accounts"

    def _refused(self, asked: Transfer) -> str:
        if asked.flags & (_POST | _VOID):
            return self._not_resolvable(asked)
        debit, credit = self.accounts[asked.debit_account_id], self.accounts[asked.credit_account_id]
        if debit.flags & 4:
            return "debit_account_already_closed"
        if credit.flags & 4:
            return "credit_account_already_closed"
        if debit.flags & 8:
            return "debit_account_frozen"
        own, other, amount = self.balances(debit.id), self.balances(credit.id), asked.amount_minor
        debits = own.debits_pending + own.debits_posted + amount
        credits_ = other.credits_pending + other.credits_posted + amount
        pends = bool(asked.flags & _PENDING)
        faults = {
            "overflows_debits_pending": pends and own.debits_pending + amount > _TOP,
            "overflows_credits_pending": pends and other.credits_pending + amount > _TOP,
            "overflows_debits_posted": own.debits_posted + amount > _TOP,
            "overflows_credits_posted": other.credits_posted + amount > _TOP,
            "overflows_debits": debits > _TOP,
            "overflows_credits": credits_ > _TOP,
            "exceeds_credits": bool(debit.flags & 1) and debits > own.credits_posted,
            "exceeds_debits": bool(credit.flags & 2) and credits_ > other.debits_posted,
        }
        return next((name for name, is_so in faults.items() if is_so), "")

    def _not_resolvable(self, asked: Transfer) -> str:
        hold = self.accepted.get(asked.pending_id) if asked.pending_id else None
        if hold is None:
            return "pending_transfer_not_found"
        if not hold.flags & _PENDING:
            return "pending_transfer_not_pending"
        for part in ("debit_account_id", "credit_account_id", "code"):
            if getattr(hold, part) != getattr(asked, part):
                return f"pending_transfer_has_different_{part}"
        if asked.amount_minor > hold.amount_minor:
            return "exceeds_pending_transfer_amount"
        if asked.flags & _VOID and asked.amount_minor < hold.amount_minor:
            return "pending_transfer_has_different_amount"
        return self._end_of(hold.id) or ""

    def _end_of(self, hold_id: UUID) -> str | None:
        """Why the hold can no more be resolved, or None while it pends."""
        if hold_id in self.expired:
            return "pending_transfer_expired"
        for transfer in self.accepted.values():
            if transfer.pending_id == hold_id:
                return f"pending_transfer_already_{'posted' if transfer.flags & _POST else 'voided'}"
        return None
