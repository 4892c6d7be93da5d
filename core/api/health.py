"""Liveness and readiness, unsigned."""

from fastapi import FastAPI
from starlette.responses import JSONResponse

from core.bootstrap import PASSING_FAULTS, Core
from wire.pulse import PULSE


def install_health(app: FastAPI, core: Core) -> None:
    """Add /healthz (the loop turns) and /readyz (the database answers and is migrated far enough)."""

    async def healthz() -> JSONResponse:
        stalled = PULSE.stalled()
        return JSONResponse({"status": "stalled", "loops": stalled}, 503) if stalled else JSONResponse({"status": "ok"})

    async def readyz() -> JSONResponse:
        try:
            missing = await core.missing_migrations()
        except PASSING_FAULTS:
            return JSONResponse({"status": "database_away"}, 503)
        if missing:
            return JSONResponse({"status": "migrations_missing", "missing": missing}, 503)
        return JSONResponse({"status": "ok"})

    app.add_api_route("/healthz", healthz, include_in_schema=False)
    app.add_api_route("/readyz", readyz, include_in_schema=False)
