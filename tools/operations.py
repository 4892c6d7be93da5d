"""Writes docs/operations.md, the tables of operations, from their registry.

python -m tools.operations           write it
python -m tools.operations --check   exit 1 where it differs from the registry
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from core.domain.registry import OPERATIONS, By, LegKind, Movement, Operation

TARGET = Path(__file__).parent.parent / "docs" / "operations.md"

_HEAD = """# Operations

Generated from the registry in `core/domain/registry.py` by `python -m tools.operations`; `./dev check` compares them.

An operation moves its money in one chain of legs: all of them, or none. The wallet is `wallet_id`, the
counterparty's is `counterparty_wallet_id`: another one of the tenant, in the same currency, or of EXCHANGE in
another one. The principal is what the recipient receives: the amount less the fees out of it. A second word is a
direction, in which it goes another way.

## Steps and legs
"""
_TERMS = """
## Terms

What has a job needs a route, which names rail and provider account by tenant, currency, amount and payee; without
one it is refused as `no_route` before anything is held. A refund goes by the rail that its original came by. A key
carries what its list names, and `*` all that is not marked with a ! here.
"""


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _needs(operation: Operation, movement: Movement) -> str:
    if movement.by is not By.CLIENT:
        return "nothing: no payment is asked for"
    wanted = {
        "payee": operation.needs_payee,
        "counterparty": operation.needs_counterparty,
        "original": operation.refunds,
        "quote": operation.exchanges,
    }
    return ", ".join(name for name, needed in wanted.items() if needed) or "nothing more"


def _legs(operation: Operation, movement: Movement) -> str:
    kinds = zip(("principal", "bought", "spread"), (movement.principal, *operation.bought), strict=False)
    legs = [_leg(name, kind) for name, kind in kinds]
    if movement.takes_fees:
        legs.append("each fee by rule: the wallet → the account that its rule names")
    if movement.returns_fees:
        legs.append(f"each fee that goes back: the account that got it → {movement.principal.credit}")
    if operation.confirms_first:
        legs.append("the fee that the lookup named: the wallet → fee income")
    return "<br>".join(legs)


def _leg(name: str, kind: LegKind) -> str:
    return f"{name}: {kind.debit} → {kind.credit}"


def _carries(operation: Operation, movement: Movement) -> str:
    if movement.by is By.CORE:
        return "none"
    scopes = [f"{movement.scope} !"] if movement.scope else []
    if movement.by is By.CLIENT:
        scopes.insert(0, f"{operation.type}{' !' if operation.named_only else ''}")
    return ", ".join(scopes)


def _movements() -> list[tuple[Operation, str, Movement]]:
    """Return each operation with its usual movement, then with those by direction."""
    return [
        (operation, f"{operation.type} {direction}".strip(), movement)
        for operation in OPERATIONS.values()
        for direction, movement in (("", operation.usual), *operation.otherwise.items())
    ]


def _table(columns: str, rows: Iterable[Sequence[str]]) -> list[str]:
    return [columns, "|---" * (columns.count("|") - 1) + "|", *(f"| {' | '.join(cells)} |" for cells in rows)]


def render() -> str:
    """Return the document's text."""
    steps = [
        (name, each.by, each.steps.start, each.steps.start_result, each.steps.execute, each.steps.execute_result,
         _legs(operation, each))
        for operation, name, each in _movements()
    ]  # fmt: skip
    terms = [
        (name, each.job_kind or "none", _needs(operation, each), _yes(each.takes_fees), each.counted,
         "where the rail looks payees up" if operation.confirms_first else "no", operation.asked_for,
         _carries(operation, each))
        for operation, name, each in _movements()
    ]  # fmt: skip
    terms_columns = (
        "| operation | job | needs | fees by rule | limits that count it | confirms first"
        " | a key of some wallets must cover | a key must carry |"
    )
    return "\n".join(
        [
            _HEAD,
            *_table("| operation | started by | start | start result | execute | execute result | legs |", steps),
            _TERMS,
            *_table(terms_columns, terms),
            "",
        ]
    )


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
