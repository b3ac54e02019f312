"""Relevant priors: earlier studies of the same patient and modality, kept with a job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from db.jobs import note_event
from db.models import Job
from dicom_node.errors import FinalError, RetriableError
from dicom_node.incoming import valid_uid
from dicom_node.objects.headers import UnreadableError, read_header
from dicom_node.services.retrieve_scu import FoundStudy, studies_of_patient
from workflows.destination_settings import AeDestinationSettings
from workflows.network import destination_of
from workflows.node import Node
from workflows.own_moves import take_away
from workflows.prior_fetching import PriorSource

_MANIFEST: Final = "priors.json"


def priors_folder(node: Node, job_id: int) -> Path:
    """Return where a job's priors lie: one folder for each study."""
    return node.home.work_folder(job_id) / "priors"


def priors_of(node: Node, job_id: int) -> dict[str, list[Path]]:
    """Return a job's priors, newest first: Study Instance UID to files."""
    folder = priors_folder(node, job_id)
    try:
        studies = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {uid: sorted((folder / uid).glob("*.dcm")) for uid in studies}


def priors_as_json(node: Node, job_id: int) -> list[dict[str, Any]]:
    """Tell a job's priors to people and programs: study, its date, and how many images are kept."""
    told = []
    for uid, files in priors_of(node, job_id).items():
        header = None
        if files:
            with suppress(UnreadableError):
                header = read_header(files[0]).dataset
        told.append(
            {
                "study_instance_uid": uid,
                "study_date": "" if header is None else str(header.get("StudyDate") or ""),
                "study_description": ""
                if header is None
                else str(header.get("StudyDescription") or ""),
                "images": len(files),
            }
        )
    return told


def fetch_priors(node: Node, job_id: int) -> None:
    """Fetch what ``priors`` in ``node.yaml`` asks for, once for each job.

    A PACS that is away or refuses holds up no job: it is noted there, and the job goes on without.
    """
    settings = node.settings.priors
    source = node.settings.destination(settings.destination) if settings.destination else None
    folder = priors_folder(node, job_id)
    if not isinstance(source, AeDestinationSettings) or (folder / _MANIFEST).exists():
        return
    with node.database.reading() as session:
        job = session.get_one(Job, job_id)
        patient_id, modality = job.study.patient_id, job.modality
        present = FoundStudy(
            job.study.study_instance_uid, job.study.study_date, job.study.study_time,
            frozenset({modality}),
        )  # fmt: skip
    if not patient_id:
        return
    there, ours = destination_of(source, node.settings.tls), node.settings.node.ae_title
    fetched: list[str] = []
    ways: set[str] = set()
    remarks: list[str] = []
    try:
        known = studies_of_patient(there, ours, patient_id)
        priors = PriorSource(node, source, job_id)
        for study in relevant(known, present, settings.most):
            with _emptied_without(folder / study.study_instance_uid) as target:
                got = priors.fetch(study.study_instance_uid, target)
            remarks += [got.remark] if got.remark else []
            if got.images:
                fetched.append(study.study_instance_uid)
                ways.add(got.way)
    except (RetriableError, FinalError) as error:
        remarks.append(error.sentence)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MANIFEST).write_text(json.dumps(fetched), encoding="utf-8")
    said = f"{len(fetched)} priors were fetched from {source.name}"
    if fetched:
        said += f" by {' and '.join(sorted(ways))}"
    elif remarks:
        said = "it goes on without priors"
    with node.database.session() as session:
        note_event(
            session,
            job_id,
            ": ".join([said, "; ".join(remarks)] if remarks else [said]),
            node.now(),
            level="warning" if remarks else "info",
        )


@contextmanager
def _emptied_without(folder: Path) -> Iterator[Path]:
    """Give a folder that is there, and take it away if nothing came, or not to the end."""
    # What an attempt before left there may be of another day.
    take_away(folder)
    folder.mkdir(parents=True)
    is_whole = False
    try:
        yield folder
        is_whole = any(folder.iterdir())
    finally:
        if not is_whole:
            take_away(folder)


def relevant(known: list[FoundStudy], present: FoundStudy, most: int) -> list[FoundStudy]:
    """Choose the newest studies before the present one that have its modality."""
    moment = (present.study_date, present.study_time)
    earlier = [
        study
        for study in known
        if study.study_instance_uid != present.study_instance_uid
        and valid_uid(study.study_instance_uid)
        and present.modalities & study.modalities
        and study.study_date
        and (not present.study_date or (study.study_date, study.study_time) < moment)
    ]
    newest = sorted(earlier, key=lambda one: (one.study_date, one.study_time), reverse=True)
    return newest[:most]
