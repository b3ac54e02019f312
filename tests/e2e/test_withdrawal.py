"""Results that were withdrawn: findscu and getscu get the rejection note and nothing of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread

from deploy.demo_pacs import LOOPBACK
from tests.e2e.peers import dcmtk, need
from tests.workflows.test_listener import listening
from tests.workflows.test_withdrawal import encoded
from workflows.delivery import deliver_job
from workflows.node import Node

FINDSCU, GETSCU = Path("/usr/bin/findscu"), Path("/usr/bin/getscu")
KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"

pytestmark = pytest.mark.e2e


def _got(program: Path, port: int, folder: Path, study: str, *more: str) -> list[str]:
    """Ask for all series of a study, or get all objects; return their modalities."""
    folder.mkdir()
    level = "SERIES" if program is FINDSCU else "STUDY"
    done = dcmtk(program, "-S", "-aet", "READER", "-aec", "UNIBIOMED", "-od", folder, *more,
                 "-k", f"QueryRetrieveLevel={level}", "-k", f"StudyInstanceUID={study}",
                 *(("-k", "Modality") if program is FINDSCU else ()),
                 LOOPBACK, str(port))  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return sorted(str(dcmread(path).Modality) for path in folder.iterdir())


def _withdraw(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.cli", "jobs", "withdraw", "1", *arguments]
    return subprocess.run(
        [*command, "--home", str(node.home.root)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_withdrawn_results_are_neither_found_nor_retrieved(tmp_path: Path) -> None:
    need(FINDSCU, GETSCU)
    everything = ["echo", "store", "query", "retrieve"]
    node = encoded(
        tmp_path, [], node={"host": LOOPBACK, "port": 0},
        listener={"stop_timeout_seconds": 3.0},
        peers=[{"name": "reader", "ae_title": "READER", "allow": everything}],
    )  # fmt: skip
    study = str(dcmread(next((tmp_path / "ct").iterdir())).StudyInstanceUID)
    images = len(list((tmp_path / "ct").iterdir()))
    deliver_job(node, 1)
    with listening(node, tmp_path / "listener.log") as (_, port):
        before = _got(FINDSCU, port, tmp_path / "1", study, "-X")
        assert before == ["CT", "SEG", "SR", "SR"]
        sent = _got(GETSCU, port, tmp_path / "2", study)
        assert sent == ["CT"] * images + ["SEG", "SR", "SR"]
        done = _withdraw(node, "--reason", "safety", "--because", "wrong patient side")
        assert done.returncode == 0, done.stderr
        assert "does not give the results out any more" in done.stdout
        assert _got(FINDSCU, port, tmp_path / "3", study, "-X") == ["CT", "KO"]
        assert _got(GETSCU, port, tmp_path / "4", study) == ["CT"] * images + ["KO"]
    (note,) = (one for one in map(dcmread, (tmp_path / "4").iterdir()) if one.Modality == "KO")
    assert note.SOPClassUID == KEY_OBJECTS
    assert note.ConceptNameCodeSequence[0].CodeValue == "113037"
    rejected = {
        one.ReferencedSOPInstanceUID
        for series in note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    results = [one for one in map(dcmread, (tmp_path / "2").iterdir()) if one.Modality != "CT"]
    assert rejected == {str(one.SOPInstanceUID) for one in results}
    assert "results.withdraw" in (node.home.log / "audit.log").read_text()
    node.database.dispose()
