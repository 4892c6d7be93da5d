"""Which variables each of our modules reads when it runs as a process of a deployment."""

from importlib import import_module

from pydantic_settings import BaseSettings

from adapters.noop.adapter import NoopSettings
from adapters.runtime.settings import RuntimeSettings
from adapters.testkit.serving import SECRET_VARIABLE
from core.settings import Settings

TRACING = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"}
"""Those of OpenTelemetry's own that a deployment sets (wire/tracing.py, docs/tracing.md)."""
_JOBS = {"DATABASE_ADMIN_URL", "DATABASE_URL", "DATABASE_WORKER_URL", "FLEET_MASTER_KEY"}


def environment_of(module: str) -> set[str]:
    """Return the variables of a module, with their twins that name files; none for what has only arguments."""
    if module == "core":
        return _variables(Settings) | TRACING
    if module == "fleet.deploy":
        return _JOBS | {f"{name}_FILE" for name in _JOBS}
    if module.endswith(".simulator"):
        return {SECRET_VARIABLE, f"{SECRET_VARIABLE}_FILE"}
    if module.count(".") == 1:
        return _variables(RuntimeSettings) | _variables(_rail_settings(module)) | TRACING
    return set()


def required_of(module: str) -> set[str]:
    """Return the variables of a module that have no default; what only has arguments needs none."""
    if module == "core":
        return _required(Settings)
    if module.count(".") == 1 and module.startswith("adapters."):
        return _required(RuntimeSettings) | _required(_rail_settings(module))
    return set()


def _required(settings: type[BaseSettings]) -> set[str]:
    prefix = settings.model_config.get("env_prefix", "")
    fields = [(name, field) for name, field in settings.model_fields.items() if field.is_required()]
    return {str(field.validation_alias or field.alias or prefix + name).upper() for name, field in fields}


def _rail_settings(module: str) -> type[BaseSettings]:
    if module == "adapters.noop":
        return NoopSettings
    settings = vars(import_module(f"{module}.settings")).values()
    (own,) = [
        each
        for each in settings
        if isinstance(each, type) and issubclass(each, BaseSettings) and each.__module__.startswith(module)
    ]
    return own


def _variables(settings: type[BaseSettings]) -> set[str]:
    found: set[str] = set()
    for name, field in settings.model_fields.items():
        alias = field.validation_alias or field.alias
        choices = getattr(alias, "choices", [alias]) if alias else [settings.model_config.get("env_prefix", "") + name]
        found |= {str(choice).upper() for choice in choices}
    return found | {f"{name}_FILE" for name in found}
