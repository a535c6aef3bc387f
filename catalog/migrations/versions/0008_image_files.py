"""Which image files may be removed, and what holds their removal back."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the tables, and the indexes that tell whether anything names a file."""
    op.create_table(
        "unnamed_files",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_unnamed_files"),
    )
    op.create_index("ix_unnamed_files_since", "unnamed_files", ["since"])
    op.create_table(
        "file_holds",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_file_holds"),
    )
    named = op.create_table(
        "catalog_id",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("catalog_id", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_catalog_id"),
    )
    op.bulk_insert(named, [{"id": 1, "catalog_id": uuid.uuid4().hex}])
    # These tables may be large: an operator may have made the indexes before, while the service went on.
    op.create_index("ix_images_sha256", "images", ["sha256"], if_not_exists=True)
    op.create_index("ix_imported_pictures_sha256", "imported_pictures", ["sha256"], if_not_exists=True)


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_imported_pictures_sha256", "imported_pictures")
    op.drop_index("ix_images_sha256", "images")
    for table in ("catalog_id", "file_holds", "unnamed_files"):
        op.drop_table(table)
