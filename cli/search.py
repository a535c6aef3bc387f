"""`vitrine search`."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.asking import Asked
from cli.connection import Service, asks
from cli.console import console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vitrine import Vitrine
    from vitrine.answers import Facts, Page


@asks
def search(
    *,
    asked: Asked,
    model: Annotated[str | None, typer.Option(help="An encoder; default: the ensemble.")] = None,
    thumbnails: Annotated[
        bool | None, typer.Option(help="Draw pictures; default: where the terminal can.", show_default=False)
    ] = None,
    service: Service,
) -> None:
    """Find products by pictures, by words, by other products, or by all of them."""
    parts = asked.parts
    with service.client() as client:
        page = client.search(parts, model=model, **asked.options)
        service.show(page, lambda: _drawn(page, client, thumbnails, asked.offset))


def _drawn(page: "Page", client: "Vitrine", thumbnails: bool | None, offset: int) -> "RenderableType":
    from rich.console import Group

    from cli.tables import table
    from cli.thumbnails import can_show, thumbnail

    pictures = can_show(console()) if thumbnails is None else thumbnails
    rows = [
        (
            place,
            *([thumbnail(client.thumbnail(hit.image_id))] if pictures else []),
            hit.product_id,
            hit.score,
            hit.product.title,
            ", ".join(f"{name}: {value}" for name, value in hit.product.attributes.items()),
        )
        for place, hit in enumerate(page.results, offset + 1)
    ]
    columns = ["", *(["picture"] if pictures else []), "product", "score", "title", "attributes"]
    return Group(table(columns, rows), footer(page))


def footer(facts: "Facts") -> "RenderableType":
    """Draw who answered, how long each stage took, and who is missing."""
    from rich.text import Text

    used = ", ".join(each.model for each in facts.models_used) or "words alone"
    stages = ", ".join(f"{stage} {ms:.0f} ms" for stage, ms in facts.timings_ms.items())
    missing = "".join(f"; without {name}: {why}" for name, why in facts.skipped.items())
    return Text(f"{used}; {stages}{missing if facts.degraded else ''}", style="dim")
