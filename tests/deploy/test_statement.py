"""The statements and the code agree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pynetdicom.presentation import PresentationContext
from typer.testing import CliRunner

from deploy.cli import app
from deploy.statement.associations import services_table, statuses_table
from deploy.statement.integration import ACTORS
from deploy.statement.page import PAGES, page
from dicom_node.services import announcements, commitment, finding, reception, retrieval
from dicom_node.services.announcements import AnnouncementScp
from dicom_node.services.association import (
    SERVICES,
    TRANSFER_SYNTAXES,
    UNCOMPRESSED,
    ListenerSettings,
    listener_contexts,
)
from dicom_node.services.commitment import CommitmentScp
from dicom_node.services.dicomweb.addresses import ADDRESSES, KINDS
from dicom_node.services.query_retrieve_scp import QueryRetrieveScp
from tests.workflows.managers import manager_of
from tests.workflows.whole_node import make_node

THIS = "tests/deploy/test_statement.py"
ROOT = Path(__file__).parents[2]


def test_the_pages_are_what_the_code_does() -> None:
    done = CliRunner().invoke(app, ["conformance", "--check", str(ROOT / "docs")])
    assert done.exit_code == 0, done.stderr


def test_a_page_that_is_not_is_named(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["conformance", "--out", str(tmp_path)]).exit_code == 0
    with (tmp_path / "ihe.md").open("a") as file:
        file.write("| everything | all actors | |\n")
    done = CliRunner().invoke(app, ["conformance", "--check", str(tmp_path)])
    assert done.exit_code == 1
    assert "ihe.md" in done.stderr and "conformance.md" not in done.stderr


def contexts() -> Iterator[PresentationContext]:
    yield from listener_contexts(ListenerSettings())
    for service in (QueryRetrieveScp, CommitmentScp, AnnouncementScp):
        # What is handed in plays no part in what is taken.
        yield from service.contexts(object.__new__(service))  # type: ignore[arg-type]


def test_the_listener_takes_just_what_the_page_says() -> None:
    text = page("conformance.md")
    taken = {str(one.abstract_syntax): one for one in contexts()}
    for uid, context in taken.items():
        assert uid in text
        syntaxes = UNCOMPRESSED if uid in SERVICES else TRANSFER_SYNTAXES
        assert [str(one) for one in context.transfer_syntax] == list(syntaxes)
    rows = [line.split("|") for line in services_table().splitlines()[2:]]
    as_provider = {row[2].strip() for row in rows if row[4].strip() == "yes"}
    assert as_provider == taken.keys() & SERVICES.keys()
    annex = text.partition("## Annex A")[2].partition("## Annex B")[0]
    listed = {line.split("|")[2].strip() for line in annex.splitlines() if "1.2.840" in line}
    assert listed == taken.keys() - SERVICES.keys()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (reception, "store"),
        (finding, "find"),
        (retrieval, "retrieve"),
        (commitment, "commit"),
        (announcements, "notify"),
    ],
)
def test_every_status_that_a_service_knows_stands_on_the_page(
    module: ModuleType, name: str
) -> None:
    text = Path(module.__file__ or "").read_text()
    constants = {
        statement.value.value
        for statement in ast.parse(text).body
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, int)
        and (ast.get_source_segment(text, statement.value) or "").startswith("0x")
    }
    shown = statuses_table(name) + statuses_table("commitment reasons") * (name == "commit")
    assert constants
    assert {f"{one:04X}" for one in constants} <= {
        line.split("|")[1].strip() for line in shown.splitlines()
    }


def test_the_server_answers_just_the_addresses_of_the_page(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    with manager_of(node) as manager:
        served: FastAPI = manager.app
        routes = {
            (method, route.path)
            for route in served.routes
            if isinstance(route, APIRoute)
            for method in route.methods or ()
        }
    node.database.dispose()
    assert routes == {(one.method, one.path) for one in ADDRESSES}
    assert {one.transaction for one in ADDRESSES} == set(KINDS)


def test_the_claims_of_ihe_are_those_of_the_tests(request: pytest.FixtureRequest) -> None:
    """Each claim has a test that says so, each such test a claim; both ways, test by test."""
    assert set(PAGES) == {"conformance.md", "ihe.md"}
    assert all(actor.left_out and actor.transactions for actor in ACTORS)
    claimed = {claim for actor in ACTORS for claim in actor.claims()}
    assert all(one.numbers and one.shown_by for actor in ACTORS for one in actor.transactions)
    files = {test.partition("::")[0] for *_, test in claimed}
    written = sorted(
        path for path in (ROOT / "tests").rglob("test_*.py") if "mark.ihe(" in path.read_text()
    )
    assert {path.relative_to(ROOT).as_posix() for path in written} - {THIS} == files
    shown = {
        (*mark[:2], number, test)
        for test, mark in collected(request, written)
        for number in mark[2:]
    }
    assert shown == claimed


def collected(
    request: pytest.FixtureRequest, files: list[Path]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the tests that pytest finds in files, and what each says that it shows."""
    for path in files:
        module = pytest.Module.from_parent(request.session, path=path)
        for item in module.collect():
            if not isinstance(item, pytest.Function):
                continue
            marks = list(item.iter_markers("ihe"))
            left_out = [*item.iter_markers("skip"), *item.iter_markers("xfail")]
            assert not marks or not left_out, f"{item.name} shows nothing while it is left out"
            name = f"{path.relative_to(ROOT).as_posix()}::{item.originalname}"
            yield from ((name, mark.args) for mark in marks)
