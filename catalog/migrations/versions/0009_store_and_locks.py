"""Which store the ledger speaks of, and what jobs have locked."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the table and the column, empty: the store that is found first is taken as the one."""
    op.create_table(
        "index_store",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("store_id", sa.String(32), nullable=False),
    )
    op.add_column("jobs", sa.Column("lock", sa.String(300), nullable=True))


def downgrade() -> None:
    """Drop both."""
    op.drop_column("jobs", "lock")
    op.drop_table("index_store")
