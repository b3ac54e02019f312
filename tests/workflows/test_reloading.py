"""The configuration is read again by workers, too, when an administrator says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dicom_node.services.tls import client_context
from tests.factories.certificates import make_certificate
from tests.workflows.whole_node import make_node, write_home
from workflows.carriers import DimseCarrier, WebCarrier, carrier_of
from workflows.network import destination_of
from workflows.process import WorkerProcess
from workflows.reloading import ask_to_reload
from workflows.settings import load


def test_a_worker_takes_up_new_destinations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_node(tmp_path / "home")
    home = made.home
    made.database.dispose()
    monkeypatch.setenv("UNIBIOMED_HOME", str(home.root))
    process = WorkerProcess()
    before = process.node
    values = yaml.safe_load(home.node_yaml.read_text())
    values["destinations"] = [{"name": "pacs", "ae_title": "P", "host": "h", "port": 104}]
    home.node_yaml.write_text(yaml.safe_dump(values))
    assert process.node is before, "not before it is told"
    ask_to_reload(home)
    assert process.node.settings.destination("pacs") is not None
    assert process.node.database is before.database
    home.node_yaml.write_text("destinations: everywhere")
    ask_to_reload(home)
    assert process.node.settings.destination("pacs") is not None, "a mistake changes nothing"
    before.database.dispose()


def test_certificates_of_destinations_lie_in_the_nodes_folder(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "tls"
    for name in ("node", "pacs"):
        make_certificate(folder, name)
    home = write_home(
        tmp_path / "home",
        tls={"certificate": "tls/node.pem", "key": "tls/node.key", "profile": "tls13"},
        destinations=[
            {"name": "pacs", "ae_title": "P", "host": "h", "port": 2762, "tls": True,
             "certificate": "tls/pacs.pem", "tls_profile": "bcp195-nd"},
            {"name": "plain", "ae_title": "Q", "host": "h", "port": 104},
            {"name": "web", "url": "https://h/dicom-web", "certificate": "tls/pacs.pem"},
        ],
    )  # fmt: skip
    settings = load(home.node_yaml)
    secure, plain, web = settings.destinations
    tls = destination_of(secure, settings.tls).tls  # type: ignore[arg-type]
    assert tls is not None
    assert (tls.pinned, tls.profile) == ((folder / "pacs.pem",), "bcp195-nd")
    assert tls.certificate == folder / "node.pem"
    assert not client_context(tls).check_hostname
    assert destination_of(plain, settings.tls).tls is None  # type: ignore[arg-type]
    assert isinstance(carrier_of(plain, settings), DimseCarrier)
    assert isinstance(carrier_of(web, settings), WebCarrier)
