"""Alembic's entry: runs the migrations on the connection that `db.session.Database` hands in."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

import db.models_access
import db.models_operation
import db.models_performing
import db.models_reader
import db.models_told  # noqa: F401 - their tables belong to the same metadata
from db.models import Base


def run(connection: Connection) -> None:
    """Run the migrations in the transaction that is open on the connection."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        # SQLite cannot alter tables in place; Alembic copies them there.
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        transactional_ddl=True,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


_connection = context.config.attributes.get("connection")
if _connection is None:
    raise SystemExit("migrations run through db.session.Database(url).upgrade()")
run(_connection)
