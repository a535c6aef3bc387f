"""Pictures in a terminal: two pixels in each character cell, the upper half in front of the lower."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

COLUMNS, ROWS = 16, 8


def can_show(console: "Console") -> bool:
    """Tell whether the output is a terminal with the colours that pictures need."""
    return console.is_terminal and console.color_system in ("256", "truecolor")


def thumbnail(data: bytes) -> "Text":
    """Draw a picture file in at most `COLUMNS` x `ROWS` cells; empty where it cannot be read."""
    from PIL import Image, ImageOps
    from rich.text import Text

    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.draft("RGB", (COLUMNS * 4, ROWS * 8))
            upright = ImageOps.exif_transpose(opened).convert("RGBA")
    except (OSError, ValueError, Image.DecompressionBombError):
        return Text()
    upright.thumbnail((COLUMNS, ROWS * 2))
    white = Image.new("RGBA", upright.size, "white")
    picture = Image.alpha_composite(white, upright).convert("RGB")
    drawn = Text(no_wrap=True)
    for y in range(0, picture.height, 2):
        for x in range(picture.width):
            upper = _colour(picture.getpixel((x, y)))
            lower = f" on {_colour(picture.getpixel((x, y + 1)))}" if y + 1 < picture.height else ""
            drawn.append("▀", upper + lower)
        drawn.append("\n")
    return drawn


def _colour(pixel: object) -> str:
    assert isinstance(pixel, tuple)
    red, green, blue = pixel
    return f"#{red:02x}{green:02x}{blue:02x}"
