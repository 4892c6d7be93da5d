"""The Bank of Thailand's one-dimensional bill barcode: `|biller\\rref1\\rref2\\rsatang`. Pure."""

import re
from dataclasses import dataclass
from typing import Any

from schemas.codes.tlv import QrError

_BARCODE = re.compile(r"\|(\d{13}|\d{15})\r([A-Za-z0-9]{1,20})\r([A-Za-z0-9]{0,20})\r(\d{1,12})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Barcode:
    """A bill; `amount_satang` is None where the payer chooses."""

    biller_id: str
    ref1: str
    ref2: str | None
    amount_satang: int | None

    def fields(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {
            "biller_id": self.biller_id,
            "ref1": self.ref1,
            "ref2": self.ref2,
            "amount_satang": self.amount_satang,
        }


def decode_barcode(text: str) -> Barcode:
    """Read a barcode. Raises QrError `barcode_malformed`. An amount of 0 means that the payer chooses."""
    match = _BARCODE.fullmatch(text)
    if match is None:
        raise QrError("barcode_malformed", "a bill barcode is |biller, ref1, ref2 and satang, divided by returns")
    biller_id, ref1, ref2, amount = match.groups()
    return Barcode(biller_id, ref1, ref2 or None, int(amount) or None)
