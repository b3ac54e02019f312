"""The command ``probe``: what a destination takes, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from typer.testing import CliRunner

from db.probes import accepted_by
from db.session import Database
from deploy.cli import app
from deploy.demo_pacs import free_port
from tests.workflows.nodes import destination
from tests.workflows.pacs import SEG, Pacs
from workflows.home import Home


def test_a_destination_is_probed_and_its_answer_kept(tmp_path: Path) -> None:
    pacs = Pacs()
    pacs.start()
    web = {"name": "web", "url": f"http://127.0.0.1:{free_port()}/dicom"}
    home = Home(tmp_path / "home")
    home.make_folders()
    home.write_defaults()
    home.node_yaml.write_text(yaml.safe_dump({"destinations": [destination(pacs), web]}))
    database = Database(f"sqlite:///{home.database}")
    database.upgrade()

    def call(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["probe", *arguments, "--home", str(home.root)])
        return result.exit_code, result.output

    code, said = call("pacs")
    assert code == 0, said
    assert "Segmentation            Implicit LE, Explicit LE" in said
    assert "Label Map Segmentation  not taken" in said
    assert "Segmentations go out BINARY, not compressed: it takes no label map." in said
    code, said = call("pacs", "--json")
    assert json.loads(said)["accepted"]["Key Object Selection"] == []
    with database.reading() as session:
        assert accepted_by(session, ["pacs"])["pacs"][SEG]
    code, said = call("web")
    assert code == 1 and "no answer" in said
    assert call("nobody") == (
        2,
        "There is no 'nobody' among the destinations in node.yaml (pacs, web).\n",
    )
    pacs.stop()
    code, said = call("pacs")
    assert code == 1 and "What it answered before stays" in said
    database.dispose()
