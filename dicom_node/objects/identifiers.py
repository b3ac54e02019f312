"""The UIDs of a job's result objects: drawn once, kept with the job, used on every retry.

A retry must send byte-identical objects (PS3.4 asks for a new SOP Instance UID whenever the content
changes, and archives resolve one UID with two contents unpredictably). So nothing here is drawn
while an object is built: the job draws `ResultIdentifiers` once, stores `as_json` in its record and
hands the same ones in again.

All UIDs lie under ``2.25``, the arc for UUIDs (PS3.5 annex B.2, ITU-T X.667).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

UUID_ROOT = "2.25."
MAXIMUM_UID_LENGTH = 64


def uid_from_uuid(value: uuid.UUID) -> str:
    """Return the UID that stands for a UUID (PS3.5 annex B.2)."""
    return f"{UUID_ROOT}{value.int}"


def derived_uid(uid: str, name: str) -> str:
    """Return the UID that always belongs to `name` under `uid`.

    Parameters
    ----------
    uid
        Any valid UID, normally one that was drawn for a job.
    name
        What the new UID identifies, e.g. ``"finding 3"``.
    """
    return uid_from_uuid(uuid.uuid5(uuid.NAMESPACE_OID, f"{uid}/{name}"))


@dataclass(frozen=True, slots=True)
class ObjectIdentifiers:
    """The series and the instance of one result object."""

    series_uid: str
    instance_uid: str

    @classmethod
    def draw(cls) -> Self:
        """Draw a random pair."""
        return cls(uid_from_uuid(uuid.uuid4()), uid_from_uuid(uuid.uuid4()))


@dataclass(frozen=True, slots=True)
class ResultIdentifiers:
    """All that must stay the same when a job's results are built again.

    Attributes
    ----------
    segmentation, measurement_report, grounded_report
        Series and instance of each object. Each lies in a series of its own: a viewer shows only
        the newest instance of a SEG or SR series.
    tracking_root
        UID from which the tracking UIDs of the findings are derived.
    created
        When the results were first built: the content and creation time of every object.
    """

    segmentation: ObjectIdentifiers
    measurement_report: ObjectIdentifiers
    grounded_report: ObjectIdentifiers
    tracking_root: str
    created: datetime

    @classmethod
    def draw(cls, now: datetime) -> Self:
        """Draw new identifiers for a job.

        Parameters
        ----------
        now
            The moment of the draw; aware, or naive in the site's local time.
        """
        return cls(
            segmentation=ObjectIdentifiers.draw(),
            measurement_report=ObjectIdentifiers.draw(),
            grounded_report=ObjectIdentifiers.draw(),
            tracking_root=uid_from_uuid(uuid.uuid4()),
            created=now,
        )

    def tracking_uid(self, finding: int) -> str:
        """Return the tracking UID of a finding, the same in SEG and SR.

        Parameters
        ----------
        finding
            Index of the finding in the interpretation, from 0.
        """
        return derived_uid(self.tracking_root, f"finding {finding}")

    def as_json(self) -> dict[str, Any]:
        """Return a dictionary that ``json`` can write and `from_json` reads."""
        return {
            "segmentation": _pair_as_json(self.segmentation),
            "measurement_report": _pair_as_json(self.measurement_report),
            "grounded_report": _pair_as_json(self.grounded_report),
            "tracking_root": self.tracking_root,
            "created": self.created.isoformat(),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """Read what `as_json` wrote.

        Raises
        ------
        KeyError
            When an entry is missing.
        ValueError
            When the time is not ISO 8601.
        """
        return cls(
            segmentation=_pair_from_json(record["segmentation"]),
            measurement_report=_pair_from_json(record["measurement_report"]),
            grounded_report=_pair_from_json(record["grounded_report"]),
            tracking_root=str(record["tracking_root"]),
            created=datetime.fromisoformat(record["created"]),
        )


def tracking_identifier(finding: int) -> str:
    """Return the name that people read for a finding, ``"F1"`` for the first."""
    return f"F{finding + 1}"


def _pair_as_json(pair: ObjectIdentifiers) -> dict[str, str]:
    return {"series_uid": pair.series_uid, "instance_uid": pair.instance_uid}


def _pair_from_json(record: dict[str, Any]) -> ObjectIdentifiers:
    return ObjectIdentifiers(str(record["series_uid"]), str(record["instance_uid"]))
