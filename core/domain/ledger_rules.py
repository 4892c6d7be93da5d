"""The exact path: judge transfers one by one, in order, over balances that the caller holds locked. Pure.

The order of the checks is the precedence of `TransferResult`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from core.domain.ledger import (
    MAX_BALANCE_MINOR,
    ZERO_ID,
    AccountBalance,
    AccountFlags,
    Transfer,
    TransferFlags,
    TransferResult,
)

_LINKED = int(TransferFlags.LINKED)
_PENDING = int(TransferFlags.PENDING)
_RESOLVING = int(TransferFlags.POST_PENDING | TransferFlags.VOID_PENDING)
_KINDS = _PENDING | _RESOLVING
_RESOLVED = {
    TransferFlags.POST_PENDING: TransferResult.PENDING_TRANSFER_ALREADY_POSTED,
    TransferFlags.VOID_PENDING: TransferResult.PENDING_TRANSFER_ALREADY_VOIDED,
}
_IDENTITY: tuple[tuple[TransferResult, Callable[[Transfer], object]], ...] = (
    (TransferResult.EXISTS_WITH_DIFFERENT_FLAGS, lambda t: t.flags),
    (TransferResult.EXISTS_WITH_DIFFERENT_PENDING_ID, lambda t: t.pending_id),
    (TransferResult.EXISTS_WITH_DIFFERENT_TIMEOUT, lambda t: t.timeout_s),
    (TransferResult.EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID, lambda t: t.debit_account_id),
    (TransferResult.EXISTS_WITH_DIFFERENT_CREDIT_ACCOUNT_ID, lambda t: t.credit_account_id),
    (TransferResult.EXISTS_WITH_DIFFERENT_AMOUNT, lambda t: t.amount_minor),
    (TransferResult.EXISTS_WITH_DIFFERENT_USER_DATA, lambda t: t.user_data),
    (TransferResult.EXISTS_WITH_DIFFERENT_LEDGER, lambda t: t.ledger),
    (TransferResult.EXISTS_WITH_DIFFERENT_CODE, lambda t: t.code),
)


@dataclass(slots=True)
class LedgerState:
    """What a batch is judged against; `judge` moves it forward.

    `resolutions` maps a hold to POST_PENDING or VOID_PENDING; `expired` holds the ids past their time-out.
    """

    accounts: dict[UUID, AccountBalance] = field(default_factory=dict)
    transfers: dict[UUID, Transfer] = field(default_factory=dict)
    resolutions: dict[UUID, TransferFlags] = field(default_factory=dict)
    expired: set[UUID] = field(default_factory=set)


def chains_of(transfers: Sequence[Transfer]) -> list[tuple[int, int]]:
    """Return the batch as ranges [start, end): each chain is one, each single transfer is one."""
    ranges = []
    start = 0
    for index, transfer in enumerate(transfers):
        if not int(transfer.flags) & _LINKED or index == len(transfers) - 1:
            ranges.append((start, index + 1))
            start = index + 1
    return ranges


def judge(state: LedgerState, transfers: Sequence[Transfer]) -> list[TransferResult]:
    """Return each transfer's result and leave in `state` what those that are OK have done."""
    results: list[TransferResult] = []
    for start, end in chains_of(transfers):
        results += _judge_chain(state, transfers[start:end])
    return results


def _judge_chain(state: LedgerState, chain: Sequence[Transfer]) -> list[TransferResult]:
    touched = {a for t in chain for a in (t.debit_account_id, t.credit_account_id)}
    before = {a: state.accounts[a] for a in touched if a in state.accounts}
    done: list[Transfer] = []
    failed_at, failure = len(chain), TransferResult.OK
    for index, transfer in enumerate(chain):
        open_end = index == len(chain) - 1 and transfer.flags & TransferFlags.LINKED
        failure = TransferResult.LINKED_EVENT_CHAIN_OPEN if open_end else judge_one(state, transfer)
        if failure is not TransferResult.OK:
            failed_at = index
            break
        _enact(state, transfer)
        done.append(transfer)
    if failed_at == len(chain):
        return [TransferResult.OK] * len(chain)
    state.accounts.update(before)
    for transfer in done:
        del state.transfers[transfer.id]
        if transfer.resolves and transfer.pending_id:
            del state.resolutions[transfer.pending_id]
    results = [TransferResult.LINKED_EVENT_FAILED] * len(chain)
    results[failed_at] = failure
    if chain[-1].flags & TransferFlags.LINKED:
        results[-1] = TransferResult.LINKED_EVENT_CHAIN_OPEN
    return results


