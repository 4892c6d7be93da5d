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

from typing import Final

from adapters.testkit.faults import fixed_fates

MAGIC: Final = fixed_fates("00668999900{:02d}")
