"""What all arguments of jobs have in common."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class JobArgs(BaseModel):
    """Arguments of a job, as a caller sends them; unknown ones and other types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_odd_strings(cls, values: Any) -> Any:
        for text in _strings(values):
            # A configuration follows such references into the environment, where the secrets are.
            if "${" in text:
                raise ValueError("arguments may not refer to the environment by ${…}")
            if not text.isprintable():
                raise ValueError("arguments may hold printable characters only")
        return values


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