def judge_one(state: LedgerState, transfer: Transfer) -> TransferResult:
    """Return the result that this transfer alone would have; changes nothing."""
    if transfer.id == ZERO_ID:
        return TransferResult.ID_MUST_NOT_BE_ZERO
    known = state.transfers.get(transfer.id)
    if known is not None:
        differing = (result for result, part in _IDENTITY if part(known) != part(transfer))
        return next(differing, TransferResult.EXISTS)
    malformed = check_form(transfer)
    if malformed is not TransferResult.OK:
        return malformed
    return _check_accounts(state, transfer)


def check_form(transfer: Transfer) -> TransferResult:
    """Return what can be said of a transfer without looking at the ledger."""
    flags = int(transfer.flags)  # an IntFlag's own operators cost more than all the rest of this function
    resolves = flags & _RESOLVING
    if (flags & _KINDS).bit_count() > 1:
        return TransferResult.FLAGS_ARE_MUTUALLY_EXCLUSIVE
    if transfer.debit_account_id == transfer.credit_account_id:
        return TransferResult.ACCOUNTS_MUST_BE_DIFFERENT
    if resolves and transfer.pending_id in (None, ZERO_ID):
        return TransferResult.PENDING_ID_MUST_NOT_BE_ZERO
    if not resolves and transfer.pending_id is not None:
        return TransferResult.PENDING_ID_MUST_BE_ZERO
    if resolves and transfer.pending_id == transfer.id:
        return TransferResult.PENDING_ID_MUST_BE_DIFFERENT
    if transfer.timeout_s is not None and not flags & _PENDING:
        return TransferResult.TIMEOUT_RESERVED_FOR_PENDING_TRANSFER
    if transfer.timeout_s is not None and transfer.timeout_s <= 0:
        return TransferResult.TIMEOUT_MUST_BE_POSITIVE
    if transfer.amount_minor <= 0:
        return TransferResult.AMOUNT_MUST_NOT_BE_ZERO
    if transfer.ledger <= 0:
        return TransferResult.LEDGER_MUST_NOT_BE_ZERO
    return TransferResult.CODE_MUST_NOT_BE_ZERO if transfer.code <= 0 else TransferResult.OK


def _check_accounts(state: LedgerState, transfer: Transfer) -> TransferResult:
    debit = state.accounts.get(transfer.debit_account_id)
    credit = state.accounts.get(transfer.credit_account_id)
    if debit is None or debit.account.tenant_id != transfer.tenant_id:
        return TransferResult.DEBIT_ACCOUNT_NOT_FOUND
    if credit is None or credit.account.tenant_id != transfer.tenant_id:
        return TransferResult.CREDIT_ACCOUNT_NOT_FOUND
    if debit.account.ledger != credit.account.ledger:
        return TransferResult.ACCOUNTS_MUST_HAVE_THE_SAME_LEDGER
    if debit.account.ledger != transfer.ledger:
        return TransferResult.TRANSFER_MUST_HAVE_THE_SAME_LEDGER_AS_ACCOUNTS
    if transfer.resolves:
        # A closed account still lets a hold of before end: the provider may have paid already.
        return _check_resolution(state, transfer)
    if debit.account.flags & AccountFlags.CLOSED:
        return TransferResult.DEBIT_ACCOUNT_ALREADY_CLOSED
    if credit.account.flags & AccountFlags.CLOSED:
        return TransferResult.CREDIT_ACCOUNT_ALREADY_CLOSED
    if debit.account.flags & AccountFlags.FROZEN:
        return TransferResult.DEBIT_ACCOUNT_FROZEN
    return _check_balances(debit, credit, transfer)


