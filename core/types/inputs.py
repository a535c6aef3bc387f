"""Inputs of callers: images and text for encoders, and the numbers beside them."""

import base64
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a picture in shares of its width and height, as a viewer shows it: upright, from the top left.

    All four are in [0, 1], `width` and `height` above 0, and the part ends within the picture.
    """

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Cropped:
    """The part `box` of the picture in the bytes of a file; it travels whole and is cut where it is decoded."""

    data: bytes
    box: Box


PictureInput = bytes | Cropped
"""A picture that an encoder takes: the bytes of a file, whole or a part of what they show."""


EncoderInput = PictureInput | str
"""What an encoder takes: a picture, or words."""


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, BeforeValidator(_whole)]
"""An integer of JSON as JSON Schema has it: 3.0 is one too, and some languages write it so."""

PROBE: PictureInput = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQMAAACQp+OdAAAABlBMVEX/QACAgIAuXkqhAAAAGklEQVR42mNkYGBg+M/AwMDEAAWjjFEG8QwA"
    "yyMBf5gYzUkAAAAASUVORK5CYII="
)
"""An image file, gray with one bright half, that asks whether a model works: no cache holds its embedding."""
