"""The `fleet` command for people: `--json` everywhere, errors in one line with the remedy.

Exit codes: 0 done · 1 a check failed · 2 wrong usage or input · 3 refused by the core ·
4 not reachable or not configured · 70 a fault of ours · 130 interrupted.
"""

from fleet.cli.app import main

__all__ = ["main"]
