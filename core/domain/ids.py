"""The core's name for the identifiers of `schemas.ids`."""

from schemas.ids import derive_id, id_time_ms, mint_id

__all__ = ["derive_id", "id_time_ms", "mint_id"]
