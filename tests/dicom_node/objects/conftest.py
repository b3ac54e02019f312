"""The real files, read once for all tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_node.objects.series import SetAside, Source, read_sources


@dataclass(frozen=True)
class RealData:
    root: Path
    paths: list[Path]
    sources: list[Source]
    aside: list[SetAside]


@pytest.fixture(scope="session")
def real_data(shared_data: Path) -> RealData:
    """Return all real DICOM files as sources and what was set aside."""
    root = shared_data / "dicom"
    paths = [p for p in sorted(root.rglob("*")) if p.is_file() and p.suffix not in (".csv", ".txt")]
    sources, aside = read_sources(paths)
    return RealData(root, paths, sources, aside)
