"""`python -m adapters.noop`: the rail that pays nothing, as a process of its own."""

from adapters.noop.adapter import NoopRail, NoopSettings
from adapters.runtime.app import run

if __name__ == "__main__":
    run(lambda settings: NoopRail(settings.timing(), NoopSettings()))
