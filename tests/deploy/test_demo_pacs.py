from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from deploy.demo_pacs import OrthancPacs, OwnPacs, find_orthanc


def echo(pacs: OrthancPacs | OwnPacs) -> int:
    caller = AE(ae_title="TEST")
    caller.add_requested_context(Verification)
    caller.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    association = caller.associate("127.0.0.1", pacs.port, ae_title=pacs.ae_title)
    try:
        assert association.is_established
        wanted = Dataset()
        wanted.QueryRetrieveLevel = "IMAGE"
        wanted.StudyInstanceUID = "1.2"
        wanted.SeriesInstanceUID = "1.2.3"
        wanted.SOPInstanceUID = ""
        answers = association.send_c_find(wanted, StudyRootQueryRetrieveInformationModelFind)
        assert [status.Status for status, _ in answers] == [0]
        return int(association.send_c_echo().Status)
    finally:
        association.release()


def test_the_own_pacs_answers(tmp_path: Path) -> None:
    with OwnPacs(tmp_path) as pacs:
        assert echo(pacs) == 0


def test_orthanc_answers_and_can_be_stopped_and_started(tmp_path: Path) -> None:
    program = find_orthanc()
    if program is None:
        pytest.skip("Orthanc is not installed")
    with OrthancPacs(tmp_path, program) as pacs:
        assert echo(pacs) == 0
        pacs.stop()
        pacs.start()
        assert echo(pacs) == 0
