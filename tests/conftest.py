"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import pynetdicom_callers

pynetdicom_callers.mend()

# How long an example takes is no assertion: beside other tests it takes what they leave it. Each
# run tries the same examples, so that a change is judged by what it changed. To look for faults
# that nobody has met, have others drawn: pytest -m hypothesis --hypothesis-profile=exploring
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeating", UNTIMED, derandomize=True)
settings.register_profile("exploring", UNTIMED)
settings.load_profile("repeating")

TESTS = Path(__file__).parent
LONGEST_FIRST = (
    "e2e/test_database_away.py",
    "e2e/test_kill.py",
    "e2e/test_dashboard.py",
    "e2e/test_all_files.py",
    "e2e/test_viewer.py",
    "e2e/test_ohif.py",
    "e2e",
    "inference/test_parity.py",
    "deploy/test_embedded.py",
    "dicom_node/objects/test_conformance.py",
    "workflows/test_workers.py",
)
"""Files and folders that two workers begin with, so that at the end none of them works alone.

The end-to-end tests come in a row: what they share ends with the last of them.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the longest files to the front; all else stays as it was."""

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(TESTS)
        names = {path.as_posix(), *(parent.as_posix() for parent in path.parents)}
        return next(
            (number for number, name in enumerate(LONGEST_FIRST) if name in names),
            len(LONGEST_FIRST),
        )

    items.sort(key=place)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder with the real data, or skip: tests must also run on a bare clone."""
    named = os.environ.get("UNIBIOMED_SHARED")
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    data = root / "data"
    if not data.is_dir():
        pytest.skip(f"needs the shared real data, looked for in {data} (set UNIBIOMED_SHARED)")
    return data
