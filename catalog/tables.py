"""Tables of the catalog, with column types that mean the same on SQLite and PostgreSQL."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Compared by bytes, so that pages of products have the same order on every database and locale.
PRODUCT_ID = String(200).with_variant(String(200, collation="C"), "postgresql")
IMAGE_ID = String(32)
SHA256 = String(64)
COLLECTION = String(255)
_SOURCE = String(64)
_OPEN = text("embedded_at IS NULL AND error IS NULL")
_FAILED = text("error IS NOT NULL")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC; SQLite itself stores no zone, and PostgreSQL returns that of the session."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Store in UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Read as UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of all tables; it names every constraint, so that a migration can drop it on any database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class ProductRow(Base):
    """A product; `revision` is at least that of every image it has or had."""

    __tablename__ = "products"

    id: Mapped[str] = mapped_column(PRODUCT_ID, primary_key=True)
    title: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    # Not JSONB: JSON returns numbers and the order of keys unchanged on both databases.
    attributes: Mapped[dict[str, Any]] = mapped_column(JSON)
    revision: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ImageRow(Base):
    """An image of a product; its file is the blob with this sha256."""

    __tablename__ = "images"

    id: Mapped[str] = mapped_column(IMAGE_ID, primary_key=True)
    product_id: Mapped[str] = mapped_column(PRODUCT_ID, ForeignKey("products.id", ondelete="CASCADE"))
    position: Mapped[int]
    sha256: Mapped[str] = mapped_column(SHA256)
    media_type: Mapped[str] = mapped_column(Text)
    width: Mapped[int]
    height: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    revision: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        UniqueConstraint("product_id", "position"),
        # What a version without rows lacks is read in this order up to a limit, instead of sorting all images.
        Index(None, "revision", "id"),
        # For the question whether any image names a file.
        Index(None, "sha256"),
    )


class UnnamedFileRow(Base):
    """An image file that no image may name since a time; `catalog.image_files` removes it."""

    __tablename__ = "unnamed_files"

    sha256: Mapped[str] = mapped_column(SHA256, primary_key=True)
    since: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (Index(None, "since"),)


class FileHoldRow(Base):
    """A running backup or restore: no image file is removed before it expires."""

    __tablename__ = "file_holds"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class CatalogIdRow(Base):
    """One row: the catalog's id, which also stands in its store of image files; a backup or copy has the same.

    `IndexStoreRow` holds the id for Milvus.
    """

    __tablename__ = "catalog_id"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    catalog_id: Mapped[str] = mapped_column(String(32))


class RevisionFloor(Base):
    """One row: the highest revision of any deleted product; new products start above it.

    Otherwise a product that is deleted and created again, while a clock is set back, could reuse a revision.
    """

    __tablename__ = "revision_floor"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    revision: Mapped[int] = mapped_column(BigInteger)


class CaptionRow(Base):
    """A model's caption of an image, or its error; `fingerprint` is the version that tried last.

    There is no foreign key to images: a put replaces a product's image rows, which must not delete captions.
    """

    __tablename__ = "captions"

    image_id: Mapped[str] = mapped_column(IMAGE_ID, primary_key=True)
    model: Mapped[str] = mapped_column(String(48), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(12))
    caption: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DocumentRow(Base):
    """Search document of a product: each field as words with spaces between.

    `catalog.keyword_search` describes the full-text index on this table.
    """

    __tablename__ = "documents"

    # A number, since SQLite's full-text index refers to rows by number.
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    product_id: Mapped[str] = mapped_column(
        PRODUCT_ID, ForeignKey("products.id", ondelete="CASCADE"), unique=True
    )
    identifier: Mapped[str] = mapped_column(Text)
    title: Mapped[str] = mapped_column(Text)
    attributes: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    captions: Mapped[str] = mapped_column(Text)


class IndexStoreRow(Base):
    """At most one row: the id of the Milvus that the ledger describes.

    `CatalogIdRow` holds the id for the store of image files.
    """

    __tablename__ = "index_store"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    store_id: Mapped[str] = mapped_column(String(32))


class EmbeddingRow(Base):
    """A row of the ledger: open while `embedded_at` and `error` are NULL, then settled or in quarantine.

    A settled or failed row always belongs to a current image: a write that replaces or deletes the image opens its
    rows. There is no foreign key to images: a row stays until its vector is deleted.
    """

    __tablename__ = "embeddings"

    image_id: Mapped[str] = mapped_column(IMAGE_ID, primary_key=True)
    image_revision: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    collection: Mapped[str] = mapped_column(COLLECTION, primary_key=True)
    begun_at: Mapped[datetime] = mapped_column(UtcDateTime)
    embedded_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        # Verification reads all rows of a collection in the order of their ids.
        Index(None, "collection", "image_id", "image_revision"),
        # The gap and the quarantine are small and read often.
        Index(
            "ix_embeddings_open",
            "collection",
            "begun_at",
            "image_id",
            "image_revision",
            sqlite_where=_OPEN,
            postgresql_where=_OPEN,
        ),
        Index(
            "ix_embeddings_failed",
            "collection",
            "image_id",
            "image_revision",
            sqlite_where=_FAILED,
            postgresql_where=_FAILED,
        ),
        # Clustered by its key on SQLite, which saves a second tree search.
        {"sqlite_with_rowid": False},
    )


class ModelVersionRow(Base):
    """A model version that has or had a collection.

    `settings` are the fields of its encoder's configuration that define the version. `promoted_at` is its last
    promotion, `retired_at` the last promotion of another version in its place. `recorded`: its collection has a
    ledger row for every image, and each write of a product keeps it so.
    """

    __tablename__ = "model_versions"

    collection: Mapped[str] = mapped_column(COLLECTION, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    family: Mapped[str] = mapped_column(Text)
    checkpoint: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(Text)
    dimension: Mapped[int]
    modalities: Mapped[list[str]] = mapped_column(JSON)
    precision: Mapped[str] = mapped_column(Text)
    device: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    settings: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    promoted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    retired_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    recorded: Mapped[bool] = mapped_column(server_default=false())
    index_schema: Mapped[str] = mapped_column(String(8), server_default="")


class ImportRow(Base):
    """The last import from a source: unfinished while `finished_at` is NULL.

    `source` identifies the place that products come from. `plan` identifies how they are read and which state of
    the source that is; a position is valid within one plan.
    """

    __tablename__ = "imports"

    source: Mapped[str] = mapped_column(_SOURCE, primary_key=True)
    plan: Mapped[str] = mapped_column(String(64))
    generation: Mapped[int]
    position: Mapped[str | None] = mapped_column(Text)
    counts: Mapped[dict[str, Any]] = mapped_column(JSON)
    job_id: Mapped[str] = mapped_column(String(64))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (Index(None, "job_id"),)


class ImportedProductRow(Base):
    """A product that a source delivered; `generation` and `row_number` are of its last delivery."""

    __tablename__ = "imported_products"

    source: Mapped[str] = mapped_column(_SOURCE, primary_key=True)
    product_id: Mapped[str] = mapped_column(PRODUCT_ID, primary_key=True)
    generation: Mapped[int]
    row_number: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index(None, "source", "generation", "product_id"),)


class ImportErrorRow(Base):
    """An error in a row of a source's last import."""

    __tablename__ = "import_errors"

    source: Mapped[str] = mapped_column(_SOURCE, primary_key=True)
    row_number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    product_id: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str] = mapped_column(Text)


class ImportedImageRow(Base):
    """Image behind a path or URL at its last read, with its validators.

    The key is a hash, since a URL may be longer than an index allows.
    """

    __tablename__ = "imported_images"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    etag: Mapped[str | None] = mapped_column(Text)
    last_modified: Mapped[str | None] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(SHA256)
    media_type: Mapped[str] = mapped_column(Text)
    width: Mapped[int]
    height: Mapped[int]

    __table_args__ = (Index(None, "sha256"),)


class JobRow(Base):
    """A job; without another heartbeat its process counts as dead at `expires_at`.

    `claim` excludes other jobs until its end, `lock` for a moment.
    """

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    args: Mapped[dict[str, Any]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(16))
    claim: Mapped[str | None] = mapped_column(String(300))
    lock: Mapped[str | None] = mapped_column(String(300))
    progress: Mapped[dict[str, Any]] = mapped_column(JSON)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    heartbeat_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (Index(None, "created_at", "id"),)


class ApiKeyRow(Base):
    """An API key; only its hash is stored."""

    __tablename__ = "api_keys"

    key_id: Mapped[str] = mapped_column(String(12), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    sha256: Mapped[str] = mapped_column(String(64))
    requests_per_s: Mapped[float | None]
    burst: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
