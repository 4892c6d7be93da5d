"""What the demo prints stands as it was written, whatever a file's lines hold."""

import io

from rich.console import Console

from fleet.demo.payments_file import RefusedLine
from fleet.demo.report import print_report
from fleet.demo.runner import Run
from fleet.proof import Proof


def test_text_of_a_file_that_looks_like_markup_is_printed_as_it_is() -> None:
    run = Run(refused=[RefusedLine(3, "currency_unknown", "currency '[/b]' is none; pattern '^[a-z]$'")])
    run.failed["[red]closed"] = 1
    proof = Proof(balanced=True, holds_match_pending=True, paid_twice=["[/x]"])
    out = io.StringIO()
    print_report(Console(file=out, width=160), run, proof)
    assert all(text in out.getvalue() for text in ("currency '[/b]' is none; pattern '^[a-z]$'", "[red]closed", "[/x]"))
