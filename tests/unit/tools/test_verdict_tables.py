"""The pages of the rails say what each answer means exactly as the code judges it."""

import pytest

from adapters.bank import answers as bank
from adapters.promptpay import verdicts as promptpay
from adapters.promptpay.models import QrStatus, TransferStatus
from adapters.sbp import verdicts as sbp
from tools.verdicts import PAGES, TABLES, main, written

LISTED = {
    "promptpay": [
        *TransferStatus.__members__.keys() - {"LOOKED_UP"},
        *QrStatus,
        *promptpay.REASONS,
        *(code for _, code in (*promptpay.REFUSED, *promptpay.NOT_TAKEN, *promptpay.NOT_FOUND, promptpay.TAKEN)),
    ],
    "sbp": [*sbp.STATUSES, *sbp.QR_STATUSES, *sbp.PAYMENT_STATUSES, *sbp.REFUND_STATUSES, *sbp.DECLINES,
            *sbp.REFUSED, *sbp.NOT_TAKEN, *sbp.MISCONFIGURED, sbp.THROTTLED, *sbp.TAKEN, *sbp.NOT_FOUND],
    "bank": [*bank.STATUSES, *bank.REASONS, *bank.DUPLICATES, *bank.TIME_OUTS],
}  # fmt: skip


def test_the_pages_are_those_that_the_code_writes() -> None:
    assert main(["--check"]) == 0


@pytest.mark.parametrize("rail", TABLES)
def test_every_code_that_is_judged_stands_on_the_page_beside_its_default(rail: str) -> None:
    page = (PAGES / f"{rail}.md").read_text()
    assert not [code for code in LISTED[rail] if f"`{code}`" not in page]
    assert "UNKNOWN" in next(line for line in page.splitlines() if line.startswith("| any other status"))


@pytest.mark.parametrize("rail", TABLES)
def test_a_row_that_was_changed_by_hand_is_put_right(rail: str) -> None:
    page = (PAGES / f"{rail}.md").read_text()
    changed = page.replace("| DECLINED", "| SUCCEEDED", 1).replace("| UNKNOWN |", "| DECLINED |", 1)
    assert changed != page
    assert written(changed, rail) == page
    with pytest.raises(ValueError, match="has no marks"):
        written("# nothing", rail)
