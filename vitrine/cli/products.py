"""Commands `products …` and `import`."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vitrine.cli.jobs import JobOptions
from vitrine.cli.output import facts, table
from vitrine.cli.service import JsonObject, Service, asks, json_option

if TYPE_CHECKING:
    from vitrine.schemas.products import Attribute, PutProductResponse


app = typer.Typer(no_args_is_help=True, help="Read, write and delete products.")
ProductId = Annotated[str, typer.Argument(help="The product's id.")]


@app.command("list")
@asks
def list_products(
    limit: Annotated[int, typer.Option(min=0, help="Products to list; 0: all.")] = 20,
    after: Annotated[str | None, typer.Option(help="List the products after this id.")] = None,
    *,
    service: Service,
) -> None:
    """List products by id."""
    with service.client() as client:
        page = min(limit, 1000) or 1000
        products = list(islice(client.products(page, after), limit or None))
    rows = [(each.product_id, each.title, len(each.images), each.updated_at) for each in products]
    service.show(products, lambda: table(("product", "title", "images", "updated"), rows))


@app.command()
@asks
def get(product_id: ProductId, *, service: Service) -> None:
    """Show a product with its images."""
    with service.client() as client:
        product = client.product(product_id)
    shown = {
        **dict(product),
        "images": [f"{each.image_id} {each.width}x{each.height}" for each in product.images],
    }
    service.show(product, lambda: facts(shown))


@app.command()
@asks
def put(
    product_id: ProductId,
    images: Annotated[
        list[str] | None,
        typer.Argument(help="Image files or URLs, in order; without any, the product keeps its images."),
    ] = None,
    title: Annotated[str, typer.Option(help="The title.")] = "",
    description: Annotated[str, typer.Option(help="The description.")] = "",
    attributes: Annotated[
        JsonObject | None, json_option(help='Attributes: {"color": "red", "price": 49}.')
    ] = None,
    remove_images: Annotated[
        bool, typer.Option("--remove-images", help="Leave the product without images.")
    ] = False,
    *,
    service: Service,
) -> None:
    """Create or replace a product; a title, description or attributes that are left out become empty."""
    if images and remove_images:
        raise typer.BadParameter("give images, or this, not both", param_hint="--remove-images")
    with service.client() as client:
        written = client.put_product(
            product_id,
            title=title,
            description=description,
            attributes=attributes,
            images=images or ([] if remove_images else None),
        )
    _show_written(service, written)


@app.command()
@asks
def patch(
    product_id: ProductId,
    title: Annotated[str | None, typer.Option(help="A new title.")] = None,
    description: Annotated[str | None, typer.Option(help="A new description.")] = None,
    attributes: Annotated[
        JsonObject | None,
        json_option(help='Attributes to set, and with null to remove: {"price": 39, "sale": null}.'),
    ] = None,
    *,
    service: Service,
) -> None:
    """Change some fields of a product; the others and the images stay."""
    changes = {"title": title, "description": description, "attributes": attributes}
    with service.client() as client:
        written = client.patch_product(
            product_id, {name: value for name, value in changes.items() if value is not None}
        )
    _show_written(service, written)


def _show_written(service: Service, written: "PutProductResponse") -> None:
    shown = {
        "product": written.product.product_id,
        "created": written.created,
        "images": len(written.product.images),
        **{model: each.state for model, each in written.index.items()},
    }
    service.show(written, lambda: facts(shown))


@app.command()
@asks
def delete(
    product_ids: Annotated[list[str], typer.Argument(help="Ids of products.")], *, service: Service
) -> None:
    """Delete products with their images; stop at the first that does not exist."""
    with service.client() as client:
        for product_id in product_ids:
            client.delete_product(product_id)
    service.show({"deleted": product_ids}, lambda: f"deleted {', '.join(product_ids)}")


@app.command()
@asks
def image(
    image_id: Annotated[str, typer.Argument(help="Id of an image, as a product shows it.")],
    file: Annotated[Path, typer.Argument(dir_okay=False, help="File to write.")],
    thumbnail: Annotated[
        Literal["small", "large"] | None,
        typer.Option(help="WebP of at most 320 (small) or 960 pixels a side; default: the original file."),
    ] = None,
    *,
    service: Service,
) -> None:
    """Save an image of a product to a file."""
    with service.client() as client:
        data = client.image(image_id) if thumbnail is None else client.thumbnail(image_id, thumbnail)
    file.write_bytes(data)
    service.show({"file": str(file), "bytes": len(data)}, lambda: f"{file}: {len(data):,} bytes")


@app.command()
@asks
def attributes(*, service: Service) -> None:
    """List the attributes that a filter can use, with their values."""
    with service.client() as client:
        found = client.attributes()
    rows = [(each.name, each.products, _values(each)) for each in found.attributes]
    title = f"of {found.products_read:,} products"
    service.show(found, lambda: table(("attribute", "products", "values"), rows, title=title))


def _values(attribute: "Attribute") -> str:
    if attribute.minimum is not None:
        return f"{attribute.minimum:g} to {attribute.maximum:g}"
    listed: list[Any] = [f"{each.value} ({each.products:,})" for each in attribute.values]
    return ", ".join([*listed, *(["…"] if attribute.more_values else [])])


_TABLES = {".csv", ".tsv", ".tab", ".txt", ".jsonl", ".ndjson", ".json", ".xml", ".xlsx", ".xlsm", ".parquet"}


@asks
def import_products(
    location: Annotated[
        str,
        typer.Argument(help="A folder, a table, or the URL of a catalog; a path on the machine of the job."),
    ],
    options: Annotated[
        JsonObject | None,
        json_option(help='Further fields of the source, such as {"fields": {"product_id": "sku"}}.'),
    ] = None,
    ask_again: Annotated[
        bool, typer.Option(help="Ask servers whether images of former imports have changed.")
    ] = True,
    delete_missing: Annotated[
        bool, typer.Option("--delete-missing", help="Delete products that this source no longer delivers.")
    ] = False,
    max_delete_percent: Annotated[
        float, typer.Option(help="Delete nothing if more of the source's products would go.")
    ] = 10.0,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show how each column is read, the first products and the counts; change no product.",
        ),
    ] = False,
    *,
    job: JobOptions,
) -> None:
    """Import products from a source.

    A killed import, started again, continues where it stopped. Broken rows change nothing. `vitrine jobs errors`
    lists them. The service reads only folders that its configuration lists; `--local` reads any folder.
    """
    job.do(
        "import",
        source=source_of(location, options or {}),
        ask_again=ask_again,
        delete_missing=delete_missing,
        max_delete_percent=max_delete_percent,
        dry_run=dry_run or None,
    )


def source_of(location: str, options: dict[str, Any]) -> dict[str, Any]:
    """Describe a source by its place: a URL of a catalog, a table by its ending, or a folder."""
    if location.lower().startswith(("http://", "https://")):
        return {"kind": "remote", "url": location, **options}
    # The service opens folders by their whole paths.
    path = Path(location).absolute()
    is_table = path.suffix.lower() in _TABLES | {".gz", ".zst"} or path.is_file()
    return {"kind": "manifest" if is_table else "folder", "path": str(path), **options}
