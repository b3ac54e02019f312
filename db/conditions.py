"""Conditions on texts in the catalog, and their SQL: the same rows in SQLite and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    SQLColumnExpression,
    Text,
    and_,
    false,
    func,
    literal,
    or_,
    true,
)

from db.attributes import LONGEST_TEXT
from db.names import folded_name

Kind = Literal["text", "name", "time", "values"]
"""How a column is compared: case and all; folded names; times of any precision; the values of a
multi-valued attribute, one by one."""

_WHOLE_TIME = "000000.000000"
_LAST_TIME = "235959.999999"
_HIGHEST = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class OneOf:
    """The text is one of these."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """The text matches one of these patterns: ``*`` is any characters, ``?`` is one."""

    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """The text is not empty and lies between these, both included; an empty one is no bound."""

    low: str
    high: str


Condition = OneOf | Like | Between


def comparisons(kind: Kind, condition: Condition) -> int:
    """Count what a condition compares one by one; a list of plain values is one look-up.

    Each is a branch of the statement's expression, which a database takes a thousand of, and costs
    a look at every row.
    """
    if isinstance(condition, Like):
        return len(condition.patterns)
    if isinstance(condition, OneOf) and kind in ("name", "values"):
        return len(condition.values)
    return 1


def holds(
    column: SQLColumnExpression[Any], kind: Kind, condition: Condition, dialect: str
) -> ColumnElement[bool]:
    """Give the SQL of a condition on a column.

    Parameters
    ----------
    column
        Text. For ``name`` it holds names as `db.names.folded_name` gives them.
    kind
        How it is compared.
    condition
        What must hold.
    dialect
        Name of the database's dialect.
    """
    if isinstance(condition, Between):
        return _between(column, kind, condition)
    if isinstance(condition, OneOf):
        return _one_of(column, kind, condition.values, dialect)
    return or_(false(), *(_like(column, kind, pattern, dialect) for pattern in condition.patterns))


def padded_time(column: SQLColumnExpression[Any]) -> SQLColumnExpression[str]:
    """Give a column of times in full precision, so that they compare as texts."""
    bare = func.replace(column, ":", "", type_=Text)
    return bare + func.substr(literal(_WHOLE_TIME), func.length(bare) + 1, type_=Text)


def first_moment(time: str) -> str:
    """Give a time of any precision as the first moment that it means: 1030 is 103000.000000."""
    bare = time.replace(":", "")
    return bare + _WHOLE_TIME[len(bare) :]


def last_moment(time: str) -> str:
    """Give a time of any precision as the last moment that it means: 1030 is 103059.999999."""
    bare = time.replace(":", "")
    return bare + _LAST_TIME[len(bare) :]


def _between(
    column: SQLColumnExpression[Any], kind: Kind, condition: Between
) -> ColumnElement[bool]:
    low, high = condition.low, condition.high
    compared: SQLColumnExpression[Any] = column
    if kind == "time":
        compared = padded_time(column)
        low, high = low and first_moment(low), high and last_moment(high)
    bounds: list[ColumnElement[bool]] = [column != ""]
    if low:
        bounds.append(compared >= low)
    if high:
        bounds.append(compared <= high)
    return and_(*bounds)


def _one_of(
    column: SQLColumnExpression[Any], kind: Kind, values: Sequence[str], dialect: str
) -> ColumnElement[bool]:
    if kind == "time":
        return and_(column != "", padded_time(column).in_([first_moment(one) for one in values]))
    if kind == "name":
        return or_(false(), *(_name_like(column, one, dialect, exact=True) for one in values))
    if kind == "values":
        return or_(false(), *(_value_like(column, _escaped(one), dialect) for one in values))
    return column == values[0] if len(values) == 1 else column.in_(values)


def _like(
    column: SQLColumnExpression[Any], kind: Kind, text: str, dialect: str
) -> ColumnElement[bool]:
    if kind == "name":
        return _name_like(column, text, dialect, exact=False)
    if kind == "values":
        return _value_like(column, _tokens(text), dialect)
    return _pattern(column, _tokens(text), dialect)


Tokens = tuple[str | None, ...]
"""A pattern taken apart: literal texts, "?" tokens as empty strings, None for any characters."""


def _tokens(pattern: str) -> Tokens:
    """Take a pattern apart, with runs of ``*`` as one."""
    tokens: list[str | None] = []
    for character in pattern:
        token = {"*": None, "?": ""}.get(character, character)
        if not (token is None and tokens and tokens[-1] is None):
            tokens.append(token)
    return tuple(tokens)


def _escaped(text: str) -> Tokens:
    return tuple(text)


def _pattern(column: SQLColumnExpression[Any], tokens: Tokens, dialect: str) -> ColumnElement[bool]:
    """Match a pattern, with case; with the bounds of its beginning, so that an index helps."""
    if sum(token is not None for token in tokens) > 2 * LONGEST_TEXT:
        return false()  # longer than any text that is kept
    if all(token is None for token in tokens) and tokens:
        return true()
    begin = ""
    for token in tokens:
        if not token:
            break
        begin += token
    matching: ColumnElement[bool]
    if dialect == "sqlite":
        marks = {None: "*", "": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
        matching = column.op("GLOB", is_comparison=True)(_joined(tokens, marks))
    else:
        marks = {None: "%", "": "_", "%": r"\%", "_": r"\_", "\\": r"\\"}
        matching = column.like(_joined(tokens, marks), escape="\\")
    if not begin:
        return matching
    # In a collation other than "C" such bounds would mean something else.
    ordered = column if dialect == "sqlite" else column.collate("C")
    return and_(ordered >= begin, ordered < begin + _HIGHEST, matching)


def _joined(tokens: Tokens, marks: dict[str | None, str]) -> str:
    return "".join(marks[token] if token in marks else str(token) for token in tokens)


def _value_like(
    column: SQLColumnExpression[Any], tokens: Tokens, dialect: str
) -> ColumnElement[bool]:
    """Match one value of a column that holds several, between backslashes."""
    wrapped = literal("\\") + column + literal("\\")
    return _pattern(wrapped, (None, "\\", *tokens, "\\", None), dialect)


def _name_like(
    column: SQLColumnExpression[Any], text: str, dialect: str, *, exact: bool
) -> ColumnElement[bool]:
    """Match a name as a whole or in one of its component groups.

    An ASCII text is looked for in the first group alone, which an index serves: the others hold
    ideographs and their pronunciation.
    """
    folded = folded_name(text)
    tokens = _escaped(folded) if exact else _tokens(folded)
    choices = [column == folded] if exact else [_pattern(column, tokens, dialect)]
    if "=" not in folded:
        choices.append(_pattern(column, (*tokens, "=", None), dialect))
        if not folded.isascii():
            choices.append(_pattern(column, (None, "=", *tokens), dialect))
            choices.append(_pattern(column, (None, "=", *tokens, "=", None), dialect))
    return or_(*choices)
