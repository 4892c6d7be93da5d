"""Mappings of the registers of providers that are known, to use as they are or to start from."""

import tomllib
from importlib.resources import files

from pydantic import ValidationError

from core.services.problems import Refusal
from schemas.register_mapping import RegisterMapping


def shipped_names() -> list[str]:
    """Return whose mapping is shipped."""
    return sorted(each.name.removesuffix(".toml") for each in files(__name__).iterdir() if each.name.endswith(".toml"))


def shipped_mapping(name: str) -> RegisterMapping:
    """Return a mapping that is shipped. Raises Refusal `invalid_request`."""
    known = shipped_names()
    if name not in known:
        raise Refusal("invalid_request", f"no mapping is shipped for {name}: {', '.join(known)}", field="provider")
    return mapping_in(files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8"))


def mapping_in(text: str) -> RegisterMapping:
    """Return the mapping that a TOML text describes. Raises Refusal `invalid_request`."""
    try:
        return RegisterMapping.model_validate(tomllib.loads(text))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        at = ".".join(map(str, fault["loc"]))
        raise Refusal("invalid_request", f"{at or 'mapping'}: {fault['msg']}", field="mapping") from error
    except tomllib.TOMLDecodeError as error:
        raise Refusal("invalid_request", f"the mapping is not TOML: {error}", field="mapping") from error
