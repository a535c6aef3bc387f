"""Entry point of alembic: migrations run on the connection and inside the transaction of `catalog.opening`."""

from alembic import context

from catalog.tables import Base

connection = context.config.attributes["connection"]
# The metadata names the constraints.
context.configure(connection=connection, target_metadata=Base.metadata, transactional_ddl=True)
context.run_migrations()
