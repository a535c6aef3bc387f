"""Commands `models`, `gaps`, `stats`, `ready` and `keys …`."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitrine.cli.output import facts, table
from vitrine.cli.service import Exit, Service, asks

if TYPE_CHECKING:
    from vitrine.client import Vitrine
    from vitrine.schemas.operations import IndexCounts, ModelVersion


@asks
def models(
    model: Annotated[str | None, typer.Argument(help="List the versions of this model.")] = None,
    *,
    service: Service,
) -> None:
    """List the models that serve, or all versions of one."""
    with service.client() as client:
        if model is not None:
            versions = client.versions(model)
            rows = [(each.live, *_version(each)) for each in versions]
            service.show(versions, lambda: table(("live", *_VERSION), rows))
            return
        served = client.models()
    rows = [(each.model, *_version(each.serving, each.problem)) for each in served]
    service.show(served, lambda: table(("model", *_VERSION), rows))


@asks
def gaps(
    model: Annotated[str, typer.Argument(help="A configured encoder.")],
    fingerprint: Annotated[
        str | None, typer.Option(help="A version of the model; default: the one that serves.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Images of each kind to list.")] = 50,
    *,
    service: Service,
) -> None:
    """List the images that a version of a model lacks, and those in quarantine, with the reason."""
    with service.client() as client:
        found = client.gaps(model, fingerprint or _served(client, model), limit)
    rows = [(each.product_id, each.image_id, "missing") for each in found.missing]
    rows += [(each.product_id, each.image_id, each.error) for each in found.failed]
    service.show(found, lambda: table(("product", "image", "why"), rows, title=found.collection))


@asks
def stats(*, service: Service) -> None:
    """Count products, images, and the images that each model has indexed."""
    from rich.console import Group

    with service.client() as client:
        answer = client.stats()
    rows = [(name, *_counts(counts)) for name, counts in answer.models.items()]
    totals = {"products": answer.products, "images": answer.images}
    service.show(answer, lambda: Group(facts(totals), table(("model", *_COUNTS), rows)))


@asks
def ready(*, service: Service) -> None:
    """Check every model with a real input; exit code 4 if one does not work."""
    with service.client() as client:
        answer = client.ready()
    service.show(answer, lambda: facts({"ready": answer.ready, **answer.problems}))
    if not answer.ready:
        raise typer.Exit(Exit.TRY_LATER)


_COUNTS = ("indexed", "missing", "failed")
_VERSION = ("version", "dimension", "takes", "precision", "device", *_COUNTS, "checkpoint")


def _served(client: "Vitrine", model: str) -> str:
    from vitrine.errors import NotFound, Unavailable

    for each in client.models():
        if each.model == model:
            if each.serving is None:
                raise Unavailable(f"{model} does not serve: {each.problem}; name a version by --fingerprint")
            return each.serving.fingerprint
    raise NotFound(f"there is no model {model!r}")


def _version(version: "ModelVersion | None", problem: str | None = None) -> tuple[Any, ...]:
    if version is None:
        return (problem or "does not serve",)
    takes = ", ".join(version.modalities)
    ran_by = (version.fingerprint, version.dimension, takes, version.precision, version.device)
    return (*ran_by, *_counts(version.counts), version.checkpoint)


def _counts(counts: "IndexCounts | None") -> tuple[Any, ...]:
    return (None,) * 3 if counts is None else (counts.indexed, counts.missing, counts.failed)


keys_app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")
Scope = StrEnum("Scope", ("read", "write", "admin"))
"""Scopes of a key; typer takes no list of literals."""


@keys_app.command()
@asks
def create(
    name: Annotated[str, typer.Argument(help="Owner or purpose of the key.")],
    scope: Annotated[list[Scope], typer.Option(help="Scope: admin includes write, write includes read.")],
    requests_per_s: Annotated[
        float | None, typer.Option(help="Rate limit of this key; default: the configured one.")
    ] = None,
    burst: Annotated[int | None, typer.Option(help="Requests that it may send at once.")] = None,
    *,
    service: Service,
) -> None:
    """Make a key and print it once.

    The first key must have the scope `admin`. From then on, the service refuses requests without a key.
    """
    with service.client() as client:
        scopes: list[Any] = [each.value for each in scope]
        made = client.keys.create(name, scopes, requests_per_s=requests_per_s, burst=burst)
    # The key alone, so that a script can take it as it is.
    service.show(made, lambda: made.key)


@keys_app.command("list")
@asks
def list_keys(*, service: Service) -> None:
    """List all keys, revoked ones too, without their secrets."""
    with service.client() as client:
        keys = client.keys.list()
    rows = [
        (each.key_id, each.name, ", ".join(each.scopes), each.created_at, each.last_used_at, each.revoked_at)
        for each in keys
    ]
    service.show(keys, lambda: table(("key id", "name", "scopes", "made", "last used", "revoked"), rows))


@keys_app.command()
@asks
def revoke(key_id: Annotated[str, typer.Argument(help="The key's id.")], *, service: Service) -> None:
    """Revoke a key permanently."""
    with service.client() as client:
        client.keys.revoke(key_id)
    service.show({"revoked": key_id}, lambda: f"revoked {key_id}")
