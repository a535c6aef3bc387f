"""The base of every configuration model: frozen, strict about keys, open to the environment."""

import os
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from core.errors import ConfigError

_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


class Config(BaseModel):
    """A frozen configuration model that refuses unknown keys.

    String values may refer to the environment of the process that builds the application:
    `${NAME}` must be set, `${NAME:-fallback}` need not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _expand_environment(cls, values: Any) -> Any:
        return expand_environment(values)


def expand_environment(value: Any) -> Any:
    """Replace `${NAME}` and `${NAME:-fallback}` in every string of a nested value.

    Raises:
        ConfigError: a name without a fallback is not set.
    """
    if isinstance(value, str):
        return _REFERENCE.sub(_lookup, value)
    if isinstance(value, dict):
        return {key: expand_environment(item) for key, item in value.items()}
    if isinstance(value, list):
        return [expand_environment(item) for item in value]
    return value


def unset_names(value: Any) -> list[str]:
    """List the names without a fallback that a string refers to and that are not set."""
    if not isinstance(value, str):
        return []
    found = _REFERENCE.finditer(value)
    return [each["name"] for each in found if each["default"] is None and each["name"] not in os.environ]


def _lookup(match: re.Match[str]) -> str:
    name, default = match["name"], match["default"]
    found = os.environ.get(name, default)
    if found is None:
        raise ConfigError(f"the configuration refers to ${{{name}}}, which is not set in the environment")
    return found
