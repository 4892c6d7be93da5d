"""The mini-QR on a transfer slip, by which a bank proves that it sent the money. Pure.

Source: maythiwat/promptparse. Tag 00 holds the API type, sending bank and reference; 51 the country; 91 the checksum.
"""

from dataclasses import dataclass

from schemas.codes.tlv import QrError, check_crc, read_tlv


@dataclass(frozen=True, slots=True)
class Slip:
    """What a slip says. The reference is case-sensitive; TrueMoney's variant names no country."""

    api_type: str
    sending_bank: str
    trans_ref: str
    country: str | None

    def fields(self) -> dict[str, str]:
        """Return the fields by name, absent ones left out."""
        found = {"api_type": self.api_type, "sending_bank": self.sending_bank, "trans_ref": self.trans_ref}
        return found if self.country is None else {**found, "country": self.country}


def decode_slip(payload: str) -> Slip:
    """Read a slip's code. Raises QrError, `slip_malformed` where a field is missing."""
    top = read_tlv(check_crc(payload, "91"), "slip")
    nested = read_tlv(top.get("00", ""), "tag 00")
    if not {"00", "01", "02"} <= nested.keys():
        raise QrError("slip_malformed", "tag 00 lacks API type, bank or reference: this is no bank slip")
    return Slip(nested["00"], nested["01"], nested["02"], top.get("51"))
