"""What people accepted, mended and rejected, as training data that `learning.datasets` reads.

One folder for each target and modality, with ``images/``, ``masks/`` and ``labels.csv``; mask value
1 is the target. Volumes are NIfTI in the units that the model card asks for, pictures are PNG.
Patients are groups under names that cannot be traced back without the node's own key.
"""

from __future__ import annotations

import csv
import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import SimpleITK
import yaml
from numpy.typing import NDArray
from PIL import Image

from db.models import Job
from db.pairs import sources_of
from db.results import findings_of, results_of
from db.reviews import Review, Verdict, last_reviews, reviewed_jobs
from dicom_node.errors import DicomNodeError, FinalError
from dicom_node.objects.pixels import PixelValues, read_pixels
from dicom_node.objects.references import frame_references
from dicom_node.objects.segmentation_reading import SegmentationRead, read_segmentation
from dicom_node.objects.series import Source, read_sources
from inference import intensity
from workflows.node import Node

__all__ = ["Exported", "export_in_steps", "export_reviews"]

_COLUMNS: Final = (
    "image", "mask", "modality", "targets_present", "image_class", "group", "width", "height",
    "source_file", "note",
)  # fmt: skip
_KEY_FILE: Final = "training-key"

Volume = NDArray[np.bool_]


@dataclass
class Exported:
    """What was written, and what was left out and why.

    Attributes
    ----------
    written
        Findings by folder.
    left_out
        Findings by a sentence that says why.
    """

    written: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """Findings that were looked at."""
        return self.written.total() + self.left_out.total()


@dataclass(frozen=True, eq=False, slots=True)
class _Case:
    """A job whose images are there, ready to be written with any of its masks."""

    job: Job
    group: str
    source: Source
    pixels: PixelValues
    modality: str
    segmentation: SegmentationRead | None


def export_reviews(node: Node, out: Path) -> Exported:
    """Write every finding that somebody judged.

    Accepted findings give the model's mask, edited ones the mended mask; what was rejected, and
    what was rightly not found, give an image without the target. Where a person denied that a
    target is absent nobody drew it, so there is nothing to learn from.

    Parameters
    ----------
    node
        Whose database and archive.
    out
        Folder; made when missing. Files of an earlier export are written again.

    Raises
    ------
    OSError
        The folder cannot be written.
    """
    told = Exported()
    for _ in export_in_steps(node, out, told):
        pass
    return told


