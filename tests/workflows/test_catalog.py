"""How much one query may ask: more is the asker's mistake, and not the database's failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from db.session import Database
from dicom_node.archive import Archive
from dicom_node.errors import FinalError
from dicom_node.services.query import Exact, Level, Query, Wildcard
from workflows.catalog import NodeCatalog

UIDS = Exact(tuple(f"1.2.{number}" for number in range(10_000)))


@pytest.fixture
def catalog(database: Database, tmp_path: Path) -> NodeCatalog:
    return NodeCatalog(database, Archive(tmp_path / "archive", reserve_bytes=0))


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID", "SOPClassesInStudy"])
def test_ten_thousand_uids_are_looked_up(catalog: NodeCatalog, keyword: str) -> None:
    assert list(catalog.find(Query(Level.STUDY, {keyword: UIDS}), {"StudyInstanceUID"})) == []


@pytest.mark.parametrize("keyword", ["PatientName", "ImageType", "ModalitiesInStudy"])
def test_names_and_patterns_have_a_limit_below_that_of_the_database(
    catalog: NodeCatalog, keyword: str, caplog: pytest.LogCaptureFixture
) -> None:
    def asked(count: int) -> Query:
        patterns = (f"J\u00f6rg {number}*" for number in range(count))
        return Query(Level.STUDY, {keyword: Wildcard(tuple(patterns))})

    assert catalog.count(asked(200)) == 0
    with pytest.raises(FinalError, match="more than 200 names or patterns"):
        catalog.count(asked(10_000))
    assert not caplog.records, "the database is not away"


def test_more_values_than_fit_into_a_statement(catalog: NodeCatalog) -> None:
    query = Query(Level.STUDY, {"StudyInstanceUID": UIDS, "SOPInstanceUID": UIDS})
    with pytest.raises(FinalError, match="more than 10000 values"):
        catalog.count(query)
