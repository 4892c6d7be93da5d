"""The calls of docs/client.md and docs/signing.md, run as they are written."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from fleet.client import FleetClient
from fleet.stack.stack import Stack
from schemas.api import IntentRequest, WalletRequest
from schemas.operations import OperationType

DOCS = Path(__file__).parents[2] / "docs"


def example(page: str, language: str) -> str:
    """Return the one example of a page in a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return str(found)


@pytest.fixture
async def wallet(stack: Stack) -> UUID:
    async with FleetClient(stack.info.public_url, stack.info.key_id, stack.info.key_secret) as client:
        made = await client.create_wallet(WalletRequest(owner="docs", currency="THB", external_id=uuid4().hex))
        fund = IntentRequest(
            operation=OperationType.MANUAL_ADJUSTMENT, wallet_id=made.id, amount_minor=100_000, currency="THB"
        )
        await client.create_intent(fund, idempotency_key=uuid4().hex)
    return made.id


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("openssl")), reason="needs curl and openssl")
@pytest.mark.parametrize(("page", "language"), [("client.md", "bash"), ("signing.md", "sh")])
def test_the_call_with_curl_pays(stack: Stack, wallet: UUID, page: str, language: str) -> None:
    # Each page pays order-1017; here they are two orders.
    script = example(page, language).replace("order-1017", uuid4().hex)
    info = stack.info
    known = {"FLEET_URL": info.public_url, "FLEET_KEY_ID": info.key_id, "FLEET_KEY_SECRET": info.key_secret}
    environment = {**os.environ, **known, "WALLET_ID": str(wallet)}
    done = subprocess.run(["sh", "-eu", "-c", script], env=environment, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    intent = orjson.loads(done.stdout)
    assert (intent.get("wallet_id"), intent.get("failure")) == (str(wallet), None), intent


async def test_the_call_with_the_typed_client_pays(
    stack: Stack, wallet: UUID, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    exec(compile(example("client.md", "python"), "docs/client.md", "exec"), names)
    info = stack.info
    await names["pay"](info.public_url, info.key_id, info.key_secret, wallet)
    printed = capsys.readouterr().out.split()
    assert UUID(printed[0])
    assert printed[1] in ("CREATED", "VALIDATED", "AUTHORIZED", "DISPATCHED", "SETTLED")
