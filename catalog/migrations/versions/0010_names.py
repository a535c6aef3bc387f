"""Names as the code has them: `imported_images`, and jobs that are `canceled`."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_STATES = ("cancelled", "canceled")


def upgrade() -> None:
    """Rename the table with its indexes, and the state of jobs."""
    _rename("imported_pictures", "imported_images")
    _replace_state(*_STATES)


def downgrade() -> None:
    """Rename back."""
    _replace_state(*reversed(_STATES))
    _rename("imported_images", "imported_pictures")


def _rename(old: str, new: str) -> None:
    op.drop_index(f"ix_{old}_sha256", old)
    op.rename_table(old, new)
    op.create_index(f"ix_{new}_sha256", new, ["sha256"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER INDEX pk_{old} RENAME TO pk_{new}")


def _replace_state(old: str, new: str) -> None:
    jobs = sa.table("jobs", sa.column("state", sa.Text()))
    op.execute(jobs.update().where(jobs.c.state == old).values(state=new))
