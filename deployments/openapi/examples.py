"""Examples of calls and of their answers, as data: a file for each group of calls."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from core.config import Config

FOLDER = Path(__file__).parent / "examples"


class RequestExample(Config):
    """A request; a string `@file` in a form stands for the file of that name, as in curl."""

    name: str = Field(description="What it shows, in a few words.")
    path: dict[str, str] = Field({}, description="Values of the parameters in the path.")
    query: dict[str, str | int] = Field({}, description="Query parameters.")
    json_body: dict[str, Any] | None = Field(None, alias="json", description="The JSON body.")
    form: dict[str, Any] | None = Field(None, description="The fields of a multipart body; objects are JSON.")


class CallExample(Config):
    """What is sent to one call, and what it answers to the first of the requests."""

    requests: tuple[RequestExample, ...] = Field(min_length=1, description="At least one request.")
    answer: Any = Field(None, description="The JSON or text of the answer; none where it is a file or empty.")


@cache
def examples() -> dict[str, CallExample]:
    """Read all examples, by the operation id of their call."""
    return {
        operation: CallExample.model_validate(example)
        for file in sorted(FOLDER.glob("*.yaml"))
        for operation, example in yaml.safe_load(file.read_text()).items()
    }
