"""Roles of people: each may do whatever the one before it may."""

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What a person may do, from the least to the most."""

    VIEWER = "viewer"
    """Sees everything, masked; changes nothing."""
    OPERATOR = "operator"
    """Starts what puts things right: redrives, pauses, resolutions; reveals personal data, with a reason."""
    APPROVER = "approver"
    """Agrees with what another person started."""
    ADMIN = "admin"
    """Says who has which role."""

    def covers(self, wanted: "Role") -> bool:
        """Whether who has this role may do what the wanted one may."""
        return _ORDER.index(self) >= _ORDER.index(wanted)


_ORDER: Final = tuple(Role)
