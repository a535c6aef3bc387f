"""What products are found by, with the full-text index of each database, filled from what is there."""

import sqlalchemy as sa
from alembic import op

from catalog.keyword_search import write_all_documents

revision = "0004"
down_revision = "0003"

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


def upgrade() -> None:
    """Make the table, then what the database derives from it, then the rows."""
    op.create_table(
        "documents",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "product_id",
            sa.String(200).with_variant(sa.String(200, collation="C"), "postgresql"),
            nullable=False,
        ),
        *(sa.Column(name, sa.Text(), nullable=False) for name in _FIELDS),
        sa.ForeignKeyConstraint(
            ["product_id"], ["products.id"], name="fk_documents_product_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_documents"),
        sa.UniqueConstraint("product_id", name="uq_documents_product_id"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"ALTER TABLE documents ADD COLUMN fulltext tsvector GENERATED ALWAYS AS ({_TSVECTOR}) STORED"
        )
        op.execute("CREATE INDEX fulltext_documents ON documents USING gin (fulltext)")
    else:
        _make_fts5()
    write_all_documents(op.get_bind())


def downgrade() -> None:
    """Drop the table and what hangs on it."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE fulltext")
    op.drop_table("documents")


def _make_fts5() -> None:
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
