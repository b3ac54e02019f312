"""Studies and series as pages and the interface list them."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from db.models import Series, Study
from db.names import folded_name
from db.session import Database
from db.studies import list_studies, series_of, studies_found
from tests.db.arrivals import waiting_job


@pytest.mark.parametrize(
    "search",
    ["erika", "Mustermann", "mustermann, erika", "Mustermann^Erika", " PID-4711 ", "ACC-0815",
     "1.2", "1.2.1", "a\0b"],
)  # fmt: skip
def test_a_study_is_found_by_patient_accession_or_uid(database: Database, search: str) -> None:
    for number in ("1.1", "1.2", "1.3"):
        waiting_job(database, number)
    with database.session() as session:
        study = session.scalars(select(Study).where(Study.study_instance_uid == "1.2")).one()
        study.patient_name, study.patient_id = "Mustermann^Erika", "PID-4711"
        study.patient_name_key = folded_name(study.patient_name)
        study.accession_number = "ACC-0815"
        session.flush()
        found = studies_found(session, search)
        # A name is known by its beginning: the family name comes first.
        assert found == (set() if search in ("erika", "a\0b") else {study.id})
        assert {one.id for one in list_studies(session, search=search).studies} == found


@pytest.mark.parametrize("number", ["--5", "9" * 64, "\u00b2", "", "x"])
def test_a_series_number_that_is_none_comes_last(database: Database, number: str) -> None:
    waiting_job(database, "1.1")
    with database.session() as session:
        (one,) = session.scalars(select(Series))
        one.series_number = number
        session.add(Series(study_id=one.study_id, series_instance_uid="1.1.9", series_number="7"))
        session.flush()
        assert [two.series_number for two in series_of(session, one.study_id)] == ["7", number]
