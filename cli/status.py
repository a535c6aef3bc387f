"""`vitrine models`, `vitrine gaps`, `vitrine stats` and `vitrine ready`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import Service, asks
from cli.exits import Exit

if TYPE_CHECKING:
    from vitrine import Vitrine
    from vitrine.operations import Counts, Model, Version


@asks
def models(
    model: Annotated[str | None, typer.Argument(help="List the versions of this model.")] = None,
    *,
    service: Service,
) -> None:
    """List the models that serve, or all versions of one."""
    from cli.tables import table

    with service.client() as client:
        if model is not None:
            versions = client.versions(model)
            rows = [(each.live, *_version(each)) for each in versions]
            service.show(versions, lambda: table(("live", *_VERSION), rows))
            return
        served = client.models()
    rows = [(each.model, *_serving(each)) for each in served]
    service.show(served, lambda: table(("model", *_VERSION), rows))


@asks
def gaps(
    model: Annotated[str, typer.Argument(help="A configured encoder.")],
    version: Annotated[
        str | None, typer.Option(help="Fingerprint of a version; default: the one that serves.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Pictures of each kind to list.")] = 50,
    *,
    service: Service,
) -> None:
    """List the pictures that a version of a model lacks, and those that it could not take, with the reason."""
    from cli.tables import table

    with service.client() as client:
        told = client.gaps(model, version or _served(client, model), limit)
    rows = [(each.product_id, each.image_id, "missing") for each in told.missing]
    rows += [(each.product_id, each.image_id, each.error) for each in told.failed]
    service.show(told, lambda: table(("product", "picture", "why"), rows, title=told.collection))


@asks
def stats(*, service: Service) -> None:
    """Count products, pictures, and how far each model has come."""
    from rich.console import Group

    from cli.tables import facts, table

    with service.client() as client:
        answer = client.stats()
    rows = [(name, *_counts(counts)) for name, counts in answer.models.items()]
    totals = {"products": answer.products, "pictures": answer.pictures}
    columns = ("model", "indexed", "missing", "failed")
    service.show(answer, lambda: Group(facts(totals), table(columns, rows)))


@asks
def ready(*, service: Service) -> None:
    """Ask whether everything works, by a real pass through every model; exit code 4 where it does not."""
    from cli.tables import facts

    with service.client() as client:
        answer = client.ready()
    service.show(answer, lambda: facts({"ready": answer.ready, **answer.problems}))
    if not answer.ready:
        raise typer.Exit(Exit.TRY_LATER)


_VERSION = (
    "version",
    "dimension",
    "takes",
    "precision",
    "device",
    "indexed",
    "missing",
    "failed",
    "checkpoint",
)


def _served(client: "Vitrine", model: str) -> str:
    from vitrine import NotFound, Unavailable

    for each in client.models():
        if each.model == model:
            if each.serving is None:
                raise Unavailable(f"{model} does not serve: {each.problem}; name a version by --version")
            return each.serving.fingerprint
    raise NotFound(f"there is no model {model!r}")


def _version(version: "Version") -> tuple[Any, ...]:
    return (
        version.fingerprint,
        version.dimension,
        ", ".join(version.modalities),
        version.precision,
        version.device,
        *_counts(version.counts),
        version.checkpoint,
    )


def _serving(model: "Model") -> tuple[Any, ...]:
    if model.serving is None:
        return (model.problem or "does not serve",)
    return _version(model.serving)


def _counts(counts: "Counts | None") -> tuple[Any, ...]:
    return (None,) * 3 if counts is None else (counts.indexed, counts.missing, counts.failed)
