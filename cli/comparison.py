"""`vitrine compare`."""

from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated

import typer

from cli.asking import Asked
from cli.connection import Service, asks

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vitrine.answers import Comparison


@asks
def compare(
    *,
    asked: Asked,
    model: Annotated[
        list[str] | None,
        typer.Option(help="An encoder, or ensemble; default: every encoder and the ensemble."),
    ] = None,
    service: Service,
) -> None:
    """Ask several models the same and show what each finds, side by side."""
    parts = asked.parts
    with service.client() as client:
        compared = client.compare(parts, models=model, **asked.options)
    service.show(compared, lambda: _drawn(compared, asked.offset))


def _drawn(compared: "Comparison", offset: int) -> "RenderableType":
    from rich.console import Group

    from cli.tables import facts, table

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
