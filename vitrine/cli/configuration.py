"""Commands on a Serve configuration: `config check`, `backup`, `backups` and `restore`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitrine.cli.output import facts, table
from vitrine.cli.service import Exit, Output, asks

if TYPE_CHECKING:
    from catalog.backup import Transfer
    from catalog.database import CatalogConfig

_SHOWN = 5
ConfigFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A Serve configuration.")]
Place = Annotated[
    str,
    typer.Argument(help="Place of the backups: a folder, or an fsspec URL such as s3://bucket/backups."),
]

config_app = typer.Typer(no_args_is_help=True, help="Check configurations.")


@config_app.command("check")
@asks
def check(
    configs: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Serve configurations.")],
    *,
    output: Output,
) -> None:
    """List the mistakes of Serve configurations, each with its file, line and field.

    The check has three steps: the form of the file, each application, and all applications together. It stops
    after a step that finds mistakes, so run it again after you correct them.

    Exit code 7: there are mistakes. Exit code 8: there are none, but environment variables that a file refers to
    are not set. Values with these variables were not checked.
    """
    from deployments.config_check.serve_file import check_serve_file

    found = {config: check_serve_file(config) for config in configs}
    mistakes = [mistake for each in found.values() for mistake in each]
    if output.as_json:
        output.show(mistakes, str)
    else:
        for mistake in mistakes:
            typer.echo(str(mistake), err=True)
        for config in (config for config, each in found.items() if not each):
            typer.echo(f"{config}: no mistakes")
    if mistakes:
        raise typer.Exit(Exit.UNSET if all(each.unset for each in mistakes) else Exit.MISCONFIGURED)


@asks
def backup(config: ConfigFile, place: Place, *, output: Output) -> None:
    """Store the present catalog, with every image file that the place does not have yet.

    The configuration's gateway names the catalog. The service may keep running. Exit code 5 if image files are
    missing or damaged: the backup holds all others.
    """
    from catalog.backup import back_up

    _show(back_up(catalog_of(config), place), output)


@asks
def backups(place: Place, *, output: Output) -> None:
    """List the complete backups of a place, oldest first."""
    from catalog.backup import Archive

    found = Archive(place).snapshots()
    rows = [(each.id, each.database, each.products, each.images) for each in found]
    output.show(found, lambda: table(("backup", "database", "products", "images"), rows))


@asks
def restore(
    config: ConfigFile,
    place: Place,
    snapshot: Annotated[str | None, typer.Option(help="Id of a backup; default: the latest.")] = None,
    keep_index: Annotated[
        bool,
        typer.Option(
            help="Milvus is complete: encode nothing anew. Afterwards run `vitrine verify --repair`."
        ),
    ] = False,
    *,
    output: Output,
) -> None:
    """Restore a backup into an empty database, with the image files that are missing there.

    The service may keep running. It then encodes every image again. Exit code 5 if the catalog holds products,
    or if image files are missing or damaged in the backup.
    """
    from catalog.backup import restore as bring_back

    _show(bring_back(catalog_of(config), place, snapshot, keep_index), output)


def catalog_of(config: Path) -> "CatalogConfig":
    """Read where the catalog is, and nothing else: no other variable of the environment need be set.

    Raises:
        ConfigError: the file cannot be read, no gateway names a catalog, its settings are wrong, or they refer to
            a variable that is not set.
    """
    from pydantic import ValidationError

    from catalog.database import CatalogConfig
    from core.config import expand_environment
    from core.errors import ConfigError
    from deployments.config_check.serve_file import Mistake, read_yaml

    if isinstance(read := read_yaml(config), Mistake):
        raise ConfigError(str(read))
    try:
        applications = read[0]["applications"]
        gateway = next(each for each in applications if each["import_path"].endswith(":build_gateway"))
        # Raises for a variable that is not set, and says which.
        return CatalogConfig.model_validate(expand_environment(gateway["args"]["catalog"]))
    except (LookupError, TypeError, AttributeError, StopIteration, ValidationError):
        raise ConfigError(f"{config} names no catalog: `vitrine config check {config}` says why") from None


def _show(done: "Transfer", output: Output) -> None:
    kinds = {"image files": done.images, "reports": done.reports}
    shown: dict[str, Any] = {"backup": done.snapshot.id, "products": done.snapshot.products}
    shown["images"] = done.snapshot.images
    for kind, each in kinds.items():
        size = f"{each.copied_bytes / 2**20:.1f} MiB"
        shown[kind] = f"{each.copied:,} copied ({size}), {each.present:,} were there"
    output.show(done, lambda: facts(shown))
    for kind, each in kinds.items():
        for wrong, names in (("missing", each.missing), ("damaged", each.damaged)):
            if names:
                examples = ", ".join(names[:_SHOWN])
                typer.echo(f"{len(names)} {kind} are {wrong}, such as {examples}", err=True)
    if done.files_belong_to_another:
        typer.echo(
            "the store of image files belongs to another database, so this one removes no file: give it a "
            "blobs_url of its own, or, if the other one is gone, delete the file 'owner' at blobs_url",
            err=True,
        )
    if not done.whole:
        raise typer.Exit(Exit.REFUSED)
