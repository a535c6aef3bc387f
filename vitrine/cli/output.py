"""Output on a terminal: tables, thumbnails and the figures of an evaluation."""

import io
from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib.util import find_spec
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text


_UNBOUNDED = 1_000_000


def console(*, stderr: bool = False) -> "Console":
    """Open the console; without a terminal it is so wide that nothing is cut or wrapped."""
    from rich.console import Console

    opened = Console(stderr=stderr)
    return opened if opened.is_terminal else Console(stderr=stderr, width=_UNBOUNDED)


def table(
    columns: Iterable[str], rows: Iterable[Iterable[Any]], title: str | None = None
) -> "RenderableType":
    """Draw rows under columns."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False)
    for column in columns:
        # What is longer than its column is an id or a path, useless when cut.
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row))
    # A table's own title would be wrapped to the width of the table.
    return drawn if title is None else Group(Text(title, style="italic"), drawn)


def facts(values: Mapping[str, Any]) -> "Table":
    """Draw names and values."""
    from rich.table import Table

    drawn = Table(box=None, show_header=False, pad_edge=False)
    drawn.add_column(style="bold", overflow="fold")
    drawn.add_column(overflow="fold")
    for name, value in values.items():
        drawn.add_row(name, _cell(value))
    return drawn


def _cell(value: Any) -> Any:
    from rich.protocol import is_renderable
    from rich.text import Text

    if value is None or value == "":
        return Text("–", style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, float):
        return Text(f"{value:.4g}")
    if isinstance(value, int):
        return Text(f"{value:,}")
    if isinstance(value, datetime):
        return Text(f"{value.astimezone():%Y-%m-%d %H:%M:%S}")
    if isinstance(value, Mapping):
        return facts(value) if value else Text("–", style="dim")
    if isinstance(value, list | tuple):
        return Text("\n".join(str(each) for each in value))
    # What shops write must not be taken for markup.
    return Text(value) if isinstance(value, str) else value if is_renderable(value) else Text(str(value))


COLUMNS, ROWS = 16, 8


def can_show(console: "Console") -> bool:
    """Return whether the output is a terminal with the colors that images need."""
    return console.is_terminal and console.color_system in ("256", "truecolor")


def can_draw() -> bool:
    """Return whether Pillow is installed, which reads images: the client alone does without it."""
    return find_spec("PIL") is not None


def thumbnail(data: bytes) -> "Text":
    """Draw an image file in at most `COLUMNS` x `ROWS` cells; empty where it cannot be read."""
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
    pixels = Image.alpha_composite(white, upright).convert("RGB").tobytes()
    width = 3 * upright.width
    lines = [pixels[start : start + width] for start in range(0, len(pixels), width)]
    drawn = Text(no_wrap=True)
    for upper, lower in zip_longest(lines[::2], lines[1::2], fillvalue=b""):
        for x in range(0, width, 3):
            background = f" on #{lower[x : x + 3].hex()}" if lower else ""
            drawn.append("▀", f"#{upper[x : x + 3].hex()}{background}")
        drawn.append("\n")
    return drawn


def evaluation(job_id: str, result: Mapping[str, Any]) -> "RenderableType":
    """Draw the version, each system's figures with their intervals, and the decision of the quality gate."""
    from rich.console import Group

    version = ("model", "fingerprint", "collection", "dimension", "checkpoint", "precision", "baseline")
    known = {
        "job": job_id,
        **{name: result[name] for name in (*version, "quality_gate", "notes") if name in result},
        "report": f"vitrine jobs report {job_id} FILE",
    }
    return Group(*(_figures(each) for each in result["figures"]), facts(known))


def _figures(figures: Mapping[str, Any]) -> "RenderableType":
    estimates = figures["estimates"]
    metrics = dict.fromkeys(metric for each in estimates.values() for metric in each)
    rows = [(metric, *(_estimate(each.get(metric)) for each in estimates.values())) for metric in metrics]
    return table(("", *estimates), rows, title=f"{figures['kind']}, {figures['queries']} queries")


def _estimate(estimate: Mapping[str, Any] | None) -> str | None:
    if estimate is None or estimate.get("mean") is None:
        return None
    if estimate.get("low") is None:
        return f"{estimate['mean']:.3f}"
    return f"{estimate['mean']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"
