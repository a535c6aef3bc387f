"""Answers as tables."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


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
