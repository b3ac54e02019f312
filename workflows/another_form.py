"""When a destination refuses the class of an object: write the same in another form, once.

A probe tells before what a destination takes; but many were never probed, and some answer a probe
otherwise than a real object. What a refusal teaches is kept with the probe, so that the next job
goes by it from the start.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydicom.uid import Comprehensive3DSRStorage, EnhancedSRStorage, SegmentationStorage
from sqlalchemy.orm import Session

from db.jobs import JobState, Lease, advance, note_event
from db.models import DeliveryState, Job
from db.probes import accepted_by, record_refusal
from db.results import redraw_identifiers, results_of
from dicom_node.objects.identifiers import ResultIdentifiers
from dicom_node.objects.segmentation_encoding import LABEL_MAP_SEGMENTATION_STORAGE
from dicom_node.uid_names import name_of_uid
from workflows.dispatch import Dispatch
from workflows.node import Node

_SEG, _LABEL_MAP = str(SegmentationStorage), str(LABEL_MAP_SEGMENTATION_STORAGE)
_OTHER: Final[Mapping[str, str]] = {
    _LABEL_MAP: _SEG,
    _SEG: _LABEL_MAP,
    str(Comprehensive3DSRStorage): str(EnhancedSRStorage),
}
"""What else may hold the same. A grounded report is Enhanced SR already, the widest known."""
# What refers to the object, and so changes with it.
_CHANGING: Final[Mapping[str, tuple[str, ...]]] = {
    "segmentation": ("segmentation", "measurement_report", "grounded_report"),
    "measurement_report": ("measurement_report",),
}


@dataclass(frozen=True, slots=True)
class RefusedClass:
    """An object that a destination did not take because of its class."""

    destination: str
    kind: str
    sop_class_uid: str


def write_in_another_form(
    node: Node, lease: Lease, refused: Sequence[RefusedClass]
) -> list[Dispatch] | None:
    """Put a job back to be encoded in a form that is taken; None where there is no other.

    There is none when the other form was refused as well, when a viewer there would show it
    wrongly, or when another destination has the object already: one job has one object of each
    kind, because one UID means one object wherever it lies.
    """
    with node.database.session() as session:
        known = accepted_by(session, {one.destination for one in refused})
        has = _stored_elsewhere(session, lease.job_id, refused)
        chosen = [one for one in refused if one.kind not in has and _has_other(node, one, known)]
        for one in refused:
            record_refusal(session, one.destination, one.sop_class_uid, node.now())
        job = session.get_one(Job, lease.job_id)
        if not chosen or not job.identifiers:
            return None
        kinds = sorted({kind for one in chosen for kind in _CHANGING[one.kind]})
        identifiers = ResultIdentifiers.from_json(dict(job.identifiers))
        redraw_identifiers(session, lease, identifiers.anew(*kinds).as_json())
        words = "; ".join(
            f"{one.destination} takes no {name_of_uid(one.sop_class_uid)}: written anew as "
            f"{name_of_uid(_OTHER[one.sop_class_uid])}, if what was found fits into it"
            for one in chosen
        )
        note_event(session, lease.job_id, words, node.now(), level="warning")
        advance(session, lease, JobState.ENCODING, node.now(), words[:200])
        return [Dispatch(job.id, JobState.ENCODING, job.study_id, job.priority)]


def _has_other(
    node: Node, refused: RefusedClass, known: Mapping[str, Mapping[str, Collection[str]]]
) -> bool:
    other = _OTHER.get(refused.sop_class_uid)
    settings = node.settings.destination(refused.destination)
    if other is None or refused.kind not in _CHANGING or settings is None:
        return False
    if other == _SEG and settings.garbles_unaligned:
        return False  # refused is better than shown wrongly
    taken = known.get(refused.destination, {})
    # Refused before this try: then this form is the second one.
    before = refused.sop_class_uid in taken and not taken[refused.sop_class_uid]
    return not before and (other not in taken or bool(taken[other]))


def _stored_elsewhere(session: Session, job_id: int, refused: Sequence[RefusedClass]) -> set[str]:
    """Return the kinds of refused objects that some destination has stored."""
    stored = {DeliveryState.SENT, DeliveryState.CONFIRMED}
    return {
        result.kind
        for result in results_of(session, job_id)
        if result.kind in {one.kind for one in refused}
        and any(delivery.state in stored for delivery in result.deliveries)
    }
