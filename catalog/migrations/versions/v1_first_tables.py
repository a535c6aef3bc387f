"""The first tables, the full-text index of each database, and the rows of tables with one row."""

import uuid
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "v1"
down_revision = None

_TEXT, _JSON, _INT, _BIGINT, _TIME = sa.Text(), sa.JSON(), sa.Integer(), sa.BigInteger(), sa.DateTime(True)
_PRODUCT_ID = sa.String(200).with_variant(sa.String(200, collation="C"), "postgresql")
_IMAGE_ID, _SHA256, _COLLECTION, _SOURCE = sa.String(32), sa.String(64), sa.String(255), sa.String(64)
_FIELDS = ("identifier", "title", "attributes", "description", "captions")
# The documentation of FTS5 asks for these triggers where an index keeps no copy of the words.
_ADD = "INSERT INTO fulltext (rowid, {fields}) VALUES (new.id, {new});"
_REMOVE = "INSERT INTO fulltext (fulltext, rowid, {fields}) VALUES ('delete', old.id, {old});"
_TRIGGERS = {"insert": _ADD, "delete": _REMOVE, "update": f"{_REMOVE} {_ADD}"}
# A and B to D are the weights that ts_rank knows.
_TSVECTOR = """
    setweight(to_tsvector('simple', identifier), 'A') || setweight(to_tsvector('simple', title), 'A') ||
    setweight(to_tsvector('simple', attributes), 'B') || setweight(to_tsvector('simple', description), 'C') ||
    setweight(to_tsvector('simple', captions), 'D')
"""


def _key(name: str, kind: TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def _columns(kind: TypeEngine[Any], *names: str, nullable: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=nullable) for name in names]


def _of_product(unique: bool = False) -> sa.Column[Any]:
    product = sa.ForeignKey("products.id", ondelete="CASCADE")
    return sa.Column("product_id", _PRODUCT_ID, product, nullable=False, unique=unique)


def _index(table: str, *columns: str) -> None:
    op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns))


def upgrade() -> None:
    """Make everything; nothing goes back to before it."""
    _create_tables()
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"ALTER TABLE documents ADD COLUMN fulltext tsvector GENERATED ALWAYS AS ({_TSVECTOR}) STORED"
        )
        op.execute("CREATE INDEX fulltext_documents ON documents USING gin (fulltext)")
    else:
        _create_fts5()


