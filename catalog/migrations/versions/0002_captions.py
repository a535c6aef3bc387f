"""What models have written about pictures."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table, one row a picture and model."""
    op.create_table(
        "captions",
        sa.Column("image_id", sa.String(32), nullable=False),
        sa.Column("model", sa.String(48), nullable=False),
        sa.Column("fingerprint", sa.String(12), nullable=False),
        sa.Column("caption", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("image_id", "model", name="pk_captions"),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("captions")
