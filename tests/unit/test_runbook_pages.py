"""Every alert and every break has its page in the runbook, in the same four parts, and no page is of nothing."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest
import yaml

from core.domain.collections import FURTHER
from core.domain.stranded import StrandedKind
from fleet.cli.app import COMMANDS
from fleet.cli.later import Later
from schemas.alerts import AlertKind
from schemas.recon import BreakName
from tests.support.break_kinds import break_kinds
from tools.alerts import ALERTS

ROOT: Final = Path(__file__).parents[2]
PARTS: Final = ("Means", "Can not mean", "Commands", "Wake")
RAISING: Final = {"Alert", "alert", "_alert", "quarantine"}
"""What the calls are called that raise an alert; the kind is among their arguments, beside the severity."""


def pages() -> dict[str, str]:
    """Return the text under each heading of the second level; kinds that are alike share one."""
    text = (ROOT / "docs/runbook.md").read_text()
    found = re.findall(r"^## (.+)\n((?:(?!^#).*\n)*)", re.sub(r"^( *)#", r"\1·", text, flags=0), re.MULTILINE)
    return {name: body for heading, body in found for name in heading.split(", ")}


def strings(node: ast.AST, named: dict[str, str]) -> Iterator[str]:
    """Yield what an expression may be, constants of the module included; texts that are put together are none."""
    if isinstance(node, ast.JoinedStr):
        return
    if isinstance(node, ast.Name) and node.id in named:
        yield named[node.id]
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[a-z]+(_[a-z]+)*", node.value):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from strings(child, named)


def told_by(tree: ast.Module) -> Iterator[str]:
    """Yield the kinds of alert that a module's calls and decisions name."""
    named = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and isinstance(node.value.value, str)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == "kind"
            and isinstance(node.value, ast.IfExp)
        ):
            yield from (each for part in (node.value.body, node.value.orelse) for each in strings(part, named))
        if not isinstance(node, ast.Call):
            continue
        called, arguments = ast.unparse(node.func).rpartition(".")[2], [ast.unparse(each) for each in node.args]
        if called in RAISING:
            yield from (each for argument in node.args for each in strings(argument, named))
        elif called == "Decision" and arguments[0] in ("Step.QUARANTINE", "Step.ALERT", "Step.SUSPEND"):
            yield from strings(node.args[1], named) if len(node.args) > 1 else ()
        elif called == "Judgement" and len(node.args) > 1:
            prefix = "suspense_" if arguments[0] == "PaymentFate.SUSPENDED" else ""
            if prefix or arguments[0] in ("PaymentFate.QUARANTINED", "PaymentFate.NOTED"):
                yield from (prefix + each for each in strings(node.args[1], named))


@cache
def alert_kinds() -> set[str]:
    """Return every kind that the core writes into fleet.alerts, read from its code."""
    kinds = {f"stranded_{kind}" for kind in StrandedKind}
    for path in sorted((ROOT / "core").rglob("*.py")):
        text = path.read_text()
        tree = ast.parse(text)
        kinds |= set(told_by(tree))
        kinds |= set(re.findall(r"'(?:page|ticket)', '(\w+)'", text)) | set(re.findall(r'"alert", "(\w+)"', text))
    booking = ast.parse((ROOT / "core/services/money_in/collection_booking.py").read_text())
    unusable = ast.parse((ROOT / "core/domain/collections.py").read_text())
    resting = (*answers(booking, "refused"), *answers(unusable, "_closed_to"), "returned_before")
    kinds |= {f"suspense_{kind}" for kind in resting}
    kinds |= set(answers(unusable, "_unusable"))
    # A further payment of a code goes on to its wallet at once: nobody is told.
    return kinds - {"page", "ticket", f"suspense_{FURTHER}"}


def answers(tree: ast.Module, function: str) -> Iterator[str]:
    """Yield the words that a function may return."""
    (found,) = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function]
    for node in ast.walk(found):
        if isinstance(node, ast.Return) and node.value is not None:
            parts = (node.value.body, node.value.orelse) if isinstance(node.value, ast.IfExp) else (node.value,)
            yield from (each for part in parts for each in strings(part, {}))


PAGES: Final = pages()


def test_what_raises_alerts_and_breaks_is_read_from_the_code() -> None:
    assert {"unresolved", "callback_differs", "second_return", "unusable_result", "webhook_dead"} <= alert_kinds()
    assert {"return_in_suspense", "amount_missing", "suspense_wallet_closed", "ledger_refused"} <= alert_kinds()
    assert {"payment_quarantined", "ledger_chain_broken", "register_fee", "orphan_hold"} <= break_kinds()


def test_every_alert_and_break_has_a_page_and_every_page_is_of_one() -> None:
    wanted = {alert.name for alert in ALERTS} | alert_kinds() | break_kinds()
    assert wanted - PAGES.keys() == set()
    assert PAGES.keys() - wanted == set()


def test_alerts_and_breaks_are_narrowed_by_the_kinds_that_there_are() -> None:
    assert set(AlertKind) == alert_kinds()
    assert set(BreakName) == break_kinds()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_has_its_four_parts_in_order_and_a_command(name: str) -> None:
    parts = re.findall(r"^- \*\*([A-Z][a-z ]+)\*\* (\S.*)$", PAGES[name], re.MULTILINE)
    assert [label for label, _ in parts] == list(PARTS)
    commands = PAGES[name].partition("- **Commands**")[2].partition("- **Wake**")[0]
    assert re.search(r"`fleet [a-z]+|^ *fleet [a-z]+ ", commands, re.MULTILINE), "no command"


def test_every_command_of_a_page_exists() -> None:
    places = {name: Later(name, says, place) for name, place, says in COMMANDS}
    seen = set()
    for name, body in PAGES.items():
        for line in re.findall(r"fleet ([a-z]+(?: [a-z-]+)?)(?=[ `\n])", " ".join(body.split())):
            group, _, verb = line.partition(" ")
            assert group in places, (name, line)
            verbs = getattr(places[group].load(), "commands", {})
            assert not verbs or verb in verbs or verb.startswith("--"), (name, line)
            seen.add(line)
    assert len(seen) > 25


def test_every_service_that_a_page_stops_or_enters_is_one_of_composes() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    text = " ".join((ROOT / "docs/runbook.md").read_text().split())
    entered = re.findall(r"docker compose exec (\S+)", text)
    stopped = [name for names in re.findall(r"docker compose stop ([a-z -]+)`", text) for name in names.split()]
    assert entered
    assert stopped
    assert set(entered + stopped) <= services.keys()
