"""Settings from the environment, where any of them may be a file instead: `NAME_FILE` names what `NAME` would hold.

Secrets of containers come as files, so that no inspection of a process or of its definition shows them.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource
from pydantic_settings.exceptions import SettingsError

from schemas.faults import fault_of

__all__ = ["EnvironmentSettings", "PostgresUrl", "RedisUrl", "SettingsError", "read_variable"]

SUFFIX = "_FILE"


def _by(words: str, *schemes: str) -> Callable[[SecretStr], SecretStr]:
    def checked(address: SecretStr) -> SecretStr:
        scheme, divided, rest = address.get_secret_value().partition("://")
        if scheme not in schemes or not (divided and rest):
            raise ValueError(words)
        return address

    return checked


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


class _Files(EnvSettingsSource):
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

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            told = error.errors(include_url=False, include_input=False)
            # Without its cause, which shows the values: they may be secrets.
            raise SettingsError(f"settings are missing or wrong: {'; '.join(map(self._fault, told))}") from None

    @classmethod
    def _fault(cls, told: Mapping[str, Any]) -> str:
        """Say what is wrong with a setting, by the name that it is set under; of several together, in their words."""
        _, field, words = fault_of(told)
        if not field:
            return words
        named = str(told["loc"][0]) in cls.model_fields
        name = f"{cls.model_config.get('env_prefix', '')}{field}".upper() if named else field
        return f"{name}: {f'is missing: set it, or {name}{SUFFIX}' if told['type'] == 'missing' else words}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  the signature is the base class's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  the signature is the base class's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources in the order in which they count."""
        return init_settings, env_settings, _Files(settings_cls)
