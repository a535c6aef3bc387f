"""The base of every configuration model: frozen, strict about keys, open to the environment."""

import os
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from core.errors import ConfigError

_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


class Config(BaseModel):
    """A frozen configuration model that refuses unknown keys.

    String values may refer to the environment of the process that builds the application:
    `${NAME}` must be set, `${NAME:-fallback}` need not. Errors never show values, which may be secrets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _expand_environment(cls, values: Any) -> Any:
        return expand_environment(values)


def expand_environment(value: Any, environment: Mapping[str, str] = os.environ) -> Any:
    """Replace `${NAME}` and `${NAME:-fallback}` in every string of a nested value.

    Raises:
        ConfigError: a name without a fallback is not set.
    """
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: _lookup(match, environment), value)
    if isinstance(value, dict):
        return {key: expand_environment(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [expand_environment(item, environment) for item in value]
    return value


def unset_names(text: str) -> list[str]:
    """List the names without a fallback that a text refers to and that are not set."""
    found = _REFERENCE.finditer(text)
    return [each["name"] for each in found if each["default"] is None and each["name"] not in os.environ]


def _lookup(match: re.Match[str], environment: Mapping[str, str]) -> str:
    name, default = match["name"], match["default"]
    found = environment.get(name, default)
    if found is None:
        raise ConfigError(f"the configuration refers to ${{{name}}}, which is not set in the environment")
    return found
