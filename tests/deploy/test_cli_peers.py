"""Peers on the command line: added, listed, tried."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
import yaml
from pydicom.uid import SecondaryCaptureImageStorage
from typer.testing import CliRunner

from db import catalog
from db.session import Database
from deploy.cli import app
from deploy.demo_pacs import LOOPBACK, OwnPacs
from deploy.peer_read_back import object_to_store, read_back
from dicom_node.services.events import AssociationEnded
from tests.databases import START
from tests.factories.certificates import make_certificate
from tests.workflows.pacs import Pacs
from workflows.callers import Callers
from workflows.carriers import carrier_of
from workflows.home import Home
from workflows.reloading import Reloading
from workflows.settings import load


def call(home: Home, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments, "--home", str(home.root)])
    return result.exit_code, result.output


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make_folders()
    home.write_defaults()
    return home


def heard(home: Home, calling: str, host: str = LOOPBACK) -> None:
    callers = Callers(home.callers_json, lambda: datetime.now(UTC))
    callers.note(
        AssociationEnded(
            "a", calling, "UNIBIOMED", host, frozenset(), 0, 0, 0, 0, 0, "released", 0.1
        )
    )
    callers.write()


def test_a_peer_is_added_and_the_comments_stay(home: Home) -> None:
    reloading = Reloading(home)
    before = home.node_yaml.read_text()
    code, said = call(
        home, "peers", "add", "CT 1", "CT1", "--host", "10.0.0.0/24", "--allow", "store",
        "--max-associations", "3",
    )  # fmt: skip
    assert (code, said) == (0, "CT 1 (CT1) may talk to this node.\n")
    peer = load(home.node_yaml).peers[0]
    assert (peer.ae_title, peer.host, peer.allow) == ("CT1", "10.0.0.0/24", ("store",))
    assert peer.max_associations == 3
    lost = set(before.splitlines()) - set(home.node_yaml.read_text().splitlines())
    assert lost == {"peers: []"}
    assert reloading.is_asked() and not reloading.is_asked()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("CT 1", "TOO_LONG_AN_AE_TITLE"), "16 characters"),
        (("CT 1", "CT1", "--host", "10.0.0.1/24"), "is not a network"),
        (("CT 1", "CT1", "--requires-tls"), "set tls.port"),
        (("CT 1", "CT1", "--allow", "everything"), "allow"),
    ],
)
def test_a_mistake_changes_nothing(home: Home, arguments: tuple[str, ...], words: str) -> None:
    before = home.node_yaml.read_text()
    code, said = call(home, "peers", "add", *arguments)
    assert code == 2
    assert words in said and "Nothing was changed" in said
    assert home.node_yaml.read_text() == before


def test_the_list_tells_what_was_heard(home: Home, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "ct", days=3)
    home.node_yaml.write_text(
        yaml.safe_dump(
            {
                "tls": {"port": 0, "certificate": str(certificate.path),
                        "key": str(certificate.key_path)},
                "peers": [
                    {"name": "ct", "ae_title": "CT1", "certificate": str(certificate.path)},
                    {"name": "other", "ae_title": "CT2", "host": "10.0.0.1"},
                ],
                "destinations": [{"name": "pacs", "ae_title": "P", "host": "h", "port": 104}],
            }
        )
    )  # fmt: skip
    heard(home, "CT1", "10.9.9.9")
    heard(home, "CT2", "10.0.0.2")
    database = Database(f"sqlite:///{home.database}")
    database.upgrade()
    with database.session() as session:
        catalog.add_refusal(
            session, calling_ae_title="X", called_ae_title="UNIBIOMED", peer_host="10.0.0.7",
            reason="1/1/3", sentence="AE title X is not listed.", now=START,
        )  # fmt: skip
    database.dispose()
    code, said = call(home, "peers", "list", "--json")
    assert code == 0
    listed = json.loads(said)
    first, second = listed["peers"]
    assert first["last_call"]["host"] == "10.9.9.9"
    assert 2.9 < first["certificate_days"] <= 3
    assert second["last_call"] is None, "another host's call is none of this peer"
    assert listed["refused"][0]["count"] == 1
    code, said = call(home, "peers", "list")
    assert code == 0
    assert all(word in said for word in ("CT1", "valid for 3 days", "never", "pacs", "not listed"))


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[OwnPacs]:
    with OwnPacs(tmp_path / "pacs") as running:
        yield running


def test_a_destination_is_tried(home: Home, pacs: OwnPacs) -> None:
    settings = {
        "peers": [{"name": "them", "ae_title": "ARCHIVE"}],
        "destinations": [
            {"name": "pacs", "ae_title": "ARCHIVE", "host": LOOPBACK, "port": pacs.port}
        ],
    }
    home.node_yaml.write_text(yaml.safe_dump(settings))
    heard(home, "ARCHIVE")
    code, said = call(home, "peers", "test", "pacs", "--wait", "0")
    assert code == 0, said
    lines = [line.strip() for line in said.splitlines()]
    assert [line.partition("  ")[0] for line in lines] == ["ok"] * 4 + ["not tried"]
    assert "found by C-FIND" in said and "it called last" in said
    assert "by C-GET: 28 elements and all pixels are as they were sent" in said
    assert call(home, "peers", "test", "nobody")[0] == 2


def test_a_destination_that_changes_what_it_keeps_is_told(home: Home, pacs: OwnPacs) -> None:
    settings = {
        "destinations": [
            {"name": "pacs", "ae_title": "ARCHIVE", "host": LOOPBACK, "port": pacs.port}
        ],
    }
    home.node_yaml.write_text(yaml.safe_dump(settings))
    sent = home.root / "sent.dcm"
    object_to_store().save_as(sent, enforce_file_format=True)
    carrier = carrier_of(load(home.node_yaml).destinations[0], load(home.node_yaml))
    assert carrier.send([sent], lambda _: None)[0].is_stored
    # As if the archive had had other bytes under these UIDs.
    ours = pydicom.dcmread(sent)
    ours.PatientID, ours.PixelData = "OTHER", ours.PixelData[::-1]
    ours.InstitutionName, ours.SpecificCharacterSet = "House 4", "ISO_IR 192"
    del ours.SeriesNumber
    ours.save_as(sent)
    step = read_back(home, carrier, sent)
    assert step.ok is False
    assert step.sentence == (
        "by C-GET: what came back differs: InstitutionName is missing, PatientID changed, "
        "256 of 256 pixels changed"
    )


def test_a_destination_that_gives_nothing_back_is_told(home: Home) -> None:
    """It stores and answers C-FIND, and offers neither C-GET nor C-MOVE."""
    classes = (SecondaryCaptureImageStorage,)
    mute = Pacs(classes=classes)
    mute.start()
    place = {"ae_title": "PACS", "host": LOOPBACK, "port": mute.port}
    settings = {"destinations": [{"name": "pacs", **place}]}
    home.node_yaml.write_text(yaml.safe_dump(settings))
    try:
        code, said = call(home, "peers", "test", "pacs", "--wait", "0")
        assert code == 0, said
        assert "not tried  test object read back" in said and "offers no C-GET" in said
        assert "which does not run" in said and "C-FIND alone tells" in said
        home.listener_json.write_text("{}")
        code, said = call(home, "peers", "test", "pacs", "--wait", "0")
        assert "list PACS under peers" in said
        settings["peers"] = [{"name": "them", "ae_title": "PACS"}]
        home.node_yaml.write_text(yaml.safe_dump(settings))
        database = Database(f"sqlite:///{home.database}")
        database.upgrade()
        database.dispose()
        code, said = call(home, "peers", "test", "pacs", "--wait", "0")
        assert "offers no C-MOVE to this node. C-FIND alone tells" in said
    finally:
        mute.stop()
    assert list(home.work.iterdir()) == []


def test_what_does_not_work_is_told(home: Home) -> None:
    settings = {"destinations": [{"name": "pacs", "ae_title": "A", "host": LOOPBACK, "port": 1}]}
    home.node_yaml.write_text(yaml.safe_dump(settings))
    code, said = call(home, "peers", "test", "pacs", "--wait", "0")
    assert code == 1
    assert "FAILED  C-ECHO to it" in said and "no connection" in said


def test_reload_refuses_a_mistake(home: Home) -> None:
    reloading = Reloading(home)
    assert call(home, "reload")[0] == 0
    assert reloading.is_asked()
    home.node_yaml.write_text("peers: everybody")
    code, said = call(home, "reload")
    assert (code, reloading.is_asked()) == (2, False)
    assert "goes on with what it read before" in said


def test_reload_refuses_a_certificate_that_cannot_be_used(home: Home, tmp_path: Path) -> None:
    node = make_certificate(tmp_path, "node")
    other = make_certificate(tmp_path, "other")
    tls = {"port": 0, "certificate": str(node.path), "key": str(other.key_path)}
    home.node_yaml.write_text(yaml.safe_dump({"tls": tls}))
    reloading = Reloading(home)
    code, said = call(home, "reload")
    assert (code, reloading.is_asked()) == (2, False)
    assert "is the key that of the certificate" in said
