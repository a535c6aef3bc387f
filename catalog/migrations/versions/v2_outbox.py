"""An index of the ledger's open rows, and open rows for everything that is no longer current.

From here on a settled or failed row always belongs to a current image.
"""

import sqlalchemy as sa
from alembic import op

revision = "v2"
down_revision = "v1"

_OPEN = sa.text("embedded_at IS NULL AND error IS NULL")
_COLUMNS = ["collection", "begun_at", "image_id", "image_revision"]


def upgrade() -> None:
    """Nothing goes back to before it."""
    op.add_column(
        "model_versions", sa.Column("recorded", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column(
        "model_versions", sa.Column("index_schema", sa.String(8), nullable=False, server_default="")
    )
    # Their time stays: what was settled or failed long ago has no writer.
    op.execute(
        "UPDATE embeddings SET embedded_at = NULL, error = NULL "
        "WHERE (embedded_at IS NOT NULL OR error IS NOT NULL) AND NOT EXISTS (SELECT 1 FROM images "
        "WHERE images.id = embeddings.image_id AND images.revision = embeddings.image_revision)"
    )
    op.create_index("ix_embeddings_open", "embeddings", _COLUMNS, sqlite_where=_OPEN, postgresql_where=_OPEN)