def _create_tables() -> None:
    op.create_table(
        "products",
        _key("id", _PRODUCT_ID),
        *_columns(_TEXT, "title", "description"),
        *_columns(_JSON, "attributes"),
        *_columns(_BIGINT, "revision"),
        *_columns(_TIME, "created_at", "updated_at"),
    )
    op.create_table(
        "images",
        _key("id", _IMAGE_ID),
        _of_product(),
        *_columns(_SHA256, "sha256"),
        *_columns(_TEXT, "media_type"),
        *_columns(_INT, "position", "width", "height"),
        *_columns(_BIGINT, "bytes", "revision"),
        sa.UniqueConstraint("product_id", "position"),
    )
    _index("images", "revision", "id")
    _index("images", "sha256")
    op.create_table(
        "captions",
        _key("image_id", _IMAGE_ID),
        _key("model", sa.String(48)),
        *_columns(sa.String(12), "fingerprint"),
        *_columns(_TEXT, "caption", "error", nullable=True),
        *_columns(_TIME, "created_at"),
    )
    op.create_table(
        "documents",
        sa.Column("id", _BIGINT.with_variant(_INT, "sqlite"), primary_key=True),
        _of_product(unique=True),
        *_columns(_TEXT, *_FIELDS),
    )
    op.create_table("unnamed_files", _key("sha256", _SHA256), *_columns(_TIME, "since"))
    _index("unnamed_files", "since")
    op.create_table("file_holds", _key("id", sa.String(32)), *_columns(_TIME, "expires_at"))
    catalog_id = op.create_table("catalog_id", _key("id", _INT), *_columns(sa.String(32), "catalog_id"))
    op.bulk_insert(catalog_id, [{"id": 1, "catalog_id": uuid.uuid4().hex}])
    floor = op.create_table("revision_floor", _key("id", _INT), *_columns(_BIGINT, "revision"))
    op.bulk_insert(floor, [{"id": 1, "revision": 0}])
    op.create_table("index_store", _key("number", _INT), *_columns(sa.String(32), "store_id"))
    op.create_table(
        "embeddings",
        _key("image_id", _IMAGE_ID),
        _key("image_revision", _BIGINT),
        _key("collection", _COLLECTION),
        *_columns(_TIME, "begun_at"),
        *_columns(_TIME, "embedded_at", nullable=True),
        *_columns(_TEXT, "error", nullable=True),
        sqlite_with_rowid=False,
    )
    columns, failed = ["collection", "image_id", "image_revision"], sa.text("error IS NOT NULL")
    _index("embeddings", *columns)
    op.create_index(
        "ix_embeddings_failed", "embeddings", columns, sqlite_where=failed, postgresql_where=failed
    )
    op.create_table(
        "model_versions",
        _key("collection", _COLLECTION),
        *_columns(_TEXT, "name", "family", "checkpoint", "fingerprint", "precision", "device"),
        *_columns(_INT, "dimension"),
        *_columns(_JSON, "modalities"),
        *_columns(_JSON, "settings", nullable=True),
        *_columns(_TIME, "created_at"),
        *_columns(_TIME, "promoted_at", "retired_at", nullable=True),
    )
    op.create_table(
        "imports",
        _key("source", _SOURCE),
        *_columns(sa.String(64), "plan", "job_id"),
        *_columns(_INT, "generation"),
        *_columns(_TEXT, "position", nullable=True),
        *_columns(_JSON, "counts"),
        *_columns(_TIME, "started_at"),
        *_columns(_TIME, "finished_at", nullable=True),
    )
    _index("imports", "job_id")
    op.create_table(
        "imported_products",
        _key("source", _SOURCE),
        _key("product_id", _PRODUCT_ID),
        *_columns(_INT, "generation"),
        *_columns(_BIGINT, "row_number"),
    )
    _index("imported_products", "source", "generation", "product_id")
    op.create_table(
        "import_errors",
        _key("source", _SOURCE),
        _key("row_number", _BIGINT),
        *_columns(_TEXT, "product_id", nullable=True),
        *_columns(_TEXT, "error"),
    )
    op.create_table(
        "imported_images",
        _key("key", sa.String(64)),
        *_columns(_TEXT, "etag", "last_modified", nullable=True),
        *_columns(_SHA256, "sha256"),
        *_columns(_TEXT, "media_type"),
        *_columns(_INT, "width", "height"),
    )
    _index("imported_images", "sha256")
    op.create_table(
        "jobs",
        _key("id", sa.String(64)),
        *_columns(sa.String(32), "kind"),
        *_columns(sa.String(16), "state"),
        *_columns(sa.String(300), "claim", "lock", nullable=True),
        *_columns(_JSON, "args", "progress"),
        *_columns(_JSON, "result", nullable=True),
        *_columns(_TEXT, "error", nullable=True),
        *_columns(_TIME, "created_at", "heartbeat_at", "expires_at"),
        *_columns(_TIME, "started_at", "finished_at", nullable=True),
    )
    _index("jobs", "created_at", "id")
    op.create_table(
        "api_keys",
        _key("key_id", sa.String(12)),
        *_columns(sa.String(100), "name"),
        *_columns(_SHA256, "sha256"),
        *_columns(_JSON, "scopes"),
        *_columns(sa.Double(), "requests_per_s", nullable=True),
        *_columns(_INT, "burst", nullable=True),
        *_columns(_TIME, "created_at"),
        *_columns(_TIME, "revoked_at", "last_used_at", nullable=True),
    )


def _create_fts5() -> None:
    fields = ", ".join(_FIELDS)
    # The words are cut and folded already: what is left to the tokenizer is to split at spaces.
    op.execute(
        f"CREATE VIRTUAL TABLE fulltext USING fts5({fields}, "
        "content='documents', content_rowid='id', tokenize='ascii')"
    )
    columns = {kind: ", ".join(f"{kind}.{name}" for name in _FIELDS) for kind in ("new", "old")}
    for event, statements in _TRIGGERS.items():
        body = statements.format(fields=fields, **columns)
        op.execute(f"CREATE TRIGGER fulltext_{event} AFTER {event} ON documents BEGIN {body} END")
