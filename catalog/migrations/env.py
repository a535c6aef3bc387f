"""Entry point of alembic: migrations run on the connection and inside the transaction of `catalog.opening`."""

from alembic import context

from catalog.keyword_search import is_declared
from catalog.tables import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    include_name=is_declared,
    transactional_ddl=True,
    # SQLite cannot alter a column: alembic rebuilds the table instead.
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
