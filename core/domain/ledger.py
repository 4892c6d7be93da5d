"""Double-entry accounts and transfers: the words that every ledger engine speaks. Pure."""

import hashlib
from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import Final
from uuid import UUID

MAX_BALANCE_MINOR: Final = 2**63 - 1
"""The largest amount and the largest balance, in minor units."""

ZERO_ID: Final = UUID(int=0)

_RESOLVING: Final = 4 | 8


class AccountFlags(IntFlag):
    """What an account refuses. The numbers are stored."""

    NONE = 0
    DEBITS_MUST_NOT_EXCEED_CREDITS = 1
    CREDITS_MUST_NOT_EXCEED_DEBITS = 2
    CLOSED = 4
    FROZEN = 8
    """No new debits. What was held before may end either way, and credits arrive."""


class TransferFlags(IntFlag):
    """What a transfer does. The numbers are stored. At most one of the last three."""

    NONE = 0
    LINKED = 1
    PENDING = 2
    POST_PENDING = 4
    VOID_PENDING = 8


@dataclass(frozen=True, slots=True)
class Account:
    """An account before its first transfer. `ledger` is the ISO 4217 number of its currency."""

    id: UUID
    tenant_id: UUID
    ledger: int
    code: int
    flags: AccountFlags = AccountFlags.NONE
    user_data: UUID | None = None


@dataclass(frozen=True, slots=True)
class AccountBalance:
    """An account with its balances in minor units."""

    account: Account
    debits_pending_minor: int = 0
    debits_posted_minor: int = 0
    credits_pending_minor: int = 0
    credits_posted_minor: int = 0

    @property
    def posted_minor(self) -> int:
        """Credits less debits, posted."""
        return self.credits_posted_minor - self.debits_posted_minor

    @property
    def available_minor(self) -> int:
        """What may be debited from a wallet: posted less what is held."""
        return self.posted_minor - self.debits_pending_minor


@dataclass(slots=True)
class Transfer:
    """A movement of `amount_minor` > 0 from the debit to the credit account. Never changed, though not frozen: a
    batch makes thousands, and a frozen one costs three times as much to make.

    LINKED chains it to the next one of the batch: all of a chain, or none. PENDING holds the amount until a
    transfer with POST_PENDING (of at most the amount; the rest is released) or VOID_PENDING (of exactly the
    amount) names it as `pending_id`. An amount of 0 is refused always: it never means "everything".
    """

    id: UUID
    tenant_id: UUID
    debit_account_id: UUID
    credit_account_id: UUID
    amount_minor: int
    ledger: int
    code: int
    flags: TransferFlags = TransferFlags.NONE
    pending_id: UUID | None = None
    timeout_s: int | None = None
    user_data: UUID | None = None

    @property
    def resolves(self) -> bool:
        """Whether it posts or voids a hold."""
        return bool(int(self.flags) & _RESOLVING)