def export_in_steps(node: Node, out: Path, told: Exported) -> Iterator[None]:
    """Do what `export_reviews` does, and pause after each job.

    What lies in `out` at a pause is whole, and may be taken away; what names all of it
    (``labels.csv``, ``sources.yaml``) comes at the end.

    Parameters
    ----------
    node, out
        As there.
    told
        Filled on the way.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    modalities: dict[str, tuple[str, str]] = {}
    key = _key(node)
    with node.database.reading() as session:
        job_ids = reviewed_jobs(session)
    for job_id in job_ids:
        with node.database.reading() as session:
            job = session.get(Job, job_id)
            reviews = last_reviews(session, job_id)
        if job is None:
            told.left_out["the job was deleted meanwhile"] += len(reviews)
            continue
        try:
            case = _case(node, job, key)
        except DicomNodeError as error:
            told.left_out[error.sentence] += len(reviews)
            yield
            continue
        for position, review in sorted(reviews.items()):
            try:
                mask = _mask(node, case, position, review)
            except DicomNodeError as error:
                told.left_out[error.sentence] += 1
                continue
            folder = _slug(f"{case.modality} {review.target}")
            modalities[folder] = case.modality, review.target
            rows.setdefault(folder, []).extend(_write(out / folder, case, position, review, mask))
            told.written[folder] += 1
        yield
    for folder, lines in rows.items():
        (out / folder).mkdir(parents=True, exist_ok=True)
        with (out / folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            writer.writerows(lines)
    if rows:
        _write_sources(out, modalities)


def _key(node: Node) -> bytes:
    """Return the key that makes group names; the same one for every export of this node."""
    path = node.home.root / _KEY_FILE
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(secrets.token_bytes(32))
    return path.read_bytes()


def _case(node: Node, job: Job, key: bytes) -> _Case:
    with node.database.reading() as session:
        instances = sources_of(session, job.id)
        results = results_of(session, job.id)
        study = session.get_one(Job, job.id).study
        patient = study.patient_id or study.study_instance_uid
    paths = [node.archive.absolute(one.path) for one in instances]
    if not all(path.exists() for path in paths):
        raise FinalError("the images were deleted by retention")
    sources, _ = read_sources(paths)
    uids = tuple(one.sop_instance_uid for one in instances)
    frames = tuple(job.frame_numbers)
    same = [one for one in sources if (one.sop_instance_uids, one.frame_numbers) == (uids, frames)]
    if not same:
        raise FinalError("the images do not form the stack any more that the job looked at")
    kept = [one for one in results if one.kind == "segmentation" and one.purged_at is None]
    modality = node.model.card.modality_for(job.modality)
    return _Case(
        job=job,
        group=hashlib.blake2b(patient.encode(), key=key, digest_size=8).hexdigest(),
        source=same[0],
        pixels=read_pixels(same[0]),
        modality=job.modality if modality is None else modality.name,
        segmentation=read_segmentation(node.archive.absolute(kept[0].path)) if kept else None,
    )


def _mask(node: Node, case: _Case, position: int, review: Review) -> Volume:
    """Return where the target is by the person's word, (frames, rows, columns).

    Raises
    ------
    FinalError
        Nobody knows.
    """
    empty = np.zeros(case.source.shape, np.bool_)
    absent = review.presence == "absent"
    if review.verdict is Verdict.REJECTED:
        if absent:
            raise FinalError("somebody sees what the model did not find, and nobody drew it")
        return empty
    if absent:
        return empty
    with node.database.reading() as session:
        numbers = {one.position: one.segment_number for one in findings_of(session, case.job.id)}
    segment = numbers.get(position)
    if case.segmentation is None or segment is None:
        raise FinalError("the segmentation was deleted by retention, or the finding has no mask")
    places = {
        (one.sop_instance_uid, one.frame_number or 1): index
        for index, one in enumerate(frame_references(case.source))
    }
    for one in case.segmentation.masks():
        if one.segment == segment:
            empty[places[one.sop_instance_uid, one.frame_number]] = one.mask
    for frame, runs in (review.edits or {}).items():
        inside = np.arange(len(runs)) % 2 == 1
        empty[int(frame)] = np.repeat(inside, runs).reshape(empty.shape[1:])
    return empty


def _write(
    folder: Path, case: _Case, position: int, review: Review, mask: Volume
) -> list[dict[str, Any]]:
    """Write the images and masks of one finding; return its lines of ``labels.csv``."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    name = f"job_{case.job.id}_{position + 1}"
    line = {
        "modality": case.modality,
        "image_class": "",
        "group": case.group,
        "width": mask.shape[2],
        "height": mask.shape[1],
        "source_file": name,
        "note": f"{review.verdict}, model {review.model_digest[:12]}",
    }
    if case.source.kind == "volume":
        image = f"images/{name}.nii.gz"
        masked = f"masks/{name}.nii.gz"
        _write_volume(folder / image, case.pixels.values.astype(np.float32), case.source)
        _write_volume(folder / masked, mask.astype(np.uint8), case.source)
        shown = f"1={review.target}" if mask.any() else ""
        return [{**line, "image": image, "mask": masked, "targets_present": shown}]
    lines = []
    for frame in _worth_learning(mask):
        image, masked = f"images/{name}_{frame + 1}.png", f"masks/{name}_{frame + 1}.png"
        Image.fromarray(_eight_bit(case.pixels, frame)).save(folder / image)
        Image.fromarray(mask[frame].astype(np.uint8)).save(folder / masked)
        shown = f"1={review.target}" if mask[frame].any() else ""
        lines.append({**line, "image": image, "mask": masked, "targets_present": shown})
    return lines


def _worth_learning(mask: Volume) -> Sequence[int]:
    """Return the frames with the target, and as many without: frames of a cine are much alike."""
    shown = np.flatnonzero(mask.any(axis=(1, 2)))
    without = np.flatnonzero(~mask.any(axis=(1, 2)))
    chosen = without[:: max(1, len(without) // max(1, len(shown)))] if len(without) else without
    return sorted({*shown.tolist(), *chosen[: max(1, len(shown))].tolist()})


def _eight_bit(pixels: PixelValues, frame: int) -> NDArray[np.uint8]:
    values = pixels.values[frame]
    if pixels.unit == "rgb":
        return np.asarray(values, np.uint8)
    low, high = pixels.window or (float(v) for v in np.percentile(values, (0.5, 99.5)))
    return intensity.to_bytes(values, low, max(high, low + 1e-6))


def _write_volume(path: Path, values: NDArray[Any], source: Source) -> None:
    image = SimpleITK.GetImageFromArray(values)
    geometry = source.geometry
    if geometry is not None:
        row, column = np.array(geometry.orientation[:3]), np.array(geometry.orientation[3:])
        tall, wide = geometry.spacing
        image.SetSpacing((wide, tall, geometry.slice_spacing or 1.0))
        image.SetOrigin([float(value) for value in geometry.positions[0]])
        image.SetDirection(np.stack([row, column, geometry.normal], axis=1).ravel().tolist())
    SimpleITK.WriteImage(image, str(path))


def _write_sources(out: Path, modalities: Mapping[str, tuple[str, str]]) -> None:
    """Write what a recipe says of these folders, to be copied into it."""
    sources = [
        {"folder": folder, "modality": modality, "targets": {f"{target}, {modality}": [1]}}
        for folder, (modality, target) in sorted(modalities.items())
    ]
    text = "# Entries for `sources` of a recipe; name the other concepts under `unknown`.\n"
    text += yaml.safe_dump({"sources": sources}, sort_keys=False)
    (out / "sources.yaml").write_text(text, encoding="utf-8")


def _slug(words: str) -> str:
    return "reviews_" + re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")
