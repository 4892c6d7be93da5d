"""Writes docs/operations.md, the table of operations, from their registry.

python -m tools.operations           write it
python -m tools.operations --check   exit 1 where it differs from the registry
"""

import sys
from pathlib import Path

from core.domain.operations import OPERATIONS, LegKind, Operation

TARGET = Path(__file__).parent.parent / "docs" / "operations.md"

_HEAD = """# Operations

Generated from the registry in `core/domain/operations.py` by `python -m tools.operations`; `./dev check` compares them.

Each moves its money in one chain of legs: all of them, or none. The wallet is `wallet_id`, the counterparty's is
`counterparty_wallet_id`: another one of the tenant, in the same currency, or of EXCHANGE in another one. The
principal's leg carries what the recipient receives: the amount less the fees out of it. An EXCHANGE has two legs more,
in the ledger of the other currency: from liquidity to the counterparty's wallet, and the spread from liquidity to fee
income. Each fee leg goes from the wallet to the account that its rule names, and the fee that a provider's lookup named
from the wallet to fee income. An operation that needs a route is refused as `no_route` where there is none, before
anything is held.
"""


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _needs(operation: Operation) -> str:
    needs = [name for name, needed in (("payee", operation.needs_payee), ("route", operation.needs_rail)) if needed]
    if operation.needs_counterparty:
        needs.append("counterparty")
    if operation.refunds:
        needs.append("original")
    if operation.exchanges:
        needs.append("quote")
    return ", ".join(needs) or "nothing more"


def _movements() -> list[tuple[Operation, str, LegKind]]:
    """Return each operation with its usual movement, then with those by direction."""
    return [
        (operation, direction, principal)
        for operation in OPERATIONS.values()
        for direction, principal in (("", operation.principal), *operation.otherwise.items())
    ]


def render() -> str:
    """Return the document's text."""
    lines = [
        _HEAD,
        "| operation | principal: debit | credit | job | needs | fees by rule | confirms first | key must cover |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for operation, direction, principal in _movements():
        cells = (
            operation.type.value + (f", {direction}" if direction else ""),
            principal.debit.value,
            principal.credit.value,
            kind.value if (kind := operation.job_kind_of(direction or None)) else "none",
            _needs(operation),
            _yes(operation.takes_fees),
            "where the rail looks payees up" if operation.confirms_first else "no",
            operation.asked_for.value,
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "## Steps",
        "",
        "| operation | start | start result | execute | execute result |",
        "|---|---|---|---|---|",
    ]
    for operation in OPERATIONS.values():
        steps = operation.steps
        words = (operation.type.value, steps.start, steps.start_result, steps.execute, steps.execute_result)
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join([*lines, ""])


def main(arguments: list[str]) -> int:
    """Write or check the document; returns the exit code."""
    wanted = render()
    if arguments == ["--check"]:
        if TARGET.exists() and TARGET.read_text(encoding="utf-8") == wanted:
            return 0
        sys.stderr.write("docs/operations.md differs from the registry: run python -m tools.operations\n")
        return 1
    TARGET.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
