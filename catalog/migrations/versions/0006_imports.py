"""Imports: how far they are, what they delivered, and what was wrong."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_PRODUCT_ID = sa.String(200).with_variant(sa.String(200, collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "imports",
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("plan", sa.String(64), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("position", sa.Text(), nullable=True),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("source", name="pk_imports"),
    )
    op.create_index("ix_imports_job_id", "imports", ["job_id"])
    op.create_table(
        "imported_products",
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("product_id", _PRODUCT_ID, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("row_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source", "product_id", name="pk_imported_products"),
    )
    op.create_index(
        "ix_imported_products_source_generation_product_id",
        "imported_products",
        ["source", "generation", "product_id"],
    )
    op.create_table(
        "import_errors",
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("row_number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("product_id", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("source", "row_number", name="pk_import_errors"),
    )
    op.create_table(
        "imported_pictures",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("last_modified", sa.Text(), nullable=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_imported_pictures"),
    )


def downgrade() -> None:
    """Drop the tables."""
    for name in ("imported_pictures", "import_errors", "imported_products", "imports"):
        op.drop_table(name)
