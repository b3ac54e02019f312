"""A study comes in by STOW-RS, its results are found and fetched by others' programs."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import httpx
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pydicom.uid import UID, SegmentationStorage

from deploy.demo_pacs import LOOPBACK, OrthancPacs
from deploy.peer_test import try_peer
from tests.e2e.conftest import WEB_TOKEN, Node, short_study
from tests.e2e.peers import fetch, instances_of_study
from tests.orthanc import Orthanc
from tests.workflows.whole_node import write_home

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.mark.ihe("AIR", "Image Manager / Image Archive", "RAD-129", "RAD-107")
def test_a_study_in_by_stow_and_its_results_out_by_wado(
    node: Node, pacs: OrthancPacs, tmp_path: Path
) -> None:
    folder, study = short_study(tmp_path, "by the web")
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {WEB_TOKEN}"
    client = DICOMwebClient(node.ready["dicomweb"], session=session)
    client.store_instances([dcmread(path) for path in sorted(folder.iterdir())])
    node.delivered(study)
    [found] = client.search_for_studies(search_filters={"StudyInstanceUID": study})
    assert set(found["00080061"]["Value"]) == {"CT", "SEG", "SR"}
    segs = client.search_for_instances(study, search_filters={"Modality": "SEG"})
    uids = [segs[0][tag]["Value"][0] for tag in ("0020000E", "00080018")]
    fetched = client.retrieve_instance(study, *uids)
    assert fetched.SOPClassUID == SegmentationStorage
    kept = instances_of_study(pacs, study)
    at_pacs = dcmread(fetch(pacs, kept[uids[1]], tmp_path / "seg.dcm"))
    assert fetched.PixelData == at_pacs.PixelData
    frames = client.retrieve_instance_frames(study, uids[0], uids[1], [1])
    assert len(frames[0]) == fetched.Rows * fetched.Columns // 8

    # Orthanc, as the client: it asks the node, fetches the study, and stores its own there.
    if not PLUGIN.exists():
        pytest.skip("needs Orthanc's DICOMweb plug-in (see tests/outside_peers.sh)")
    options: dict[str, object] = {
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {
            "Enable": True,
            "Root": "/dicom-web/",
            "Servers": {
                "node": {
                    "Url": f"{node.ready['dicomweb']}/",
                    "HttpHeaders": {"Authorization": f"Bearer {WEB_TOKEN}"},
                }
            },
        },
    }
    with Orthanc(tmp_path / "orthanc", options) as orthanc:
        rest = f"http://{LOOPBACK}:{orthanc.http_port}"
        with httpx.Client(base_url=rest, timeout=60) as asks:
            asked = {"Uri": "/studies", "Arguments": {"StudyInstanceUID": study}}
            answer = asks.post("/dicom-web/servers/node/qido", json=asked)
            assert study in answer.text, answer.text
            wanted = {"Resources": [{"Study": study}]}
            answer = asks.post("/dicom-web/servers/node/retrieve", json=wanted)
            assert answer.status_code == 200, answer.text
            assert set(instances_of_study(orthanc, study)) == set(kept) | {
                str(dcmread(path).SOPInstanceUID) for path in folder.iterdir()
            }
            image = dcmread(sorted(folder.iterdir())[0])
            image.StudyInstanceUID, image.SeriesInstanceUID = "2.25.901", "2.25.902"
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = UID("2.25.903")
            out = BytesIO()
            image.save_as(out)
            own = asks.post("/instances", content=out.getvalue()).json()["ID"]
            answer = asks.post("/dicom-web/servers/node/stow", json={"Resources": [own]})
            assert answer.status_code == 200, answer.text
        there = {"name": "web", "url": f"{rest}/dicom-web"}
        home = write_home(tmp_path / "other", destinations=[there])
        steps = list(try_peer(home.root, "web", store=True, wait_seconds=0, say=print))
        assert [step.ok for step in steps] == [True, True, True, True, None], steps
        assert "by WADO-RS: 28 elements and all pixels are as they were sent" in steps[3].sentence
    # The node may have interpreted it by now: then the series of its results are there, too.
    series = client.search_for_series("2.25.901")
    assert {one["0020000D"]["Value"][0] for one in series} == {"2.25.901"}
    assert "2.25.902" in {one["0020000E"]["Value"][0] for one in series}
