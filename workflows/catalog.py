"""The node's catalog as the DICOM services ask it: their queries in the database's terms."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db.catalog import syntaxes_of
from db.conditions import (
    Between,
    Condition,
    Like,
    OneOf,
    comparisons,
    first_moment,
    last_moment,
)
from db.query import Described, Found, describe, find
from db.query_keys import KEYS, LEVELS, MATCHED, STUDY_DATE_AND_TIME, level_of
from db.query_keys import Level as DatabaseLevel
from db.session import Database
from dicom_node.archive import Archive
from dicom_node.errors import FinalError, RetriableError
from dicom_node.services.query import Exact, Level, Match, Matching, Query, Wildcard
from workflows.probing import SOP_CLASSES

LOGGER = logging.getLogger(__name__)
_PAGE: Final = 200
"""Things described in one transaction: a peer that reads slowly holds none open."""
_MOST_VALUES: Final = 10_000
"""Values of one query. Each stands in its statement up to three times, and SQLite takes 32766."""
_MOST_COMPARISONS: Final = 200
"""Names, patterns and the like of one query; see `db.conditions.comparisons`."""
_LEVELS: Final[dict[Level, DatabaseLevel]] = dict(zip(Level, LEVELS, strict=True))


class NodeCatalog:
    """See `dicom_node.services.query.Catalog`.

    Parameters
    ----------
    database, archive
        Where rows and files are.
    """

    def __init__(self, database: Database, archive: Archive) -> None:
        self._database = database
        self._archive = archive

    def matched_keywords(self) -> frozenset[str]:
        """Return the keywords that conditions can be set on."""
        return MATCHED - {STUDY_DATE_AND_TIME}

    def level_of(self, keyword: str) -> Level | None:
        """Return the level of an attribute that the catalog answers, or None."""
        level = level_of(keyword)
        return None if level is None else list(Level)[LEVELS.index(level)]

    def held_syntaxes(self, sop_class_uids: Collection[str]) -> dict[str, set[str]]:
        """Return in which transfer syntaxes instances of each class are held, as far as known.

        Of classes that the node makes itself nothing is said: its results may be in others.
        """
        received = set(sop_class_uids) - SOP_CLASSES.keys()
        try:
            with self._database.reading() as session:
                return syntaxes_of(session, received)
        except SQLAlchemyError as error:
            # The association stands without; what can be sent, each context says.
            LOGGER.warning("held transfer syntaxes are not known (%s)", type(error).__name__)
            return {}

    def find(
        self, query: Query, wanted: Collection[str], *, start: int = 0, size: int | None = None
    ) -> Iterator[Match]:
        """Yield what matches; the pages are read while they are asked for."""
        with self._reading() as session:
            found = self._found(session, query)
            end = len(found) if size is None else min(len(found), start + size)
            page = _page(session, found, start, end, wanted)
        for begin in range(start, end, _PAGE):
            if begin > start:
                with self._reading() as session:
                    page = _page(session, found, begin, end, wanted)
            for one in page:
                path = self._archive.absolute(one.path) if one.path else None
                yield Match(one.attributes, path, one.is_result)

    def count(self, query: Query) -> int:
        """Return how many match."""
        with self._reading() as session:
            return len(self._found(session, query))

    def _found(self, session: Session, query: Query) -> Found:
        conditions = {
            keyword: _condition(matching)
            for keyword, matching in query.matching.items()
            if keyword in self.matched_keywords()
        }
        if query.moment is not None:
            conditions[STUDY_DATE_AND_TIME] = _moments(query.moment.low, query.moment.high)
        if sum(map(_size, conditions.values())) > _MOST_VALUES:
            raise FinalError(
                f"a query names more than {_MOST_VALUES} values; ask for fewer at a time"
            )
        one_by_one = sum(
            comparisons(KEYS[keyword].kind if keyword in KEYS else "text", condition)
            for keyword, condition in conditions.items()
        )
        if one_by_one > _MOST_COMPARISONS:
            raise FinalError(
                f"a query names more than {_MOST_COMPARISONS} names or patterns; ask for fewer at "
                "a time"
            )
        return find(session, _LEVELS[query.level], conditions)

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        try:
            with self._database.reading() as session:
                yield session
        except SQLAlchemyError as error:
            raise RetriableError(
                f"the node's database cannot be asked now ({type(error).__name__}); try again"
            ) from error


def _page(
    session: Session, found: Found, begin: int, end: int, wanted: Collection[str]
) -> list[Described]:
    return describe(session, found.page(begin, min(_PAGE, end - begin)), wanted)


def _condition(matching: Matching) -> Condition:
    if isinstance(matching, Exact):
        return OneOf(matching.values)
    if isinstance(matching, Wildcard):
        return Like(matching.patterns)
    return Between(matching.low, matching.high)


def _size(condition: Condition) -> int:
    if isinstance(condition, OneOf):
        return len(condition.values)
    return len(condition.patterns) if isinstance(condition, Like) else 2


def _moments(low: str, high: str) -> Between:
    """Give date and time of any precision in full."""
    return Between(
        low and low[:8] + first_moment(low[8:]), high and high[:8] + last_moment(high[8:])
    )
