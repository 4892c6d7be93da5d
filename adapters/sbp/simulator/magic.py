"""Phones whose fate is fixed, for the demo and for sandboxes. Every other phone has a receiver and is paid at once.

| phone | what happens |
|---|---|
| 79990000001 | no receiver: the check says so, under HTTP 200 |
| 79990000002 | the payout is paid, the answer does not come (time-out after paying) |
| 79990000003 | the answer does not come and nothing was paid (time-out before paying) |
| 79990000004 | HTTP 500 before paying |
| 79990000005 | HTTP 500 after paying |
| 79990000006 | paid, the answer is garbage |
| 79990000007 | IN_PROGRESS for a while, then COMPLETED |
| 79990000008 | IN_PROGRESS for a while, then DECLINED: told to nobody who does not ask |
| 79990000009 | paid, then the connection is reset |
| 79990000010 | the connection is reset before anything was paid |
| 79990000011 | paid, but the answer says, under HTTP 200, that the payout exists already |
| 79990000012 | HTTP 429 once, then paid |
| 79990000013 | refused, under HTTP 200, for want of money in our account |
"""

from adapters.testkit.faults import Fault, Script

MAGIC: dict[str, Fault] = {
    "79990000001": Fault.PAYEE_NOT_FOUND,
    "79990000002": Fault.TIMEOUT_AFTER,
    "79990000003": Fault.TIMEOUT_BEFORE,
    "79990000004": Fault.ERROR_BEFORE,
    "79990000005": Fault.ERROR_AFTER,
    "79990000006": Fault.GARBAGE_AFTER,
    "79990000007": Fault.SLOW_SETTLE,
    "79990000008": Fault.DECLINED,
    "79990000009": Fault.RESET_AFTER,
    "79990000010": Fault.RESET_BEFORE,
    "79990000011": Fault.DUPLICATE_AFTER,
    "79990000012": Fault.THROTTLED,
    "79990000013": Fault.REFUSED,
}


def magic_scripts() -> list[Script]:
    """Return the fault scripts of the phones above."""
    return [Script(fault, payee=phone) for phone, fault in MAGIC.items()]
