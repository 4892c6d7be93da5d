"""Tag-length-value text as EMVCo's merchant-presented QR uses it, and its checksum. Pure.

Source: EMVCo QR Code Specification for Payment Systems, Merchant-Presented Mode. Lengths count characters; the
checksum counts the UTF-8 bytes up to and including its own tag and length.
"""

import binascii
from collections.abc import Iterable

MAX_PAYLOAD_CHARACTERS = 4096
_MAX_VALUE_CHARACTERS = 99


class QrError(ValueError):
    """A payload or a field that cannot be taken: `code` is stable, the text names field and remedy."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def crc16(text: str) -> str:
    """Return CRC-16/CCITT-FALSE of the UTF-8 bytes as four upper-case hexadecimal digits."""
    return f"{binascii.crc_hqx(text.encode(), 0xFFFF):04X}"


def read_tlv(text: str, where: str) -> dict[str, str]:
    """Return tag -> value in the order of the text.

    Raises QrError `qr_truncated`, `qr_malformed`, `qr_tag_repeated`.
    """
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        head = text[position : position + 4]
        if len(head) < 4 or not (head.isascii() and head.isdigit()):
            raise QrError("qr_malformed", f"{where}: no tag and length at character {position}: scan the code again")
        tag, length = head[:2], int(head[2:])
        value = text[position + 4 : position + 4 + length]
        if len(value) < length:
            raise QrError(
                "qr_truncated",
                f"{where}: tag {tag} promises {length} characters and {len(value)} are left: scan the whole code",
            )
        if tag in found:
            raise QrError("qr_tag_repeated", f"{where}: tag {tag} occurs twice: ask the issuer for a new code")
        found[tag] = value
        position += 4 + length
    return found


def write_tlv(fields: Iterable[tuple[str, str]]) -> str:
    """Return the text of the fields in the order given. Raises QrError `qr_field_too_long`."""
    parts: list[str] = []
    for tag, value in fields:
        if len(value) > _MAX_VALUE_CHARACTERS:
            raise QrError(
                "qr_field_too_long", f"tag {tag} has {len(value)} characters; at most {_MAX_VALUE_CHARACTERS}"
            )
        parts.append(f"{tag}{len(value):02d}{value}")
    return "".join(parts)


def check_crc(payload: str, tag: str) -> str:
    """Return the payload without its checksum field, proven. Raises QrError `qr_checksum_*`.

    Lower-case checksums occur in the wild and are taken.
    """
    if len(payload) > MAX_PAYLOAD_CHARACTERS:
        raise QrError("qr_too_long", f"the payload has {len(payload)} characters; at most {MAX_PAYLOAD_CHARACTERS}")
    body, given = payload[:-4], payload[-4:]
    if not body.endswith(f"{tag}04"):
        raise QrError("qr_checksum_missing", f"the payload does not end with tag {tag}: scan the whole code")
    if not given.isascii() or crc16(body) != given.upper():
        raise QrError("qr_checksum_mismatch", f"the checksum is {crc16(body)}, the code says {given}: scan it again")
    return body[:-4]
