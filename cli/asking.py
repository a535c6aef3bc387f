"""What a query is on the command line: its parts, and the options that all searches share."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.json_option import json_object
from cli.option_groups import OptionGroup

if TYPE_CHECKING:
    from vitrine import Box
    from vitrine.parts import Part

_PICTURE = re.compile(r"https?://\S+|\S+\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asked(OptionGroup):
    """A query and which page of its answer."""

    query: Annotated[
        list[str] | None,
        typer.Argument(help="Words, picture files, or URLs of pictures; several are looked for together."),
    ] = None
    like: Annotated[list[str] | None, typer.Option(help="Id of a product to find others like.")] = None
    unlike: Annotated[list[str] | None, typer.Option(help="Id of a product to stay away from.")] = None
    box: Annotated[
        str | None,
        typer.Option(help="Part of the picture that is meant: x,y,width,height in shares of its size."),
    ] = None
    limit: Annotated[int, typer.Option(min=1, help="Products to find.")] = 10
    offset: Annotated[int, typer.Option(min=0, help="Products to skip.")] = 0
    filter: Annotated[
        str | None, typer.Option(help='Conditions on attributes: {"colour": "red", "price": {"lt": 50}}.')
    ] = None
    weights: Annotated[
        str | None, typer.Option(help='Weights of the ensemble\'s members: {"openclip": 1, "blip2": 0.5}.')
    ] = None
    fusion: Annotated[
        Literal["rrf", "weighted"] | None, typer.Option(help="How the ensemble fuses lists.")
    ] = None
    lexical_weight: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the ranking by words as they are written.")
    ] = None
    score_threshold: Annotated[
        float | None, typer.Option(min=-1, max=1, help="Smallest cosine of a result.")
    ] = None
    max_false_match_rate: Annotated[
        float | None, typer.Option(help="How often a strange query may find anything at all.")
    ] = None
    exclude: Annotated[list[str] | None, typer.Option(help="Id of a product to leave out.")] = None

    @property
    def parts(self) -> "list[Part]":
        """Tell pictures from words, and put all parts of the query together.

        Raises:
            typer.BadParameter: there is none, a box is none, or there is no picture for it.
            FileNotFoundError: what looks like a picture's path is not there.
        """
        from vitrine import Like, Look, Words

        cut = None if self.box is None else _box(self.box)
        looks = [each for each in self.query or [] if is_picture(each)]
        if cut is not None and not looks:
            raise typer.BadParameter("a box is of a picture; give one", param_hint="--box")
        parts: list[Part] = [
            Look(each, box=cut) if each in looks else Words(each) for each in self.query or []
        ]
        parts += [Like(each) for each in self.like or []]
        parts += [Like(each, -0.5) for each in self.unlike or []]
        if not parts:
            raise typer.BadParameter("give words, a picture, or --like", param_hint="QUERY")
        return parts

    @property
    def options(self) -> dict[str, Any]:
        """The options as the client takes them."""
        return {
            "limit": self.limit,
            "offset": self.offset,
            "filter": json_object(self.filter, "--filter"),
            "weights": json_object(self.weights, "--weights"),
            "fusion": self.fusion,
            "lexical_weight": self.lexical_weight,
            "score_threshold": self.score_threshold,
            "max_false_match_rate": self.max_false_match_rate,
            "exclude": self.exclude,
        }


def is_picture(text: str) -> bool:
    """Tell a picture's path or URL from words."""
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
