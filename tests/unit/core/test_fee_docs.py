"""docs/fees.md lists what the code offers, and its example is a rule that can be kept."""

import re
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

from core.domain.fee_checks import check_rule
from core.domain.fee_language import FUNCTIONS, VARIABLES
from core.domain.fees import compile_rule
from schemas.fees import FeeRuleRequest

PAGE = (Path(__file__).parents[3] / "docs/fees.md").read_text()


def test_the_listed_variables_and_functions_are_those_of_the_language() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:int|string|timestamp) \| (.+) \|$", PAGE, re.MULTILINE)
    assert dict(rows) == VARIABLES
    (listed,) = re.findall(r"^Functions: (.+?)\. ", PAGE, re.MULTILINE)
    assert tuple(re.findall(r"`(\w+)`", listed)) == FUNCTIONS


def test_the_example_takes_what_its_samples_say() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    request = FeeRuleRequest.model_validate_json(text)
    now = datetime(2026, 3, 2, tzinfo=UTC)
    check_rule(compile_rule(request, UUID(int=1), 1, now, None), request.samples, now, ZoneInfo("Asia/Bangkok"))
    assert len(request.samples) == 2
