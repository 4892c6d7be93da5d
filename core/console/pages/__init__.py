"""The screens of the console, one module for each subject. docs/console.md says how to add one."""

from typing import Final

from core.console.pages import (
    alerts,
    audit,
    breaks,
    intents,
    letters,
    overview,
    people,
    rails,
    reconciliation,
    redrives,
    reviews,
    routes,
    signing_in,
    static,
    streams,
    suspense,
)
from core.console.visit import Screen

SCREENS: Final[tuple[Screen, ...]] = (
    *signing_in.SCREENS,
    *static.SCREENS,
    *overview.SCREENS,
    *intents.SCREENS,
    *letters.SCREENS,
    *redrives.SCREENS,
    *reviews.SCREENS,
    *suspense.SCREENS,
    *rails.SCREENS,
    *streams.SCREENS,
    *alerts.SCREENS,
    *breaks.SCREENS,
    *reconciliation.SCREENS,
    *audit.SCREENS,
    *routes.SCREENS,
    *people.SCREENS,
)
