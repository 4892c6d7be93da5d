"""Every refusal that a client can meet: a stable code, its status and title. docs/errors.md lists the same."""

from dataclasses import dataclass
from typing import Final

from schemas.api import Problem
from schemas.limits import LimitExceeded
from schemas.money import AmountError, currency_of


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One kind of refusal; the code never changes its meaning."""

    status: int
    title: str


PROBLEMS: Final = {
    # POST /v1/intents checks in this order.
    "body_too_large": ProblemType(413, "The body is too large"),
    "unauthenticated": ProblemType(401, "The request is not signed by a known key"),
    "stale_timestamp": ProblemType(401, "The timestamp is too far off"),
    "replayed_nonce": ProblemType(401, "The nonce was used before"),
    "idempotency_key_missing": ProblemType(422, "A money request needs an Idempotency-Key"),
    "unsupported_media_type": ProblemType(415, "The body is not JSON"),
    "malformed_json": ProblemType(400, "The body is not JSON"),
    "duplicate_field": ProblemType(400, "The body names a field twice"),
    "invalid_request": ProblemType(422, "A field is not valid"),
    "operation_not_permitted": ProblemType(403, "The key may not do this"),
    "account_not_permitted": ProblemType(403, "The key may not use this account"),
    "on_behalf_of_missing": ProblemType(403, "The key acts for users alone"),
    "idempotency_in_flight": ProblemType(409, "The first request is still in flight"),
    "idempotency_conflict": ProblemType(422, "The key was used for another request"),
    "unknown_currency": ProblemType(422, "The currency is not known"),
    "wallet_not_found": ProblemType(422, "There is no such wallet"),
    "currency_mismatch": ProblemType(422, "The wallet holds another currency"),
    "on_behalf_of_differs": ProblemType(403, "The wallet is not this user's"),
    "counterparty_missing": ProblemType(422, "The operation needs another wallet"),
    "counterparty_not_expected": ProblemType(422, "The operation has no other wallet"),
    "counterparty_same": ProblemType(422, "A wallet cannot pay itself"),
    "original_not_expected": ProblemType(422, "The operation refunds nothing"),
    "original_missing": ProblemType(422, "A refund needs the payment that it gives back"),
    "original_not_found": ProblemType(422, "There is no such payment to refund"),
    "original_not_refundable": ProblemType(422, "Such a payment is not refunded by its recipient"),
    "original_not_settled": ProblemType(409, "Only a settled payment is refunded"),
    "refund_wallet_differs": ProblemType(422, "A refund comes from the wallet that received the payment"),
    "refund_exceeds_original": ProblemType(422, "Less of the payment is left to refund"),
    "quote_not_expected": ProblemType(422, "The operation exchanges nothing"),
    "quote_missing": ProblemType(422, "An exchange needs a quote"),
    "quote_not_found": ProblemType(422, "There is no such quote"),
    "quote_mismatch": ProblemType(422, "The quote says something else"),
    "quote_used": ProblemType(409, "The quote was used"),
    "quote_expired": ProblemType(409, "The quote has expired"),
    "direction_not_expected": ProblemType(422, "The operation has one direction"),
    "payee_not_expected": ProblemType(422, "The operation has no payee"),
    "qr_malformed": ProblemType(422, "The payment code cannot be read"),
    "qr_not_payable": ProblemType(422, "The code asks for no payment that is made here"),
    "qr_currency_differs": ProblemType(422, "The payment code asks for another currency"),
    "qr_amount_differs": ProblemType(422, "The payment code asks for another amount"),
    "mandate_not_found": ProblemType(422, "There is no such mandate"),
    "mandate_wallet_differs": ProblemType(422, "The mandate is of another wallet"),
    "mandate_cancelled": ProblemType(409, "The mandate was cancelled"),
    "mandate_used": ProblemType(409, "The mandate's last debit was asked for"),
    "mandate_amount_exceeded": ProblemType(422, "One debit under the mandate takes less"),
    "no_route": ProblemType(422, "No rail carries this payment"),
    "rail_unavailable": ProblemType(503, "The rail is not there yet"),
    "refund_not_offered": ProblemType(422, "The rail gives no such payment back"),
    "refund_parts_not_offered": ProblemType(422, "The rail gives such a payment back whole alone"),
    "amount_out_of_bounds": ProblemType(422, "The rail does not take this amount"),
    "payee_missing": ProblemType(422, "The operation needs a payee"),
    "payee_type_unknown": ProblemType(422, "The rail does not know this type of payee"),
    "payee_malformed": ProblemType(422, "The payee is not written as its type demands"),
    "mandate_not_yet_valid": ProblemType(422, "The mandate's days have not come"),
    "mandate_expired": ProblemType(409, "The mandate's days are over"),
    "fee_rule_fails": ProblemType(422, "A fee rule has no value for a payment"),
    "fee_exceeds_amount": ProblemType(422, "The fees leave nothing of the amount"),
    "fee_above_agreed": ProblemType(422, "The fee is more than was agreed to"),
    # Any address:
    "not_found": ProblemType(404, "There is no such thing"),
    "method_not_allowed": ProblemType(405, "The method is not offered here"),
    "cursor_malformed": ProblemType(422, "The cursor is not one of ours"),
    "internal": ProblemType(500, "The core failed"),
    "unavailable": ProblemType(503, "The core cannot work now"),
    "storage_full": ProblemType(503, "The database has no room left"),
    # Confirm, cancel, decide:
    "review_own_intent": ProblemType(403, "Another key must decide about this payment"),
    "wrong_state": ProblemType(409, "The intent's state does not allow this"),
    "lookup_mismatch": ProblemType(409, "The confirmation differs from the lookup"),
    "lookup_expired": ProblemType(409, "The lookup has expired"),
    "already_sent": ProblemType(409, "The payment may have been sent"),
    # Wallets, limits, tenants, events:
    "moment_not_past": ProblemType(422, "The moment has not come"),
    "account_closed": ProblemType(409, "The wallet is closed"),
    "account_not_empty": ProblemType(409, "The wallet has money or holds"),
    "account_frozen": ProblemType(409, "The wallet is frozen"),
    "external_id_taken": ProblemType(409, "The external id names another wallet"),
    "limit_shape_fixed": ProblemType(422, "A limit of this name counts something else"),
    "limit_exceeded": ProblemType(422, "A limit leaves no room"),
    "tenant_name_taken": ProblemType(409, "The name is another tenant's"),
    "webhook_url_refused": ProblemType(422, "No webhook is sent to this address"),
    "too_many_endpoints": ProblemType(422, "The tenant has as many endpoints as may be"),
    "too_many_streams": ProblemType(503, "As many streams are open as may be"),
    # Fee rules:
    "operation_not_supported": ProblemType(422, "The operation is not offered"),
    "fee_syntax": ProblemType(422, "The expression is not CEL"),
    "fee_expression_forbidden": ProblemType(422, "The expression uses a part of CEL that is not offered"),
    "fee_name_unknown": ProblemType(422, "The expression uses a name that is not offered"),
    "fee_result_type": ProblemType(422, "The expression's result has the wrong type"),
    "fee_sample_differs": ProblemType(422, "A sample's fee is another"),
    "fee_account_unknown": ProblemType(422, "A share's wallet is not the tenant's in this currency"),
    # Exchange:
    "counterparty_owner_differs": ProblemType(422, "An exchange is between wallets of one owner"),
    "pair_not_offered": ProblemType(422, "These currencies are not exchanged"),
    "rate_stale": ProblemType(409, "No rate is fresh enough"),
    "exchange_amount_out_of_bounds": ProblemType(422, "The amount buys nothing, or one side is too large"),
    "pair_inverted": ProblemType(422, "The pair is kept the other way round"),
    "pair_unknown": ProblemType(422, "No terms are set for this pair of currencies"),
    "rate_malformed": ProblemType(422, "The rate is not a decimal number of the allowed length"),
    "rate_from_future": ProblemType(422, "The rate was observed at a time that has not come"),
    "liquidity_overdrawn": ProblemType(409, "The liquidity is below zero"),
    # Mandates:
    "mandate_signed_ahead": ProblemType(422, "The day of signature has not come"),
    "mandate_exists": ProblemType(409, "Another mandate has this id"),
    # Routes:
    "route_terms_empty": ProblemType(422, "No payment can take the route"),
    # Rails' keys:
    "rail_key_limited": ProblemType(403, "The key serves some of the rail's tenants alone"),
    # On call:
    "nothing_selected": ProblemType(422, "No letter is left to act upon"),
    "redrive_changed": ProblemType(409, "More letters are in doubt than when the redrive was asked for"),
    "redrive_own": ProblemType(403, "Another person must decide about this redrive"),
    "wrong_redrive_state": ProblemType(409, "The redrive's state does not allow this"),
    "permit_running": ProblemType(409, "The payment may be on its way to the provider at this moment"),
    "transaction_taken": ProblemType(409, "The transaction paid another payment"),
    "suspense_taken": ProblemType(409, "The item was decided about already"),
    "suspense_taken_back": ProblemType(409, "The item's provider took the payment back"),
    "alert_stands": ProblemType(409, "What the alert tells of is still so"),
    "wrong_alert_state": ProblemType(409, "The alert's state does not allow this"),
    "wrong_break_state": ProblemType(409, "The break's state does not allow this"),
    "entry_missing": ProblemType(422, "A break of money is put right by a new entry"),
    "day_missing": ProblemType(422, "The lines speak of several days, and none was named"),
    "day_busy": ProblemType(409, "Somebody compares this day now"),
    "file_refused": ProblemType(422, "The file is not what the mapping describes"),
    "register_incomplete": ProblemType(422, "A register was called whole before every line of it had come"),
    "anchor_malformed": ProblemType(422, "What the journal is compared with is no end of a chain"),
    # The console:
    "sign_in_refused": ProblemType(401, "Nobody is signed in by this"),
    "too_many_attempts": ProblemType(429, "Too many wrong passwords"),
    "form_refused": ProblemType(403, "The form was not sent from a page of this session"),
    "role_missing": ProblemType(403, "The person's role does not carry this"),
    "own_role": ProblemType(403, "Another admin must change this"),
    "person_exists": ProblemType(409, "The name is another person's"),
}


class Refusal(Exception):  # noqa: N818 - named by outcome
    """A request is refused and nothing was changed. `code` is a key of PROBLEMS; the text names the remedy."""

    def __init__(self, code: str, detail: str, *, field: str | None = None, limit: LimitExceeded | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.field = field
        self.limit = limit

    @property
    def status(self) -> int:
        """The HTTP status."""
        return PROBLEMS[self.code].status

    def problem(self, instance: str | None = None) -> Problem:
        """Return the problem details of RFC 9457."""
        kind = PROBLEMS[self.code]
        return Problem(
            type=f"urn:psp-fleet:problem:{self.code}",
            title=kind.title,
            status=kind.status,
            code=self.code,
            detail=self.detail,
            field=self.field,
            instance=instance,
            **(self.limit.model_dump(exclude={"limit"}) if self.limit else {}),
        )


def require_currency(code: str, field: str = "currency") -> None:
    """Raise Refusal `unknown_currency` unless it is one that is known here."""
    try:
        currency_of(code)
    except AmountError as error:
        raise Refusal("unknown_currency", str(error), field=field) from error
