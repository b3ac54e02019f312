"""Images, masks, pictures and result objects: what the viewer asks for while somebody reads.

Frames may be kept by the browser of the person who read them, but are asked for again each time
(``no-cache`` with an ETag): whoever logs in next on that computer gets nothing without a role.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from starlette.responses import FileResponse, Response

from dashboard.access import NodeOf, Viewer
from dashboard.auditing import note
from dashboard.frames import PackedFrame
from dashboard.images import Images, images_of
from dashboard.scenes import job_scene
from dashboard.stacks import Stack
from db.models import ResultRecord
from db.results import results_of
from db.withdrawals import has_withdrawn
from dicom_node.objects.report_tree import report_tree
from workflows.node import Node
from workflows.report_page import NoReportError

router = APIRouter(prefix="/api", tags=["images"])

ImagesOf = Annotated[Images, Depends(images_of)]
Number = Annotated[int, Path(ge=0, le=2**53)]
KEPT: Final = {"Cache-Control": "private, no-cache"}
_MOST_PIXELS: Final = 1024


@router.get("/jobs/{job_id}/scene")
def scene(request: Request, node: NodeOf, images: ImagesOf, actor: Viewer, job_id: Number) -> Any:
    """Describe the images and findings of a job, with the addresses of frames and masks."""
    _audited(node, request, "images.view", f"job {job_id}")
    return job_scene(node, images, job_id)


@router.get("/jobs/{job_id}/frames/{index}", response_class=Response)
def frame(
    request: Request, images: ImagesOf, actor: Viewer, job_id: Number, index: Number
) -> Response:
    """Return the values of one frame; ``X-Frame`` (JSON) says how to read them."""
    return frame_response(request, images, images.stack_of_job(job_id), index)


def frame_response(request: Request, images: Images, stack: Stack, index: int) -> Response:
    """Answer with a frame, or with 304 where the browser has it."""
    if 0 <= index < len(stack.places):
        etag = stack.places[index].etag
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={**KEPT, "ETag": etag})
    packed: PackedFrame = images.frame(stack, index)
    headers = {
        **KEPT,
        "ETag": stack.places[index].etag,
        "X-Frame": json.dumps(packed.described, ensure_ascii=True),
    }
    if packed.encoding:
        headers["Content-Encoding"] = packed.encoding
    return Response(packed.body, media_type="application/octet-stream", headers=headers)


@router.get("/jobs/{job_id}/masks", response_class=Response)
def masks(images: ImagesOf, actor: Viewer, job_id: Number) -> Response:
    """Return all masks of a job as run lengths: see `dashboard.masks`."""
    return packed_masks(images.masks_of_job(job_id).body)


def packed_masks(body: bytes) -> Response:
    """Answer with a document of masks."""
    return Response(
        body, media_type="application/octet-stream", headers={"Content-Encoding": "deflate"}
    )


@router.get("/jobs/{job_id}/picture.png", response_class=Response)
def picture(
    request: Request,
    node: NodeOf,
    images: ImagesOf,
    actor: Viewer,
    job_id: Number,
    side: Annotated[int, Query(ge=16, le=_MOST_PIXELS)] = 128,
) -> Response:
    """Return the slice that shows the first mask best, with all masks on it, as PNG."""
    drawn = images.picture_of_job(job_id, side)
    if side > 256:  # a picture in a list is a sign, not a look; the list itself is audited
        _audited(node, request, "images.view", f"job {job_id}")
    return Response(drawn.body, media_type="image/png", headers=KEPT)


@router.get("/jobs/{job_id}/report.pdf", response_class=Response)
def report_pdf(
    request: Request, node: NodeOf, images: ImagesOf, actor: Viewer, job_id: Number
) -> Response:
    """Return the report of a job as PDF, with a picture of each finding's key slice."""
    with node.database.reading() as session:
        if has_withdrawn(session, job_id):
            raise HTTPException(410, "The results of this job were withdrawn.")
    try:
        page = images.report_of_job(job_id)
    except NoReportError as error:
        raise HTTPException(404, f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
    _audited(node, request, "result.download", f"job {job_id}, report as PDF")
    disposition = f'attachment; filename="job-{job_id}-report.pdf"'
    headers = {**KEPT, "Content-Disposition": disposition}
    return Response(page.body, media_type="application/pdf", headers=headers)


@router.get("/jobs/{job_id}/results/{position}/file", response_class=FileResponse)
def result_file(
    request: Request, node: NodeOf, actor: Viewer, job_id: Number, position: Number
) -> Response:
    """Return a result object (SEG, SR) as DICOM file."""
    result = _result(node, job_id, position)
    path = node.archive.absolute(result.path)
    _audited(node, request, "result.download", f"job {job_id}, {result.kind}")
    return FileResponse(
        path, media_type="application/dicom", filename=f"job-{job_id}-{result.kind}.dcm"
    )


@router.get("/jobs/{job_id}/results/{position}/tree")
def result_tree(
    request: Request, node: NodeOf, actor: Viewer, job_id: Number, position: Number
) -> Any:
    """Return the content tree of a Structured Report."""
    result = _result(node, job_id, position)
    if "report" not in result.kind:
        raise HTTPException(404, "This result is no Structured Report.")
    _audited(node, request, "result.view", f"job {job_id}, {result.kind}")
    return report_tree(node.archive.absolute(result.path))


def _result(node: Node, job_id: int, position: int) -> ResultRecord:
    with node.database.reading() as session:
        results = results_of(session, job_id)
    result = next((one for one in results if one.position == position), None)
    if result is None:
        raise HTTPException(404, "This job has no such result.")
    if result.withdrawal is not None:
        raise HTTPException(410, f"This object was withdrawn: {result.withdrawal.words}")
    if result.purged_at is not None or not node.archive.absolute(result.path).exists():
        raise HTTPException(
            410,
            "This object was deleted here after the time that retention in node.yaml sets; "
            "the PACS has it.",
        )
    return result


def _audited(node: Node, request: Request, action: str, target: str) -> None:
    with node.database.session() as session:
        note(session, request, action, target=target)
