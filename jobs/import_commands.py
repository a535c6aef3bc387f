"""The commands of `python -m jobs` around imports."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from catalog.imports import RowError, SqlImports
from catalog.opening import open_catalog
from core.errors import InvalidInput
from jobs.options import ConfigFile
from jobs.settings import running_settings, settings_of_file
from jobs.starting import start

_PAGE = 1000


def add_import_commands(app: typer.Typer) -> None:
    """Add `import` and `import-errors`."""

    @app.command("import")
    def import_products(
        location: Annotated[str, typer.Argument(help="A folder, a manifest, or the URL of a catalogue.")],
        options: Annotated[
            str | None,
            typer.Option(help='More of the source as JSON, such as {"fields": {"product_id": "sku"}}.'),
        ] = None,
        config: ConfigFile = None,
        ask_again: Annotated[
            bool, typer.Option(help="Ask servers whether pictures that are known have changed.")
        ] = True,
        delete_missing: Annotated[
            bool, typer.Option(help="Delete what this source has delivered before and does so no more.")
        ] = False,
        max_delete_percent: Annotated[float, typer.Option(help="Share above which none is deleted.")] = 10.0,
    ) -> None:
        """Take products over from a source; goes on where an earlier import has died."""
        args = {
            "source": described(location, options),
            "ask_again": ask_again,
            "delete_missing": delete_missing,
            "max_delete_percent": max_delete_percent,
        }
        start("import", args, config, None)

    @app.command("import-errors")
    def import_errors(job_id: str, config: ConfigFile = None) -> None:
        """Print what was wrong with the rows of an import, one JSON object a line."""
        settings = running_settings() if config is None else settings_of_file(config)
        catalog = open_catalog(settings.catalog)
        try:
            for each in every_error(catalog.imports, job_id):
                typer.echo(json.dumps(asdict(each), ensure_ascii=False))
        finally:
            catalog.close()


def described(location: str, options: str | None) -> dict[str, Any]:
    """Describe a source by its place: a URL is a remote catalogue, a file a manifest, all else a folder.

    Raises:
        InvalidInput: the options are not a JSON object.
    """
    try:
        more = json.loads(options or "{}")
    except ValueError:
        more = None
    if not isinstance(more, dict):
        raise InvalidInput("the options of a source are a JSON object")
    if location.lower().startswith(("http://", "https://")):
        return {"kind": "remote", "url": location, **more}
    path = Path(location).resolve()
    return {"kind": "manifest" if path.is_file() else "folder", "path": str(path), **more}


def every_error(imports: SqlImports, job_id: str, page: int = _PAGE) -> Iterator[RowError]:
    """Read all that was wrong, page by page, in the order of the rows.

    Raises:
        NotFound: the job is not the last import of any source.
    """
    after = 0
    while some := imports.errors(job_id, page, after):
        yield from some
        after = some[-1].row
