"""What two people on call do in the end, by the API: letters are discarded, alerts are closed with a reason."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from core.services.access.people import SYSTEM_TENANT
from fleet.client import FleetClient, Refused
from schemas.alerts import AlertClosing, AlertList, AlertState, AlertView
from schemas.on_call import LetterSelection, RedriveAction, RedriveDecision, RedriveRequest, RedriveState, RedriveView
from tools.observed_world import World, patience_s

_WHY: Final = "a scenario of ./dev observe is over"
_UNTIL_DECIDED: Final = ("suspense_", "reconciliation_break")
"""How the kinds of alerts begin that stand until a person decides about money: no scenario does, and none waits."""
_LONGEST_S: Final = 90
_EVERY_S: Final = 0.3
_SECOND_MAY: Final = "DEAD_LETTERS,REDRIVE_APPROVAL"


async def second_person(home: Path) -> tuple[str, str]:
    """Make the key of another person on call, as that is done by hand; return its id and its secret."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fleet.cli", "keys", "create", "--name", "second", "--operations", _SECOND_MAY,
        "--tenant", str(SYSTEM_TENANT), "--json",
        env=environment | {"FLEET_STACK": str(home / "stack.json")}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, _ = await made.communicate()
    if made.returncode != 0:
        raise RuntimeError(f"no key for the second person on call: {told.decode()}")
    key = json.loads(told)
    return key["key_id"], key["secret"]


async def close_what_is_open(world: World) -> None:
    """Discard every letter and close every alert, also those that come meanwhile; one that pages is closed by two.

    What stands until a person decides about it stays open. Raises TimeoutError where something else does.
    """
    async with asyncio.timeout(patience_s(_LONGEST_S)), _two(world) as (first, second):
        while True:
            await _discard(first, second)
            waiting = await _to_close(first)
            if not waiting:
                return
            for alert in waiting:
                # What still stands is tried again; the core closes some by itself meanwhile.
                with contextlib.suppress(Refused):
                    await _close(first, second, alert)
            await asyncio.sleep(_EVERY_S)


@asynccontextmanager
async def _two(world: World) -> AsyncIterator[tuple[FleetClient, FleetClient]]:
    info = world.stack.info
    async with (
        FleetClient(info.public_url, info.operator_key_id, info.operator_key_secret) as first,
        FleetClient(info.public_url, *world.second) as second,
    ):
        yield first, second


async def _discard(first: FleetClient, second: FleetClient) -> None:
    every = LetterSelection(received_after=datetime(2020, 1, 1, tzinfo=UTC))
    asked = RedriveRequest(
        action=RedriveAction.DISCARD,
        selection=every,
        reason=_WHY,
        incident="OBSERVE",
        dry_run=False,
        canary=0,
        ramp_s=0,
    )
    try:
        view = await first.call("POST", "/v1/redrives", RedriveView, body=asked)
    except Refused as refusal:
        if refusal.problem.code != "nothing_selected":
            raise
        return
    path = f"/v1/redrives/{view.id}"
    await second.call("POST", f"{path}/approve", RedriveView, body=RedriveDecision(reason=_WHY))
    while view.state in (RedriveState.AWAITING_APPROVAL, RedriveState.RUNNING):
        await asyncio.sleep(_EVERY_S)
        view = await first.call("GET", path, RedriveView)
    if view.state is not RedriveState.DONE:
        raise RuntimeError(f"the letters were not discarded: {view.state}, {view.ended_because}")


async def _to_close(first: FleetClient) -> list[AlertView]:
    page = await first.call("GET", "/v1/alerts", AlertList, query={"limit": "500"})
    return [alert for alert in page.items if not (alert.stands and alert.kind.startswith(_UNTIL_DECIDED))]


async def _close(first: FleetClient, second: FleetClient, alert: AlertView) -> None:
    body = AlertClosing(reason=_WHY)
    closed = await first.call("POST", f"/v1/alerts/{alert.id}/close", AlertView, body=body)
    if closed.state is AlertState.PROPOSED:
        await second.call("POST", f"/v1/alerts/{alert.id}/approve", AlertView, body=body)
