"""Commands `search`, `compare`, `embed` and `caption`."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vitrine.cli.output import can_draw, can_show, console, facts, table, thumbnail
from vitrine.cli.service import Exit, JsonObject, Service, asks, json_option

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vitrine.client import Vitrine
    from vitrine.query import Box, Part, Rerank
    from vitrine.schemas.embeddings import EmbeddingsResponse
    from vitrine.schemas.search import CompareResponse, SearchDetails, SearchResponse


_IMAGE = re.compile(r"https?://\S+|\S+\.(jpe?g|jpe|jfif|png|webp|gif|bmp|tiff?|avif|hei[cf])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class QueryOptions(Service):
    """A query to the service, and the page of its results."""

    query: Annotated[
        list[str] | None,
        typer.Argument(help="Texts, image files, or URLs of images; several make one query."),
    ] = None
    like: Annotated[
        list[str] | None, typer.Option(help="Id of a product; results should be similar to it.")
    ] = None
    unlike: Annotated[
        list[str] | None, typer.Option(help="Id of a product; results should be unlike it.")
    ] = None
    box: Annotated[
        str | None,
        typer.Option(help="Region of the image to search by: x,y,width,height as fractions of its size."),
    ] = None
    limit: Annotated[int, typer.Option(min=1, help="Products to find.")] = 10
    offset: Annotated[int, typer.Option(min=0, help="Products to skip.")] = 0
    filter: Annotated[
        JsonObject | None,
        json_option(help='Conditions on attributes: {"color": "red", "price": {"lt": 50}}.'),
    ] = None
    weights: Annotated[
        JsonObject | None,
        json_option(help='Weights of the ensemble\'s members: {"openclip": 1, "blip2": 0.5}.'),
    ] = None
    fusion: Annotated[
        Literal["rrf", "weighted"] | None, typer.Option(help="How the ensemble fuses lists.")
    ] = None
    keyword_weight: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the ranking by keyword search.")
    ] = None
    score_threshold: Annotated[
        float | None, typer.Option(min=-1, max=1, help="Smallest cosine of a result.")
    ] = None
    max_false_match_rate: Annotated[
        float | None, typer.Option(help="Largest share of queries without a match that get any result.")
    ] = None
    rerank_by: Annotated[
        str | None,
        typer.Option("--rerank", help="Encoder with a matching head, which orders the first products anew."),
    ] = None
    rerank_depth: Annotated[int, typer.Option(min=1, help="Products that --rerank orders.")] = 50
    exclude: Annotated[list[str] | None, typer.Option(help="Id of a product to leave out.")] = None

    @property
    def rerank(self) -> "Rerank | None":
        """The second stage, as the client takes it."""
        return None if self.rerank_by is None else {"model": self.rerank_by, "depth": self.rerank_depth}

    @property
    def parts(self) -> "list[Part]":
        """Sort images from texts, and join all parts of the query.

        Raises:
            typer.BadParameter: there is no part, the box is malformed, or it has no image.
            FileNotFoundError: what looks like an image's path is not there.
        """
        from vitrine.query import ImagePart, ProductPart, TextPart

        box = None if self.box is None else _box(self.box)
        images = [each for each in self.query or [] if is_image(each)]
        if box is not None and not images:
            raise typer.BadParameter("a box needs an image; give one", param_hint="--box")
        parts: list[Part] = [
            ImagePart(each, box=box) if each in images else TextPart(each) for each in self.query or []
        ]
        parts += [ProductPart(each) for each in self.like or []]
        parts += [ProductPart(each, -0.5) for each in self.unlike or []]
        if not parts:
            raise typer.BadParameter("give a text, an image, or --like", param_hint="QUERY")
        return parts

    @property
    def options(self) -> dict[str, Any]:
        """The options that a search and a comparison share, as the client takes them."""
        from vitrine.query import QueryOptions as Options

        return {name: getattr(self, name, None) for name in Options.__annotations__}


def is_image(text: str) -> bool:
    """Return whether this is the path or URL of an image, not a text."""
    # A name with the ending of an image that is not there is a mistake, not a text.
    return _IMAGE.fullmatch(text) is not None or (len(text) < 256 and Path(text).is_file())


def _box(text: str) -> "Box":
    from vitrine.query import Box

    try:
        x, y, width, height = (float(each) for each in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            "give x,y,width,height such as 0.2,0.1,0.5,0.8", param_hint="--box"
        ) from None
    return Box(x, y, width, height)


@asks
def search(
    *,
    query: QueryOptions,
    model: Annotated[str | None, typer.Option(help="An encoder; default: the ensemble.")] = None,
    thumbnails: Annotated[
        bool | None, typer.Option(help="Draw images; default: if the terminal can.", show_default=False)
    ] = None,
) -> None:
    """Find products by images, by texts, by other products, or by all of them."""
    if thumbnails and not can_draw():
        raise typer.BadParameter("needs Pillow: pip install pillow", param_hint="--thumbnails")
    parts = query.parts
    with query.client() as client:
        page = client.search(parts, model=model, **query.options)
        query.show(page, lambda: _drawn_page(page, client, thumbnails, query.offset))


def _drawn_page(
    page: "SearchResponse", client: "Vitrine", thumbnails: bool | None, offset: int
) -> "RenderableType":
    from rich.console import Group

    images = can_show(console()) and can_draw() if thumbnails is None else thumbnails
    rows = [
        (
            place,
            *([thumbnail(client.thumbnail(hit.image_id))] if images else []),
            hit.product_id,
            hit.score,
            hit.product.title,
            ", ".join(f"{name}: {value}" for name, value in hit.product.attributes.items()),
        )
        for place, hit in enumerate(page.results, offset + 1)
    ]
    columns = ["", *(["image"] if images else []), "product", "score", "title", "attributes"]
    return Group(table(columns, rows), footer(page))


def footer(facts: "SearchDetails") -> "RenderableType":
    """Draw the models that answered, the time of each stage, and the models that are missing."""
    from rich.text import Text

    used = ", ".join(each.model for each in facts.models_used) or "keyword search"
    stages = ", ".join(f"{stage} {ms:.0f} ms" for stage, ms in facts.timings_ms.items())
    missing = "".join(f"; without {name}: {why}" for name, why in facts.skipped.items())
    kept = {} if facts.rerank is None else facts.rerank.skipped
    missing += "".join(f"; {count} not re-ranked: {why}" for why, count in kept.items())
    return Text(f"{used}; {stages}{missing if facts.degraded else ''}", style="dim")


@asks
def compare(
    *,
    query: QueryOptions,
    model: Annotated[
        list[str] | None,
        typer.Option(help="An encoder, or ensemble; default: every encoder and the ensemble."),
    ] = None,
) -> None:
    """Send one query to several models, and show their results side by side."""
    parts = query.parts
    with query.client() as client:
        compared = client.compare(parts, models=model, **query.options)
    query.show(compared, lambda: _drawn_comparison(compared, query.offset))


def _drawn_comparison(compared: "CompareResponse", offset: int) -> "RenderableType":
    from rich.console import Group

    columns = [
        [f"{each.product_id} ({each.score:.3g})" for each in found.results] for found in compared.lists
    ]
    rows = [(place, *found) for place, found in enumerate(zip_longest(*columns), offset + 1)]
    lists = table(("", *(found.model for found in compared.lists)), rows)
    agreements = [
        (" and ".join(each.models), each.shared, each.jaccard, each.rank_correlation)
        for each in compared.agreements
    ]
    agreed = table(("lists", "shared", "Jaccard", "rank correlation"), agreements)
    return Group(lists, "", agreed, facts({f"without {name}": why for name, why in compared.skipped.items()}))


IMAGES_A_CALL = 16
TEXTS_A_CALL = 256
MAX_CALL_BYTES = 16 * 2**20
"""Most bytes of image files in one call; base64 makes them a third longer."""
_SHOWN_NUMBERS = 4


@asks
def embed(
    model: Annotated[str, typer.Argument(help="An encoder.")],
    inputs: Annotated[list[str], typer.Argument(help="Texts, image files, or URLs of images.")],
    *,
    service: Service,
) -> None:
    """Embed texts and images as unit vectors; exit code 2 if one cannot be embedded."""
    images = [each for each in dict.fromkeys(inputs) if is_image(each)]
    texts = [each for each in dict.fromkeys(inputs) if each not in images]
    with service.client() as client:
        embedded = dict(_embedded(client.embed_texts, model, texts, TEXTS_A_CALL))
        embedded |= _embedded(client.embed_images, model, images, IMAGES_A_CALL)
    answers = [{"input": each, **embedded[each]} for each in inputs]
    service.show({"embeddings": answers}, lambda: _drawn_embeddings(answers))
    if any("error" in each for each in answers):
        raise typer.Exit(Exit.USAGE)


@asks
def caption(
    images: Annotated[list[str], typer.Argument(help="Image files, or URLs of images.")],
    model: Annotated[
        str | None, typer.Option(help="An encoder; default: the first that writes captions.")
    ] = None,
    *,
    service: Service,
) -> None:
    """Write captions of images, if an encoder does."""
    with service.client() as client:
        captions = [client.caption(each, model=model) for each in images]
    rows = [(name, each.model, each.caption) for name, each in zip(images, captions, strict=True)]
    service.show(captions, lambda: table(("image", "model", "caption"), rows))


def _embedded(
    send: Callable[[str, Sequence[str]], "EmbeddingsResponse"], model: str, inputs: Sequence[str], size: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    for some in _calls(inputs, size):
        answer = send(model, some)
        for name, item in zip(some, answer.data, strict=True):
            facts = item.model_dump(include={"embedding", "error"}, exclude_none=True)
            yield name, {"model": answer.model, "fingerprint": answer.fingerprint, **facts}


def _calls(inputs: Sequence[str], most: int) -> Iterator[list[str]]:
    """Split inputs into calls of at most `most` and of `MAX_CALL_BYTES`; a larger file goes alone."""
    some: list[str] = []
    total = 0
    for name in inputs:
        size = _file_bytes(name)
        if some and (total + size > MAX_CALL_BYTES or len(some) >= most):
            yield some
            some, total = [], 0
        some.append(name)
        total += size
    if some:
        yield some


def _file_bytes(name: str) -> int:
    """Bytes of an image file; 0 for texts, URLs, and files that cannot be read."""
    try:
        return Path(name).stat().st_size
    except (OSError, ValueError):
        return 0


def _drawn_embeddings(answers: Sequence[dict[str, Any]]) -> "RenderableType":
    rows = []
    for each in answers:
        vector = each.get("embedding", ())
        begin = " ".join(f"{number:+.3f}" for number in vector[:_SHOWN_NUMBERS])
        rows.append((each["input"], len(vector) or None, begin or each["error"]["message"]))
    return table(("input", "dimension", "begins with"), rows)
