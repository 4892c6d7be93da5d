"""How whoever follows events is woken: a notification at commit, sent only while somebody listens."""

from typing import Final

EVENTS_CHANNEL: Final = "fleet_events"
WAKE_FOLLOWERS: Final = (
    "(SELECT count(pg_notify('fleet_events', '')) FROM fleet.events_wanted_until"
    " WHERE last_value > extract(epoch FROM now()))"
)
"""An expression for the statement that writes events: many of them in one transaction are one notification."""
