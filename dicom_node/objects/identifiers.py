"""The UIDs of a job's result objects: drawn once, kept with the job, used on every retry.

A retry must send byte-identical objects (PS3.4 asks for a new SOP Instance UID whenever the content
changes, and archives resolve one UID with two contents unpredictably). So nothing here is drawn
while an object is built: the job draws `ResultIdentifiers` once, stores `as_json` in its record and
hands the same ones in again.

All UIDs lie under ``2.25``, the arc for UUIDs (PS3.5 annex B.2, ITU-T X.667), or under a root that
the site has been given: then the number of a UUID follows it all the same.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Self

UUID_ROOT = "2.25."
MAXIMUM_UID_LENGTH = 64


def uid_from_uuid(value: uuid.UUID) -> str:
    """Return the UID that stands for a UUID (PS3.5 annex B.2)."""
    return f"{UUID_ROOT}{value.int}"


def uid_drawn(root: str = UUID_ROOT) -> str:
    """Draw a UID that nothing had before, under a root that ends in a point."""
    return f"{root}{uuid.uuid4().int}"


def root_of(uid: str) -> str:
    """Return the root that a drawn UID lies under; it ends in a point."""
    return uid[: uid.rindex(".") + 1]


def derived_uid(uid: str, name: str) -> str:
    """Return the UID that always belongs to `name` under `uid`, below the same root.

    Parameters
    ----------
    uid
        Any valid UID, normally one that was drawn for a job.
    name
        What the new UID identifies, e.g. ``"finding 3"``.
    """
    return f"{root_of(uid)}{uuid.uuid5(uuid.NAMESPACE_OID, f'{uid}/{name}').int}"


@dataclass(frozen=True, slots=True)
class ObjectIdentifiers:
    """The series and the instance of one result object."""

    series_uid: str
    instance_uid: str

    @classmethod
    def draw(cls, root: str = UUID_ROOT) -> Self:
        """Draw a random pair."""
        return cls(uid_drawn(root), uid_drawn(root))


@dataclass(frozen=True, slots=True)
class Predecessor:
    """A document of an earlier run that a new one replaces.

    Attributes
    ----------
    kind
        Of result, e.g. ``"measurement_report"``: documents replace their own kind.
    """

    kind: str
    sop_class_uid: str
    series_uid: str
    instance_uid: str


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
    predecessors
        What an earlier run on the same source sent: named in the new documents, whatever becomes of
        its record meanwhile.
    """

    segmentation: ObjectIdentifiers
    measurement_report: ObjectIdentifiers
    grounded_report: ObjectIdentifiers
    tracking_root: str
    created: datetime
    predecessors: tuple[Predecessor, ...] = ()

    @classmethod
    def draw(
        cls,
        now: datetime,
        predecessors: Iterable[Predecessor] = (),
        root: str = UUID_ROOT,
    ) -> Self:
        """Draw new identifiers for a job.

        Parameters
        ----------
        now
            The moment of the draw; aware, or naive in the site's local time.
        predecessors
            The documents that these results replace.
        root
            What all UIDs begin with; ends in a point.
        """
        return cls(
            segmentation=ObjectIdentifiers.draw(root),
            measurement_report=ObjectIdentifiers.draw(root),
            grounded_report=ObjectIdentifiers.draw(root),
            tracking_root=uid_drawn(root),
            created=now,
            predecessors=tuple(predecessors),
        )

    def anew(self, *kinds: str) -> Self:
        """Return the same with new UIDs for objects that are written in another form.

        Parameters
        ----------
        kinds
            ``"segmentation"``, ``"measurement_report"`` or ``"grounded_report"``.
        """
        root = root_of(self.tracking_root)

        def pair(kind: str, before: ObjectIdentifiers) -> ObjectIdentifiers:
            return ObjectIdentifiers.draw(root) if kind in kinds else before

        return replace(
            self,
            segmentation=pair("segmentation", self.segmentation),
            measurement_report=pair("measurement_report", self.measurement_report),
            grounded_report=pair("grounded_report", self.grounded_report),
        )

    def further(self, kind: str, number: int = 1) -> ObjectIdentifiers:
        """Return series and instance of an object that not every job has.

        Derived from what was drawn, so they stay the same without being kept.

        Parameters
        ----------
        kind
            Of result, e.g. ``"secondary_capture"``; all of a kind lie in one series.
        number
            From 1, among those of the kind.
        """
        return ObjectIdentifiers(
            derived_uid(self.tracking_root, f"series of {kind}"),
            derived_uid(self.tracking_root, f"{kind} {number}"),
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
            "predecessors": [asdict(one) for one in self.predecessors],
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
            # Records of before there were predecessors have none.
            predecessors=tuple(Predecessor(**one) for one in record.get("predecessors", ())),
        )


def tracking_identifier(finding: int) -> str:
    """Return the name that people read for a finding, ``"F1"`` for the first."""
    return f"F{finding + 1}"


def _pair_as_json(pair: ObjectIdentifiers) -> dict[str, str]:
    return {"series_uid": pair.series_uid, "instance_uid": pair.instance_uid}


def _pair_from_json(record: dict[str, Any]) -> ObjectIdentifiers:
    return ObjectIdentifiers(str(record["series_uid"]), str(record["instance_uid"]))
