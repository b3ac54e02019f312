"""INSERT with ON CONFLICT, which both databases have and SQLAlchemy words by dialect."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session


def insert_by(session: Session, model: type[Any]) -> Any:
    """Return an INSERT into a model's table in the dialect of the session's database."""
    is_postgresql = session.get_bind().dialect.name == "postgresql"
    return (postgresql if is_postgresql else sqlite).insert(model.__table__)