def _check_resolution(state: LedgerState, transfer: Transfer) -> TransferResult:
    hold = state.transfers.get(transfer.pending_id) if transfer.pending_id else None
    if hold is None or hold.tenant_id != transfer.tenant_id:
        return TransferResult.PENDING_TRANSFER_NOT_FOUND
    if not hold.flags & TransferFlags.PENDING:
        return TransferResult.PENDING_TRANSFER_NOT_PENDING
    if hold.debit_account_id != transfer.debit_account_id:
        return TransferResult.PENDING_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID
    if hold.credit_account_id != transfer.credit_account_id:
        return TransferResult.PENDING_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID
    if hold.code != transfer.code:
        return TransferResult.PENDING_TRANSFER_HAS_DIFFERENT_CODE
    if transfer.amount_minor > hold.amount_minor:
        return TransferResult.EXCEEDS_PENDING_TRANSFER_AMOUNT
    if transfer.flags & TransferFlags.VOID_PENDING and transfer.amount_minor != hold.amount_minor:
        return TransferResult.PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT
    resolved = state.resolutions.get(hold.id)
    if resolved is not None:
        return _RESOLVED[resolved]
    return TransferResult.PENDING_TRANSFER_EXPIRED if hold.id in state.expired else TransferResult.OK


def _check_balances(debit: AccountBalance, credit: AccountBalance, transfer: Transfer) -> TransferResult:
    amount = transfer.amount_minor
    if transfer.flags & TransferFlags.PENDING:
        if debit.debits_pending_minor + amount > MAX_BALANCE_MINOR:
            return TransferResult.OVERFLOWS_DEBITS_PENDING
        if credit.credits_pending_minor + amount > MAX_BALANCE_MINOR:
            return TransferResult.OVERFLOWS_CREDITS_PENDING
    if debit.debits_posted_minor + amount > MAX_BALANCE_MINOR:
        return TransferResult.OVERFLOWS_DEBITS_POSTED
    if credit.credits_posted_minor + amount > MAX_BALANCE_MINOR:
        return TransferResult.OVERFLOWS_CREDITS_POSTED
    debits = debit.debits_pending_minor + debit.debits_posted_minor + amount
    credits_ = credit.credits_pending_minor + credit.credits_posted_minor + amount
    if debits > MAX_BALANCE_MINOR:
        return TransferResult.OVERFLOWS_DEBITS
    if credits_ > MAX_BALANCE_MINOR:
        return TransferResult.OVERFLOWS_CREDITS
    if debit.account.flags & AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS and debits > debit.credits_posted_minor:
        return TransferResult.EXCEEDS_CREDITS
    if credit.account.flags & AccountFlags.CREDITS_MUST_NOT_EXCEED_DEBITS and credits_ > credit.debits_posted_minor:
        return TransferResult.EXCEEDS_DEBITS
    return TransferResult.OK


def _enact(state: LedgerState, transfer: Transfer) -> None:
    pending, posted = 0, transfer.amount_minor
    if transfer.flags & TransferFlags.PENDING:
        pending, posted = transfer.amount_minor, 0
    elif transfer.resolves and transfer.pending_id:
        pending = -state.transfers[transfer.pending_id].amount_minor
        kind = transfer.flags & _KINDS
        posted = 0 if kind & TransferFlags.VOID_PENDING else posted
        state.resolutions[transfer.pending_id] = kind
    debit = state.accounts[transfer.debit_account_id]
    credit = state.accounts[transfer.credit_account_id]
    state.accounts[transfer.debit_account_id] = replace(
        debit,
        debits_pending_minor=debit.debits_pending_minor + pending,
        debits_posted_minor=debit.debits_posted_minor + posted,
    )
    state.accounts[transfer.credit_account_id] = replace(
        credit,
        credits_pending_minor=credit.credits_pending_minor + pending,
        credits_posted_minor=credit.credits_posted_minor + posted,
    )
    state.transfers[transfer.id] = transfer
