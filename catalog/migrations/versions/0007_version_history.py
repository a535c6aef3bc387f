"""How each model version is configured, and when versions took turns."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns, empty for the versions that are there."""
    op.add_column("model_versions", sa.Column("settings", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("model_versions", sa.Column("promoted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("model_versions", sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Drop the columns."""
    for column in ("retired_at", "promoted_at", "settings"):
        op.drop_column("model_versions", column)
