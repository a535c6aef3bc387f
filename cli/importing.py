"""`vitrine import`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.connection import Service, asks
from cli.following import Waiting
from cli.json_option import json_object

_TABLES = {".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"}


@asks
def import_products(
    location: Annotated[
        str,
        typer.Argument(
            help="A folder, a table, or the URL of a catalogue, as the service's machine sees it."
        ),
    ],
    options: Annotated[
        str | None,
        typer.Option(help='More of the source as JSON, such as {"fields": {"product_id": "sku"}}.'),
    ] = None,
    ask_again: Annotated[
        bool, typer.Option(help="Ask servers whether pictures that are known have changed.")
    ] = True,
    delete_missing: Annotated[
        bool, typer.Option("--delete-missing", help="Delete what this source has delivered and does no more.")
    ] = False,
    max_delete_percent: Annotated[float, typer.Option(help="Share above which none is deleted.")] = 10.0,
    *,
    waiting: Waiting,
    service: Service,
) -> None:
    """Take products over from a source; goes on where an earlier import has died.

    Broken rows change nothing; `vitrine jobs errors` lists them.
    """
    waiting.do(
        service,
        "import",
        source=source_of(location, json_object(options, "--options") or {}),
        ask_again=ask_again,
        delete_missing=delete_missing,
        max_delete_percent=max_delete_percent,
    )


def source_of(location: str, options: dict[str, Any]) -> dict[str, Any]:
    """Describe a source by its place: a URL is a catalogue, what ends like a table is one, all else a folder."""
    if location.lower().startswith(("http://", "https://")):
        return {"kind": "remote", "url": location, **options}
    # The service opens folders by their whole paths.
    path = Path(location).absolute()
    return {"kind": "manifest" if path.suffix.lower() in _TABLES else "folder", "path": str(path), **options}
