"""What the viewer's scripts must know of a job, a series or an answer, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from dashboard.images import Images, segmentation_of
from dashboard.stacks import Stack
from db.models import FindingRecord, Job
from db.questions import AskedQuestion
from db.results import findings_of
from db.reviews import last_reviews, review_as_json
from dicom_node.errors import DicomNodeError
from dicom_node.objects.measurements import Measurements
from dicom_node.objects.report_narrative import spoken
from workflows.node import Node

__all__ = [
    "answer_scene",
    "first_frame",
    "job_scene",
    "measured_words",
    "scene_of_page",
    "series_scene",
]

_VOLUME: Final = "volume"


def job_scene(node: Node, images: Images, job_id: int) -> dict[str, Any]:
    """Describe a job to the viewer.

    Raises
    ------
    FrameUnavailableError
        There is no such job, or its images are gone.
    """
    stack = images.stack_of_job(job_id)
    segmentation = segmentation_of(node, job_id)
    with node.database.reading() as session:
        found = [_of_record(one) for one in findings_of(session, job_id)]
        last = last_reviews(session, job_id)
        job = session.get(Job, job_id)
    named = None if job is None else node.configuration.rules.rule(job.rule)
    newest = max((review.id for review in last.values()), default=0)
    findings = _findings(found, len(stack.places))
    for finding in findings:
        review = last.get(finding["position"])
        present = [finding["target"]] if finding["presence"] == "present" else []
        finding["critical"] = bool(named and named.critical_of(present))
        finding["review"] = None if review is None else review_as_json(review)
    digest = "" if segmentation is None else segmentation.sha256
    return {
        **_stack(stack, f"/api/jobs/{job_id}", findings),
        "masks_url": f"/api/jobs/{job_id}/masks?of={digest[:16]}" if digest else None,
        "version": f"{digest[:16]}-{len(findings)}-{len(stack.places)}-{newest}",
    }


def scene_of_page(node: Node, images: Images, job_id: int) -> dict[str, Any] | None:
    """Describe a job to the viewer within its page; None where the viewer has to ask why not."""
    try:
        return job_scene(node, images, job_id)
    except DicomNodeError:
        return None


def first_frame(scene: Mapping[str, Any] | None, asked: str) -> tuple[int, str] | tuple[None, None]:
    """Return the index and the address of the frame that the viewer shows first.

    Parameters
    ----------
    scene
        Of the page.
    asked
        The number of a slice in the page's address, from 1; anything else asks for none.

    Returns
    -------
    tuple
        Of None where there are no images.
    """
    if scene is None or not scene["frames"]:
        return None, None
    index: int = scene["start"]
    if asked.isascii() and asked.isdecimal():
        index = min(scene["frames"], max(1, int(asked[:9]))) - 1
    return index, scene["frames_url"].format(frame=index)


def series_scene(stack: Stack, series_id: int, number: int) -> dict[str, Any]:
    """Describe a part of a series to the viewer, without any finding."""
    address = f"/api/series/{series_id}/parts/{number}"
    return {**_stack(stack, address, []), "masks_url": None, "version": "images"}


def answer_scene(question: AskedQuestion, frames: int) -> dict[str, Any]:
    """Describe what an answer adds to the scene of its series."""
    findings = _findings(question.findings or [], frames)
    masks = f"/api/questions/{question.id}/masks"
    any_mask = any(one["segment_number"] for one in findings)
    return {"findings": findings, "masks_url": masks if any_mask else None}


def _stack(stack: Stack, address: str, findings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    count = len(stack.places)
    keys = [one["key_frame"] for one in findings if one["key_frame"] is not None]
    return {
        "name": stack.name,
        "modality": stack.modality,
        "volume": stack.kind == _VOLUME,
        "frames": count,
        "start": keys[0] if keys else count // 2 if stack.kind == _VOLUME else 0,
        "frames_url": f"{address}/frames/{{frame}}",
        "findings": list(findings),
    }


def _of_record(finding: FindingRecord) -> dict[str, Any]:
    names = (
        "target", "text", "phrase", "prompt", "presence", "confidence", "predicted_iou",
        "key_frame", "segment_number", "measurements",
    )  # fmt: skip
    return {name: getattr(finding, name) for name in names}


def _findings(found: Sequence[Mapping[str, Any]], frames: int) -> list[dict[str, Any]]:
    """Return findings as the viewer and the page take them, in their order."""
    told = []
    for position, one in enumerate(found):
        key = one["key_frame"]
        measurements = one["measurements"] or {}
        told.append(
            {
                **one,
                "position": position,
                "key_frame": key if key is not None and key < frames else None,
                "measured": measured_words(measurements),
                "axes": _axes(measurements),
                "measurements": measurements,
            }
        )
    return told


def measured_words(measurements: Mapping[str, Any]) -> list[str]:
    """Return measurements as words with units, and the notes that limit them."""
    if not measurements:
        return []
    measured = Measurements.from_json(dict(measurements))
    words = spoken(measured)
    if measured.unit is not None and measured.standard_deviation is not None:
        words.append(
            f"SD {measured.standard_deviation:.3g}, "
            f"{measured.minimum:.4g} to {measured.maximum:.4g} {measured.unit}"
        )
    return [word.replace("cm3", "cm³") for word in (*words, *measured.notes)]


def _axes(measurements: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the axes on the key frame: ends as (column, row), pixel edges at whole numbers."""
    axes = [measurements.get(name) for name in ("long_axis", "short_axis")]
    return [{"start": axis["start"], "end": axis["end"]} for axis in axes if axis]
