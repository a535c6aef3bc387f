"""Descriptions of the sources of an import, and its limits."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.config import Config
from core.types import WholeNumber

TOKEN_PREFIX = "VITRINE_IMPORT_TOKEN"
"""Prefix of the variables that may be sent to remote catalogs; the environment holds other secrets, too."""


class ImportConfig(Config):
    """Limits of imports."""

    folders: tuple[str, ...] = Field(
        (),
        description="Folders that imports of the API may read, with all below them. Imports from a shell may "
        "read any folder.",
    )
    products_at_once: int = Field(8, ge=1, le=256, description="Products that are imported at once.")
    images_at_once: int = Field(16, ge=1, le=256, description="Images that are read or fetched at once.")
    batch_products: int = Field(
        64,
        ge=1,
        le=1000,
        description="Products after which the position is saved; a killed import repeats at most these.",
    )
    attempts: int = Field(6, ge=1, description="Most attempts at a server that fails or is too busy.")
    backoff_s: float = Field(
        1.0, ge=0, description="Pause before the second attempt, in seconds; it doubles each time."
    )
    max_backoff_s: float = Field(
        120.0, gt=0, description="Longest pause in seconds, even where a server asks for a longer one."
    )


class _Description(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


AttributeType = Literal["text", "number", "boolean"]


class Fields(_Description):
    """Names of the columns of a manifest, or of the fields of a remote catalog's items.

    A field of a nested object is written `media.url`; through a list it names that field of each item. In a
    table, what is not named is found by the usual names: `Handle`, `SKU`, `Name`, `Body (HTML)`, `image_link` …
    """

    product_id: str | None = Field(
        None, description="The product's id; it must be there; by default `product_id`."
    )
    title: str | None = Field(None, description="The title; by default `title` where there is one.")
    description: str | None = Field(
        None, description="The description; by default `description` where there is one."
    )
    images: tuple[str, ...] | None = Field(
        None,
        # JSON has lists where Python has tuples.
        strict=False,
        description="Images, in this order: paths or URLs, one or a list each; by default `images` or "
        "`image` where there is one. Without one, products keep their images.",
    )
    images_separator: str | None = Field(
        None,
        min_length=1,
        description="Separator of the images in a text that names several; by default `|`, and a comma, "
        "semicolon or blank before a URL.",
    )
    attributes: str | None = Field(
        None, description="An object of attributes, or its JSON; by default `attributes` where there is one."
    )
    rest_as_attributes: bool = Field(
        False, description="Whether all columns that are not named above become attributes."
    )
    types: dict[str, AttributeType] = Field(
        {},
        description="Types of such columns. By default a column of a text format holds numbers only where each "
        "one writes back as it was read: `1.10`, `007` and `12E4` stay texts.",
    )


class FolderSource(_Description):
    """A folder: each subfolder is a product of that name, and each image file beside them a product, too."""

    kind: Literal["folder"]
    path: str = Field(min_length=1, description="The folder.")
    products: Literal["folders", "images"] = Field(
        "folders",
        description="What is a product. folders: as above. images: each image file at any depth, with its name as "
        "the title and its folders as the attribute `folder`, as in a folder of photographs.",
    )


class ManifestSource(_Description):
    """A table of products; relative paths of images begin at its folder and stay within it."""

    kind: Literal["manifest"]
    path: str = Field(
        min_length=1,
        description="The file: .csv, .tsv, .tab, .txt, .jsonl, .ndjson, .json or .xml (Google Merchant), also "
        "with .gz or .zst behind; .xlsx, .xlsm or .parquet.",
    )
    fields: Fields = Field(Fields(), description="Which columns hold what.")
    encoding: Literal["utf-8", "utf-16", "cp1252", "latin-1"] = Field(
        "utf-8", description="How CSV is encoded; a byte order mark in the file comes first."
    )
    delimiter: Literal[",", ";", "|", "tab"] | None = Field(
        None, description="Separator of CSV cells; by default the one most frequent in the first line."
    )
    escape: Literal["\\"] | None = Field(
        None,
        description="Character before a quote within a quoted CSV cell, a backslash in Spark's files; by default "
        "such a quote is doubled.",
    )
    group_rows: bool | None = Field(
        None,
        description="Whether rows that follow each other with one product id are one product, with all their "
        "images; by default only below Shopify's header.",
    )


class RemoteSource(_Description):
    """A catalog behind HTTP that answers in pages of JSON."""

    kind: Literal["remote"]
    url: str = Field(min_length=1, description="The first page's URL, without the parameters below.")
    token_env: str | None = Field(
        None,
        pattern=rf"^{TOKEN_PREFIX}(_[A-Z0-9_]+)?$",
        description="Variable of the job's environment that holds a bearer token.",
    )
    fields: Fields = Field(Fields(), description="Which fields of an item hold what.")
    items_field: str | None = Field(
        "items", description="The answer's field that lists the items; null: the answer is the list."
    )
    total_field: str | None = Field(
        "total", description="The answer's field with the number of all items, where there is one."
    )
    paging: Literal["number", "link", "cursor"] = Field(
        "number",
        description="How the next page is named: by its number until a page is empty, or by a link or a "
        "cursor in the answer until there is none.",
    )
    start_page: WholeNumber = Field(1, ge=0, description="Number of the first page.")
    page_size: WholeNumber = Field(100, ge=1, le=10_000, description="Items asked for in a page.")
    page_param: str = Field("page", min_length=1, description="Parameter of the page's number.")
    page_size_param: str | None = Field(
        "page_size", min_length=1, description="Parameter of the page size; null: it is not sent."
    )
    cursor_param: str = Field("cursor", min_length=1, description="Parameter of the cursor.")
    next_field: str = Field("next", description="The answer's field with the next page's link or cursor.")


SourceDescription = Annotated[FolderSource | ManifestSource | RemoteSource, Field(discriminator="kind")]
