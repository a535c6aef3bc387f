"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, and the one row of `revision_floor`."""
    _create_products()
    _create_images()
    _create_embeddings()
    _create_model_versions()
    floor = op.create_table(
        "revision_floor",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_revision_floor"),
    )
    op.bulk_insert(floor, [{"id": 1, "revision": 0}])


def downgrade() -> None:
    """Drop everything."""
    for table in ("revision_floor", "model_versions", "embeddings", "images", "products"):
        op.drop_table(table)


def _product_id() -> sa.String:
    return sa.String(200).with_variant(sa.String(200, collation="C"), "postgresql")


def _time() -> sa.DateTime:
    return sa.DateTime(timezone=True)


def _create_products() -> None:
    op.create_table(
        "products",
        sa.Column("id", _product_id(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("updated_at", _time(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_products"),
    )


def _create_images() -> None:
    op.create_table(
        "images",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("product_id", _product_id(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["product_id"], ["products.id"], name="fk_images_product_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_images"),
        sa.UniqueConstraint("product_id", "position", name="uq_images_product_id_position"),
    )
    op.create_index("ix_images_revision_id", "images", ["revision", "id"])


def _create_embeddings() -> None:
    op.create_table(
        "embeddings",
        sa.Column("image_id", sa.String(32), nullable=False),
        sa.Column("image_revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("collection", sa.String(255), nullable=False),
        sa.Column("begun_at", _time(), nullable=False),
        sa.Column("embedded_at", _time(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("image_id", "image_revision", "collection", name="pk_embeddings"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_embeddings_collection_image_id_image_revision",
        "embeddings",
        ["collection", "image_id", "image_revision"],
    )


def _create_model_versions() -> None:
    op.create_table(
        "model_versions",
        sa.Column("collection", sa.String(255), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.Column("checkpoint", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column("modalities", sa.JSON(), nullable=False),
        sa.Column("precision", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.PrimaryKeyConstraint("collection", name="pk_model_versions"),
    )
