"""The archive's studies and series as pages: the way to any image, also where no rule took it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from starlette.responses import RedirectResponse, Response

from dashboard.access import NodeOf, Operator, Viewer
from dashboard.auditing import note
from dashboard.frames import FrameUnavailableError
from dashboard.rendering import render
from dashboard.scenes import series_scene
from dashboard.stacks import sources_of_series
from dashboard.viewer_api import KEPT, ImagesOf, Number, frame_response
from db.models import Job, Series
from db.studies import list_studies, series_of, series_of_job, series_with_images, study_of
from dicom_node.objects.series import Source
from workflows.node import Node

router = APIRouter()


@router.get("/studies", include_in_schema=False)
def studies_page(
    request: Request,
    node: NodeOf,
    actor: Viewer,
    search: Annotated[str, Query(max_length=128)] = "",
    before: Annotated[int | None, Query(ge=0, le=2**53)] = None,
) -> Response:
    """List the studies of the archive, newest first."""
    with node.database.reading() as session:
        page = list_studies(session, search=search, before=before)
    with node.database.session() as session:
        note(session, request, "studies.list", searched=bool(search))
    return render(request, "studies.html", page=page, search=search)


@router.get("/studies/{study_id}", include_in_schema=False)
def study_page(request: Request, node: NodeOf, actor: Viewer, study_id: Number) -> Response:
    """Show the series of a study."""
    with node.database.reading() as session:
        study = study_of(session, study_id)
        series = series_of(session, study_id)
        imaged = series_with_images(session, study_id)
    if study is None:
        raise HTTPException(404)
    with node.database.session() as session:
        note(session, request, "study.view", target=f"study {study_id}")
    return render(request, "study.html", study=study, series=series, imaged=imaged)


@router.get("/series/{series_id}", include_in_schema=False)
def series_page(
    request: Request,
    node: NodeOf,
    actor: Viewer,
    series_id: Number,
    part: Annotated[int, Query(ge=0, le=10_000)] = 0,
) -> Response:
    """Show one part of a series, and ask the model about it."""
    series, sources = series_with_parts(node, series_id)
    if part >= len(sources):
        raise HTTPException(404, f"This series has {len(sources)} parts.")
    with node.database.reading() as session:
        study = study_of(session, series.study_id)
    with node.database.session() as session:
        note(session, request, "images.view", target=f"series {series_id}")
    modality = node.model.card.modality_for(sources[part].modality)
    return render(
        request,
        "series.html",
        study=study,
        series=series,
        part=part,
        parts=[_part_words(source) for source in sources],
        notes=sources[part].notes,
        targets=targets_for(node, sources[part].modality),
        modality=None if modality is None else modality.name,
        destinations=[one.name for one in node.settings.destinations],
    )


def series_with_parts(node: Node, series_id: int) -> tuple[Series, list[Source]]:
    """Return a series and the parts it consists of; 404 where none can be looked at."""
    try:
        series, sources, _ = sources_of_series(node, series_id)
    except FrameUnavailableError as error:
        raise HTTPException(404, error.sentence[:1].upper() + error.sentence[1:]) from error
    return series, sources


def _part_words(source: Any) -> str:
    frames, rows, columns = source.shape
    what = "slices" if source.kind == "volume" else "images" if frames > 1 else "image"
    return f"{frames} {what}, {columns} x {rows}"


def targets_for(node: Node, dicom_modality: str) -> list[str]:
    """Return what the model's card lists for such images."""
    return [target.name for target in node.model.targets_for(dicom_modality)]


@router.get("/jobs/{job_id}/ask", include_in_schema=False)
def ask_about_job(node: NodeOf, actor: Operator, job_id: Number) -> Response:
    """Go to the series that a job looked at."""
    with node.database.reading() as session:
        job = session.get(Job, job_id)
        series: Series | None = None if job is None else series_of_job(session, job)
    if series is None:
        raise HTTPException(404, "This job has no series (yet) that could be asked about.")
    return RedirectResponse(f"/series/{series.id}", 303)


@router.get("/api/series/{series_id}/parts/{part}/scene", tags=["images"])
def scene(
    request: Request, node: NodeOf, images: ImagesOf, actor: Viewer, series_id: Number, part: Number
) -> Any:
    """Describe one part of a series in the archive, with the address of its frames."""
    with node.database.session() as session:
        note(session, request, "images.view", target=f"series {series_id}")
    return series_scene(images.stack_of_series(series_id, part), series_id, part)


@router.get(
    "/api/series/{series_id}/parts/{part}/frames/{index}", tags=["images"], response_class=Response
)
def frame(
    request: Request,
    images: ImagesOf,
    actor: Viewer,
    series_id: Number,
    part: Number,
    index: Number,
) -> Response:
    """Return the values of one frame; ``X-Frame`` (JSON) says how to read them."""
    return frame_response(request, images, images.stack_of_series(series_id, part), index)


@router.get("/api/series/{series_id}/picture.png", tags=["images"], response_class=Response)
def picture(
    images: ImagesOf,
    actor: Viewer,
    series_id: Number,
    side: Annotated[int, Query(ge=16, le=512)] = 128,
) -> Response:
    """Return the middle slice of a series as PNG."""
    drawn = images.picture_of_series(series_id, 0, side)
    return Response(drawn.body, media_type="image/png", headers=KEPT)
