"""`vitrine search`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.connection import Service, asks
from cli.json_option import json_object

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vitrine import Box, Vitrine
    from vitrine.answers import Page
    from vitrine.parts import Part

_PICTURE = re.compile(r"https?://\S+|\S+\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic)", re.IGNORECASE)


@asks
def search(
    query: Annotated[
        list[str] | None,
        typer.Argument(help="Words, picture files, or URLs of pictures; several are looked for together."),
    ] = None,
    like: Annotated[list[str] | None, typer.Option(help="Id of a product to find others like.")] = None,
    unlike: Annotated[list[str] | None, typer.Option(help="Id of a product to stay away from.")] = None,
    box: Annotated[
        str | None,
        typer.Option(help="Part of the picture that is meant: x,y,width,height in shares of its size."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="An encoder; default: the ensemble.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Products to find.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="Products to skip.")] = 0,
    filter: Annotated[
        str | None, typer.Option(help='Conditions on attributes: {"colour": "red", "price": {"lt": 50}}.')
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help='Weights of the ensemble\'s members: {"openclip": 1, "blip2": 0.5}.')
    ] = None,
    fusion: Annotated[
        Literal["rrf", "weighted"] | None, typer.Option(help="How the ensemble fuses lists.")
    ] = None,
    lexical_weight: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the ranking by words as they are written.")
    ] = None,
    score_threshold: Annotated[
        float | None, typer.Option(min=-1, max=1, help="Smallest cosine of a result.")
    ] = None,
    max_false_match_rate: Annotated[
        float | None, typer.Option(help="How often a strange query may find anything at all.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Id of a product to leave out.")] = None,
    thumbnails: Annotated[
        bool | None, typer.Option(help="Draw pictures; default: where the terminal can.", show_default=False)
    ] = None,
    *,
    service: Service,
) -> None:
    """Find products by pictures, by words, by other products, or by all of them."""
    parts = parts_of(query or [], like or [], unlike or [], box)
    if not parts:
        raise typer.BadParameter("give words, a picture, or --like", param_hint="QUERY")
    with service.client() as client:
        page = client.search(
            parts,
            model=model,
            limit=limit,
            offset=offset,
            filter=json_object(filter, "--filter"),
            weights=json_object(weights, "--weights"),
            fusion=fusion,
            lexical_weight=lexical_weight,
            score_threshold=score_threshold,
            max_false_match_rate=max_false_match_rate,
            exclude=exclude,
        )
        service.show(page, lambda: _drawn(page, client, thumbnails, offset))


def parts_of(query: list[str], like: list[str], unlike: list[str], box: str | None) -> "list[Part]":
    """Tell pictures from words, and put all parts of a query together.

    Raises:
        typer.BadParameter: a box is none, or there is no picture for it.
        FileNotFoundError: what looks like a picture's path is not there.
    """
    from vitrine import Like, Look, Words

    cut = None if box is None else _box(box)
    looks = [each for each in query if _is_picture(each)]
    if cut is not None and not looks:
        raise typer.BadParameter("a box is of a picture; give one", param_hint="--box")
    parts: list[Part] = [Look(each, box=cut) if each in looks else Words(each) for each in query]
    return [*parts, *(Like(each) for each in like), *(Like(each, -0.5) for each in unlike)]


def _is_picture(text: str) -> bool:
    # A name that ends like a picture's but is not there is a mistake, rather than a word.
    return _PICTURE.fullmatch(text) is not None or (len(text) < 256 and Path(text).is_file())


def _box(text: str) -> "Box":
    from vitrine import Box

    try:
        x, y, width, height = (float(each) for each in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            "give x,y,width,height such as 0.2,0.1,0.5,0.8", param_hint="--box"
        ) from None
    return Box(x, y, width, height)


def _drawn(page: "Page", client: "Vitrine", thumbnails: bool | None, offset: int) -> "RenderableType":
    from rich.console import Console, Group

    from cli.tables import table
    from cli.thumbnails import can_show, thumbnail

    pictures = can_show(Console()) if thumbnails is None else thumbnails
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
    return Group(table(columns, rows), _footer(page))


def _footer(page: "Page") -> "RenderableType":
    from rich.text import Text

    used = ", ".join(each.model for each in page.models_used) or "words alone"
    stages = ", ".join(f"{stage} {ms:.0f} ms" for stage, ms in page.timings_ms.items())
    missing = "".join(f"; without {name}: {why}" for name, why in page.skipped.items())
    return Text(f"{used}; {stages}{missing if page.degraded else ''}", style="dim")
