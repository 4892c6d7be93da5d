"""What is published for other languages agrees with the code."""

import json
import re
from pathlib import Path

import pytest

from core.services.problems import PROBLEMS
from wire.signing import canonical, sign, verify

ROOT = Path(__file__).parents[3]
VECTORS = json.loads((ROOT / "tests/vectors/signing.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_the_published_signatures_are_ours(vector: dict[str, str]) -> None:
    text = canonical(
        method=vector["method"],
        path=vector["path"],
        query=vector["query"],
        body=vector["body"].encode(),
        key_id=vector["key_id"],
        timestamp=vector["timestamp"],
        nonce=vector["nonce"],
        on_behalf_of=vector.get("on_behalf_of"),
        idempotency_key=vector.get("idempotency_key"),
    )
    assert text.decode() == vector["canonical"]
    assert sign(vector["secret"], text) == vector["signature"]
    assert verify(["another", vector["secret"]], text, vector["signature"])
    assert not verify(["another"], text, vector["signature"])
    assert not verify([vector["secret"]], text + b"x", vector["signature"])


def test_the_listed_errors_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.+) \|$", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    assert [(code, int(status), title) for code, status, title in rows] == [
        (code, kind.status, kind.title) for code, kind in PROBLEMS.items()
    ]
