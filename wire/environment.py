"""Settings from the environment, where any of them may be a file instead: `NAME_FILE` names what `NAME` would hold.

Secrets of containers come as files, so that no inspection of a process or of its definition shows them.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from schemas.faults import fault_of
from schemas.money import MAX_AMOUNT_MINOR

__all__ = [
    "EnvironmentSettings",
    "HttpUrl",
    "HttpUrlOrNone",
    "LimitMinor",
    "PostgresUrl",
    "RedisUrl",
    "SettingsError",
    "read_variable",
]

SUFFIX = "_FILE"


def _by(words: str, *schemes: str) -> Callable[[SecretStr], SecretStr]:
    def checked(address: SecretStr) -> SecretStr:
        scheme, divided, rest = address.get_secret_value().partition("://")
        if scheme not in schemes or not (divided and rest):
            raise ValueError(words)
        return address

    return checked


def _asked_by_http(address: str) -> str:
    try:
        parts = urlsplit(address)
        there = bool(parts.hostname) and parts.port != 0
    except ValueError:
        there = False
    if not there or parts.scheme not in ("http", "https") or set(address) & set("?# \t\r\n"):
        raise ValueError("is no address: write http://HOST:PORT or https://HOST, and a path where it has one")
    return address


HttpUrl = Annotated[str, AfterValidator(_asked_by_http)]
HttpUrlOrNone = Annotated[str, AfterValidator(lambda address: address and _asked_by_http(address))]
LimitMinor = Annotated[int, Field(gt=0, le=MAX_AMOUNT_MINOR)]
PostgresUrl = Annotated[
    SecretStr,
    AfterValidator(
        _by("is no address of PostgreSQL: write postgresql://USER:PASSWORD@HOST/DATABASE", "postgresql", "postgres")
    ),
]
RedisUrl = Annotated[
    SecretStr,
    AfterValidator(
        _by(
            "is no address of Redis or Valkey: write redis://USER:PASSWORD@HOST:PORT/0 (docs/redis.md)",
            *("redis", "rediss", "unix", "redis-sentinel", "rediss-sentinel", "redis-cluster", "rediss-cluster"),
        )
    ),
]


def read_variable(name: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the variable, else the text of the file that `NAME_FILE` names, else an empty text.

    The last line's end is not part of the value. Raises SettingsError where the file cannot be read.
    """
    known = os.environ if environ is None else environ
    path = known.get(name + SUFFIX)
    if known.get(name) or not path:
        return known.get(name, "")
    try:
        return Path(path).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}{SUFFIX} names {path}, which cannot be read: {type(error).__name__}") from error


class _Variables(EnvSettingsSource):
    """The environment's own source; where a list is no JSON, the field says what it takes."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


class _Files(_Variables):
    """Looks each field up as the environment's source does, among the variables that name files."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        # Both names are folded to lower case, as the class compares them.
        named = [name.removesuffix(SUFFIX) for name in os.environ if name.endswith(SUFFIX)]
        wanted = {f"{self.env_prefix}{name}".lower() for name in self.settings_cls.model_fields} | {
            alias.lower() for field in self.settings_cls.model_fields.values() for alias in _aliases(field)
        }
        return {name.lower(): read_variable(name) for name in named if name.lower() in wanted}


def _aliases(field: object) -> list[str]:
    alias = getattr(field, "validation_alias", None)
    choices = getattr(alias, "choices", [alias])
    return [choice for choice in choices if isinstance(choice, str)]


class EnvironmentSettings(BaseSettings):
    """Base of every settings class: a variable counts before the file of the same name.

    Raises SettingsError in one line that names each variable at fault and what it takes.
    """

    model_config = SettingsConfigDict(allow_inf_nan=False)

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            faults = map(self._fault, error.errors(include_url=False, include_input=False))
            # One of each setting, and without the cause, which shows the values: they may be secrets.
            wrong = "; ".join(": ".join(filter(None, fault)) for fault in dict(faults).items())
            raise SettingsError(f"settings are missing or wrong: {wrong}") from None

    @classmethod
    def _fault(cls, told: Mapping[str, Any]) -> tuple[str, str]:
        """Return by which name a setting is set, "" for several together, and what is wrong with it."""
        if not told["loc"]:
            return "", fault_of(told).words
        name = str(told["loc"][0])
        if name in cls.model_fields:
            name = f"{cls.model_config.get('env_prefix', '')}{name}".upper()
        return name, f"is missing: set it, or {name}{SUFFIX}" if told["type"] == "missing" else fault_of(told).words

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  ours stands for it
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  the signature is the base class's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  the signature is the base class's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources in the order in which they count."""
        return init_settings, _Variables(settings_cls), _Files(settings_cls)
