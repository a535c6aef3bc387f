"""Which Milvus the ledger speaks of, what jobs have locked, and an index of what is in quarantine."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the table and the column, empty: the Milvus that is found first is taken as the one."""
    op.create_table(
        "index_store",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("store_id", sa.String(32), nullable=False),
    )
    op.add_column("jobs", sa.Column("lock", sa.String(300), nullable=True))
    failed = sa.text("error IS NOT NULL")
    op.create_index(
        "ix_embeddings_failed",
        "embeddings",
        ["collection", "image_id", "image_revision"],
        sqlite_where=failed,
        postgresql_where=failed,
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_embeddings_failed", "embeddings")
    op.drop_column("jobs", "lock")
    op.drop_table("index_store")
