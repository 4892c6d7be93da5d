"""The core's name for the identifiers of `schemas.ids`."""

from schemas.ids import derive_id, id_time_ms, ids_of_that_time, mint_id, mint_ids

__all__ = ["derive_id", "id_time_ms", "ids_of_that_time", "mint_id", "mint_ids"]
