"""Alembic's environment: the same revisions on SQLite and PostgreSQL, on a connection that the program hands over."""

from alembic import context
from sqlalchemy import Connection

from watcher.store.schema import Base


def run(connection: Connection) -> None:
    """Run the revisions asked for in one transaction; batch mode because SQLite cannot alter a table."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        compare_type=True,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
