"""Every kind of break that the core can open, read from its code."""

import re
from pathlib import Path
from typing import Final

from core.domain.reconciliation import BreakKind
from core.domain.registers import ABSENT_KIND, PREFIX
from schemas.registers import MatchClass

ROOT: Final = Path(__file__).parents[2]
FINE: Final = {MatchClass.MATCHED, MatchClass.CARRIED, MatchClass.FOUND_ELSEWHERE}


def break_kinds() -> set[str]:
    """Return every kind: of intents, of the ledger's proof, of registers, and of facts that moved nothing."""
    return {kind.value for kind in BreakKind} | ledger_kinds() | register_kinds() | {ABSENT_KIND} | quarantine_kinds()


def ledger_kinds() -> set[str]:
    """Return what the ledger's own proof may name."""
    proof = (ROOT / "core/store/ledger/ledger_proof.py").read_text()
    counted = {"accounts", "transfers", "pending_minor"}
    return {f"ledger_{kind}" for kind in re.findall(r"SELECT '(\w+)'", proof) if kind not in counted}


def register_kinds() -> set[str]:
    """Return what a line of a register, or a payment that none tells of, may come to."""
    return {f"{PREFIX}{kind}" for kind in MatchClass if kind not in FINE}


def quarantine_kinds() -> set[str]:
    """Return what a provider's fact that moves nothing opens."""
    booking = (ROOT / "core/services/money_in/collection_booking.py").read_text()
    return set(re.findall(r'_QUARANTINED = "(\w+)"', booking))
