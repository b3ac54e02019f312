"""What people make of findings: accept, edit, reject; and how often they agree with the model."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import numpy as np
from fastapi import APIRouter, HTTPException, Path, Request
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from dashboard.access import NodeOf, Operator, Viewer
from dashboard.auditing import note
from dashboard.images import segmentation_of
from dashboard.masks import mask_of_runs
from dashboard.rendering import render
from dashboard.viewer_api import ImagesOf, Number
from db.results import findings_of
from db.reviews import (
    ReviewError,
    Verdict,
    add_review,
    agreement,
    last_reviews,
    review_as_json,
)
from dicom_node.objects.segmentation_reading import read_segmentation
from workflows.node import Node

router = APIRouter(tags=["reviews"])

_MOST_FRAMES: Final = 4000
_MOST_RUNS: Final = 200_000
Runs = Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Field(max_length=_MOST_RUNS)]


class Judged(BaseModel):
    """A verdict on the finding as the model gave it."""

    model_config = ConfigDict(extra="forbid")

    verdict: Literal[Verdict.ACCEPTED, Verdict.REJECTED]
    remark: Annotated[str, Field(max_length=2000)] = ""


class Edited(BaseModel):
    """A mended mask. `edits`: run lengths by index of the frame."""

    model_config = ConfigDict(extra="forbid")

    verdict: Literal[Verdict.EDITED]
    remark: Annotated[str, Field(max_length=2000)] = ""
    edits: Annotated[
        dict[Annotated[str, Field(pattern=r"^[0-9]{1,6}$")], Runs],
        Field(
            min_length=1,
            max_length=_MOST_FRAMES,
            json_schema_extra={"additionalProperties": False},
        ),
    ]


Said = Annotated[Judged | Edited, Field(discriminator="verdict")]


@router.post("/api/jobs/{job_id}/findings/{position}/review")
def review(
    request: Request,
    node: NodeOf,
    images: ImagesOf,
    actor: Operator,
    job_id: Number,
    position: Annotated[int, Path(ge=0, le=100_000)],
    said: Said,
) -> Any:
    """Keep what the person who asks makes of a finding; earlier verdicts stay as history."""
    dice, edits = None, None
    if isinstance(said, Edited):
        edits, keys = said.edits, images.stack_of_job(job_id).keys
        if any(int(frame) >= len(keys) for frame in edits):
            raise HTTPException(409, f"This job has {len(keys)} slices.")
        dice = _dice_of_edits(node, keys, job_id, position, edits)
    try:
        with node.database.session() as session:
            kept = add_review(
                session,
                job_id=job_id,
                position=position,
                verdict=said.verdict,
                account=actor.name,
                now=node.now(),
                remark=said.remark,
                dice=dice,
                edits=edits,
            )
            note(
                session,
                request,
                "finding.review",
                target=f"job {job_id}",
                finding=position,
                verdict=str(said.verdict),
            )
            return review_as_json(kept)
    except ReviewError as error:
        raise HTTPException(404, str(error)) from error


def _dice_of_edits(
    node: Node,
    keys: list[tuple[str, int]],
    job_id: int,
    position: int,
    edits: dict[str, list[int]],
) -> float:
    """Return the overlap of the edited mask with the model's, 0..1; checks the runs.

    Raises
    ------
    HTTPException
        The finding has no mask, or the runs do not fit the frames.
    """
    result = segmentation_of(node, job_id)
    with node.database.reading() as session:
        numbers = {one.position: one.segment_number for one in findings_of(session, job_id)}
    segment = numbers.get(position)
    if result is None or segment is None:
        raise HTTPException(409, "This finding has no mask that could be edited.")
    read = read_segmentation(node.archive.absolute(result.path))
    try:
        edited = {
            int(frame): mask_of_runs(runs, read.rows, read.columns) for frame, runs in edits.items()
        }
    except ValueError as error:
        raise HTTPException(409, f"The edited mask does not fit: {error}.") from error
    places = {key: index for index, key in enumerate(keys)}
    model: dict[int, NDArray[np.bool_]] = {
        places[key]: one.mask
        for one in read.masks()
        if one.segment == segment and (key := (one.sop_instance_uid, one.frame_number)) in places
    }
    shared = before = after = 0
    for frame in model.keys() | edited.keys():
        old = model.get(frame)
        new = edited.get(frame, old)
        before += 0 if old is None else int(old.sum())
        after += 0 if new is None else int(new.sum())
        if old is not None and new is not None:
            shared += int(np.logical_and(old, new).sum())
    return 2.0 * shared / (before + after) if before + after else 1.0


@router.get("/api/jobs/{job_id}/reviews")
def reviews(node: NodeOf, actor: Viewer, job_id: Number) -> Any:
    """Return the verdict that counts for each finding of a job, by its position."""
    with node.database.reading() as session:
        return {key: review_as_json(one) for key, one in last_reviews(session, job_id).items()}


@router.get("/api/agreement")
def agreement_json(node: NodeOf, actor: Viewer) -> Any:
    """Return how people agree with the model, target by target."""
    with node.database.reading() as session:
        return [
            {
                "target": one.target,
                "accepted": one.accepted,
                "edited": one.edited,
                "rejected": one.rejected,
                "mean_dice": one.mean_dice,
            }
            for one in agreement(session)
        ]


@router.get("/agreement", include_in_schema=False)
def agreement_page(request: Request, node: NodeOf, actor: Viewer) -> Response:
    """Show how people agree with the model, target by target."""
    with node.database.reading() as session:
        rows = agreement(session)
    return render(request, "agreement.html", rows=rows)
