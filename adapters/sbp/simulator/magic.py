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

from typing import Final

from adapters.testkit.faults import Fault, fixed_fates

MAGIC: Final = {**fixed_fates("799900000{:02d}"), "79990000013": Fault.REFUSED}
