"""Which DICOM attributes the catalog has columns for, and how much of their text it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from db.models import Base, Instance, Series, Study
from db.names import folded_name

LONGEST_TEXT = 1024
"""Characters kept of an attribute without a narrower column."""

_STUDY_COLUMNS: Mapping[str, str] = {
    "PatientID": "patient_id",
    "PatientName": "patient_name",
    "PatientBirthDate": "patient_birth_date",
    "PatientSex": "patient_sex",
    "AccessionNumber": "accession_number",
    "StudyDate": "study_date",
    "StudyTime": "study_time",
    "StudyID": "study_id",
    "StudyDescription": "study_description",
    "ReferringPhysicianName": "referring_physician_name",
}
_NAME_KEYS: Mapping[str, str] = {
    "PatientName": "patient_name_key",
    "ReferringPhysicianName": "referring_physician_key",
}
_SERIES_COLUMNS: Mapping[str, str] = {
    "Modality": "modality",
    "SeriesNumber": "series_number",
    "SeriesDescription": "series_description",
    "BodyPartExamined": "body_part_examined",
}
_INSTANCE_COLUMNS: Mapping[str, str] = {
    "InstanceNumber": "instance_number",
    "NumberOfFrames": "number_of_frames",
    "Rows": "rows",
    "Columns": "columns",
    "ImageType": "image_type",
}


def plain_text(text: str, length: int | None = None) -> str:
    """Cut text from DICOM to what both databases can hold.

    PostgreSQL takes neither NUL nor half a surrogate pair, and does not shorten by itself; what
    the column cannot hold stays in the stored file.
    """
    if not text.isascii() or "\x00" in text:
        text = text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
    return text[: length or LONGEST_TEXT]


class Field(NamedTuple):
    """A column that takes the text of an attribute, and how much of it."""

    keyword: str
    column: str
    length: int


def _fields(columns: Mapping[str, str], model: type[Base]) -> tuple[Field, ...]:
    table = model.__table__.c
    return tuple(
        Field(keyword, column, getattr(table[column].type, "length", None) or LONGEST_TEXT)
        for keyword, column in columns.items()
    )


STUDY_FIELDS = _fields(_STUDY_COLUMNS, Study)
SERIES_FIELDS = _fields(_SERIES_COLUMNS, Series)
INSTANCE_FIELDS = _fields(_INSTANCE_COLUMNS, Instance)
NAMED: frozenset[str] = frozenset({*_STUDY_COLUMNS, *_SERIES_COLUMNS, *_INSTANCE_COLUMNS})
"""The attributes with a column; all others are kept with their series."""


def taken(attributes: Mapping[str, str], fields: tuple[Field, ...]) -> dict[str, str]:
    """Give the values of columns: the attributes' text, cut to what they hold."""
    return {
        column: plain_text(attributes.get(keyword, ""), length)
        for keyword, column, length in fields
    }


def name_keys(attributes: Mapping[str, str]) -> dict[str, str]:
    """Give the keys by which the study's person names are found."""
    return {
        column: plain_text(folded_name(attributes.get(keyword, "")), 256)
        for keyword, column in _NAME_KEYS.items()
    }
