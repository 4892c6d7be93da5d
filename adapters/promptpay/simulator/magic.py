"""Payees whose fate is fixed, for the demo and for sandboxes. Every other payee exists and is paid at once.

| mobile | what happens |
|---|---|
| 0899990001 | the payee does not exist: the lookup says so |
| 0899990002 | the transfer is paid, the answer does not come (time-out after paying) |
| 0899990003 | the answer does not come and nothing was paid (time-out before paying) |
| 0899990004 | HTTP 500 before paying |
| 0899990005 | HTTP 500 after paying |
| 0899990006 | paid, the answer is garbage |
| 0899990007 | PROCESSING for a while, then SUCCEEDED |
| 0899990008 | declined: the account is closed |
| 0899990009 | paid, then the connection is reset |
| 0899990010 | the connection is reset before anything was paid |
| 0899990011 | paid, but the answer says that the reference is a duplicate |
| 0899990012 | HTTP 429 once, then paid |
"""

from adapters.testkit.faults import Fault, Script

MAGIC: dict[str, Fault] = {
    "0066899990001": Fault.PAYEE_NOT_FOUND,
    "0066899990002": Fault.TIMEOUT_AFTER,
    "0066899990003": Fault.TIMEOUT_BEFORE,
    "0066899990004": Fault.ERROR_BEFORE,
    "0066899990005": Fault.ERROR_AFTER,
    "0066899990006": Fault.GARBAGE_AFTER,
    "0066899990007": Fault.SLOW_SETTLE,
    "0066899990008": Fault.DECLINED,
    "0066899990009": Fault.RESET_AFTER,
    "0066899990010": Fault.RESET_BEFORE,
    "0066899990011": Fault.DUPLICATE_AFTER,
    "0066899990012": Fault.THROTTLED,
}


def magic_scripts() -> list[Script]:
    """Return the fault scripts of the payees above."""
    return [Script(fault, payee=proxy) for proxy, fault in MAGIC.items()]
