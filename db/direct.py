"""Statements of the hot path, run on SQLite's own cursor.

SQLAlchemy spends ten times as long on the bookkeeping of an execution as SQLite on the statement
itself. The text and the conversion of the values still come from SQLAlchemy, once, so there is one
definition of a statement for both databases. PostgreSQL's statements wait for the network instead;
they go SQLAlchemy's way, which sends many rows at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, Insert, Update
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

Row = Mapping[str, Any]


class Statement(Protocol):
    """A statement that is run again and again."""

    def run(self, connection: Connection, rows: Sequence[Row]) -> Sequence[Any]:
        """Run it once for each row of values; returns what it returns, as tuples."""


class PlainStatement:
    """A statement that SQLAlchemy runs."""

    def __init__(self, statement: Insert | Update) -> None:
        self._statement = statement

    def run(self, connection: Connection, rows: Sequence[Row]) -> Sequence[Any]:
        """Run it; see `Statement`."""
        result = connection.execute(self._statement, rows)
        return result.all() if result.returns_rows else ()


class DirectStatement:
    """A statement that SQLAlchemy wrote and SQLite's cursor runs.

    Parameters
    ----------
    statement
        An INSERT of whole rows (what a row leaves out gets the column's default) or an UPDATE
        with named parameters. Returned columns must be of types that need no conversion.
    dialect
        SQLite's.
    """

    def __init__(self, statement: Insert | Update, dialect: Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self._sql = str(compiled)
        self._places: list[tuple[str, Callable[[Any], Any] | None, Any]] = []
        for name in compiled.positiontup:
            bind = compiled.binds[name]
            column = statement.table.c.get(name)
            default: Any = column.default if column is not None else None
            value = bind.value
            if default is not None:
                value = default.arg(None) if default.is_callable else default.arg
            process = bind.type.dialect_impl(dialect).bind_processor(dialect)
            self._places.append((name, process, process(value) if process else value))

    def run(self, connection: Connection, rows: Sequence[Row]) -> Sequence[Any]:
        """Run it; see `Statement`. Errors are SQLAlchemy's, as everywhere."""
        driver: Any = connection.connection.driver_connection
        returned: list[Any] = []
        try:
            for row in rows:
                returned += driver.execute(self._sql, self._values(row)).fetchall()
        except sqlite3.OperationalError as error:
            raise OperationalError(self._sql, None, error) from error
        except sqlite3.IntegrityError as error:
            raise IntegrityError(self._sql, None, error) from error
        except sqlite3.Error as error:
            raise DatabaseError(self._sql, None, error) from error
        return returned

    def _values(self, row: Row) -> list[Any]:
        return [
            constant if name not in row else process(row[name]) if process else row[name]
            for name, process, constant in self._places
        ]
