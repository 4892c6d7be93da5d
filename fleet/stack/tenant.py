"""The tenant that a one-machine stack is created with: what its commands mean where none is named."""

from typing import Final
from uuid import UUID

TENANT: Final = UUID("00000000-0000-7000-8000-00000000f1ee")
