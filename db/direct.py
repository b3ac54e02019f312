"""Statements of the hot path, run on SQLite's own cursor.

SQLAlchemy spends ten times as long on the bookkeeping of an execution as SQLite on the statement
itself. The text and the conversion of the values still come from SQLAlchemy, once, so there is one
definition of a statement for both databases. PostgreSQL's statements wait for the network instead;
they go SQLAlchemy's way, which sends many rows at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

from sqlalchemy import Column, Connection, Insert, Select, Update, bindparam, select, tuple_
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

from db.columns import UtcDateTime

Row = Mapping[str, Any]
# The moment of a batch goes into several tables, and takes longer to write as text than to store.
_MOMENTS: Final = 256
_moment: Final = lru_cache(_MOMENTS)(
    UtcDateTime().dialect_impl(sqlite.dialect()).bind_processor(sqlite.dialect()) or str
)


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


class PlainLookup:
    """Looks rows up by their keys, all at once, and locks them in the order of the keys.

    Parameters
    ----------
    returned
        What is asked for.
    key
        The columns of the key; a row of values names them in this order.
    """

    def __init__(self, returned: Sequence[Column[Any]], key: Sequence[Column[Any]]) -> None:
        self._select = (
            select(*returned)
            .where(tuple_(*key).in_(bindparam("keys", expanding=True)))
            .order_by(*key)
            .with_for_update()
        )

    def run(self, connection: Connection, rows: Sequence[Row]) -> Sequence[Any]:
        """Run it; see `Statement`."""
        keys = [tuple(row.values()) for row in rows]
        return connection.execute(self._select, {"keys": keys}).all()


class DirectStatement:
    """A statement that SQLAlchemy wrote and SQLite's cursor runs.

    Parameters
    ----------
    statement
        An INSERT of whole rows (what a row leaves out gets the column's default), or an UPDATE or
        SELECT with named parameters. Returned columns must be of types that need no conversion.
    """

    def __init__(self, statement: Insert | Update | Select[Any]) -> None:
        dialect = sqlite.dialect()
        compiled: Any = statement.compile(dialect=dialect)
        columns: Any = {} if isinstance(statement, Select) else statement.table.c
        self._sql = str(compiled)
        self._defaults: list[Any] = []
        self._places: dict[str, tuple[list[int], Callable[[Any], Any] | None]] = {}
        for place, name in enumerate(compiled.positiontup):
            bind = compiled.binds[name]
            column = columns.get(name)
            default: Any = column.default if column is not None else None
            value = bind.value
            if default is not None:
                value = default.arg(None) if default.is_callable else default.arg
            process = bind.type.dialect_impl(dialect).bind_processor(dialect)
            self._defaults.append(process(value) if process else value)
            if isinstance(bind.type, UtcDateTime):
                process = _moment
            self._places.setdefault(name, ([], process))[0].append(place)

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
        values = self._defaults.copy()
        for name, value in row.items():
            places, process = self._places[name]
            for place in places:
                values[place] = process(value) if process else value
        return values