class TransferResult(StrEnum):
    """What became of a transfer, in order of precedence: the first that applies is the answer.

    Names are TigerBeetle's where it has the case. `linked_event_failed` is the answer of a chain's other members.
    """

    OK = "ok"
    LINKED_EVENT_FAILED = "linked_event_failed"
    LINKED_EVENT_CHAIN_OPEN = "linked_event_chain_open"
    ID_MUST_NOT_BE_ZERO = "id_must_not_be_zero"
    EXISTS_WITH_DIFFERENT_FLAGS = "exists_with_different_flags"
    EXISTS_WITH_DIFFERENT_PENDING_ID = "exists_with_different_pending_id"
    EXISTS_WITH_DIFFERENT_TIMEOUT = "exists_with_different_timeout"
    EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID = "exists_with_different_debit_account_id"
    EXISTS_WITH_DIFFERENT_CREDIT_ACCOUNT_ID = "exists_with_different_credit_account_id"
    EXISTS_WITH_DIFFERENT_AMOUNT = "exists_with_different_amount"
    EXISTS_WITH_DIFFERENT_USER_DATA = "exists_with_different_user_data"
    EXISTS_WITH_DIFFERENT_LEDGER = "exists_with_different_ledger"
    EXISTS_WITH_DIFFERENT_CODE = "exists_with_different_code"
    EXISTS = "exists"
    FLAGS_ARE_MUTUALLY_EXCLUSIVE = "flags_are_mutually_exclusive"
    ACCOUNTS_MUST_BE_DIFFERENT = "accounts_must_be_different"
    PENDING_ID_MUST_NOT_BE_ZERO = "pending_id_must_not_be_zero"
    PENDING_ID_MUST_BE_ZERO = "pending_id_must_be_zero"
    PENDING_ID_MUST_BE_DIFFERENT = "pending_id_must_be_different"
    TIMEOUT_RESERVED_FOR_PENDING_TRANSFER = "timeout_reserved_for_pending_transfer"
    TIMEOUT_MUST_BE_POSITIVE = "timeout_must_be_positive"
    AMOUNT_MUST_NOT_BE_ZERO = "amount_must_not_be_zero"
    LEDGER_MUST_NOT_BE_ZERO = "ledger_must_not_be_zero"
    CODE_MUST_NOT_BE_ZERO = "code_must_not_be_zero"
    DEBIT_ACCOUNT_NOT_FOUND = "debit_account_not_found"
    CREDIT_ACCOUNT_NOT_FOUND = "credit_account_not_found"
    ACCOUNTS_MUST_HAVE_THE_SAME_LEDGER = "accounts_must_have_the_same_ledger"
    TRANSFER_MUST_HAVE_THE_SAME_LEDGER_AS_ACCOUNTS = "transfer_must_have_the_same_ledger_as_accounts"
    PENDING_TRANSFER_NOT_FOUND = "pending_transfer_not_found"
    PENDING_TRANSFER_NOT_PENDING = "pending_transfer_not_pending"
    PENDING_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID = "pending_transfer_has_different_debit_account_id"
    PENDING_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID = "pending_transfer_has_different_credit_account_id"
    PENDING_TRANSFER_HAS_DIFFERENT_CODE = "pending_transfer_has_different_code"
    EXCEEDS_PENDING_TRANSFER_AMOUNT = "exceeds_pending_transfer_amount"
    PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT = "pending_transfer_has_different_amount"
    PENDING_TRANSFER_ALREADY_POSTED = "pending_transfer_already_posted"
    PENDING_TRANSFER_ALREADY_VOIDED = "pending_transfer_already_voided"
    PENDING_TRANSFER_EXPIRED = "pending_transfer_expired"
    DEBIT_ACCOUNT_ALREADY_CLOSED = "debit_account_already_closed"
    CREDIT_ACCOUNT_ALREADY_CLOSED = "credit_account_already_closed"
    DEBIT_ACCOUNT_FROZEN = "debit_account_frozen"
    OVERFLOWS_DEBITS_PENDING = "overflows_debits_pending"
    OVERFLOWS_CREDITS_PENDING = "overflows_credits_pending"
    OVERFLOWS_DEBITS_POSTED = "overflows_debits_posted"
    OVERFLOWS_CREDITS_POSTED = "overflows_credits_posted"
    OVERFLOWS_DEBITS = "overflows_debits"
    OVERFLOWS_CREDITS = "overflows_credits"
    EXCEEDS_CREDITS = "exceeds_credits"
    EXCEEDS_DEBITS = "exceeds_debits"


class AccountResult(StrEnum):
    """What became of an account, in order of precedence."""

    OK = "ok"
    ID_MUST_NOT_BE_ZERO = "id_must_not_be_zero"
    FLAGS_ARE_MUTUALLY_EXCLUSIVE = "flags_are_mutually_exclusive"
    LEDGER_MUST_NOT_BE_ZERO = "ledger_must_not_be_zero"
    CODE_MUST_NOT_BE_ZERO = "code_must_not_be_zero"
    EXISTS_WITH_DIFFERENT_FLAGS = "exists_with_different_flags"
    EXISTS_WITH_DIFFERENT_USER_DATA = "exists_with_different_user_data"
    EXISTS_WITH_DIFFERENT_LEDGER = "exists_with_different_ledger"
    EXISTS_WITH_DIFFERENT_CODE = "exists_with_different_code"
    EXISTS = "exists"


class AccountChange(StrEnum):
    """What may be done to an account beside moving money. Closing is final."""

    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    CLOSE = "close"


class AccountChangeResult(StrEnum):
    """What became of a change, in order of precedence. EXISTS: the account is so already."""

    OK = "ok"
    ACCOUNT_NOT_FOUND = "account_not_found"
    ACCOUNT_ALREADY_CLOSED = "account_already_closed"
    EXISTS = "exists"
    ACCOUNT_HAS_HOLDS = "account_has_holds"
    ACCOUNT_HAS_BALANCE = "account_has_balance"


def system_account_id(tenant_id: UUID, ledger: int, code: int, qualifier: str = "") -> UUID:
    """Return the id of a tenant's own account: the same input gives the same id, always.

    Its first byte is 0xff: such accounts are hot, sort last, and so are locked last and for the shortest time.
    """
    material = tenant_id.bytes + ledger.to_bytes(4, "big") + code.to_bytes(4, "big") + qualifier.encode()
    digest = bytearray(hashlib.blake2b(material, digest_size=16).digest())
    digest[0] = 0xFF
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return UUID(bytes=bytes(digest))
