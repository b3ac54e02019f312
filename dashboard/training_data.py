"""What people said of findings, as training data: one archive that is written while it is sent.

No more than one job's images lie on the disk at a time, however much there is. The archive has what
``unibiomed-node export-reviews`` writes.
"""

from __future__ import annotations

import tempfile
import threading
import zipfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response, StreamingResponse

from dashboard.access import Admin, NodeOf
from dashboard.auditing import note
from db.listing import as_text
from db.reviews import agreement, reviewed_findings
from workflows.node import Node
from workflows.training_export import Exported, export_in_steps

router = APIRouter()
_PIECE: Final = 1 << 20


@dataclass
class Export:
    """One export, as far as it is.

    Attributes
    ----------
    account, began_at
        Who asked for it, and when.
    findings
        Judged findings when it began.
    told
        What was written and left out so far.
    sent
        Bytes of the archive.
    ended_at
        None while it runs.
    whole
        Whether the archive came to its end: one that was broken off cannot be opened.
    """

    account: str
    began_at: datetime
    findings: int
    told: Exported = field(default_factory=Exported)
    sent: int = 0
    ended_at: datetime | None = None
    whole: bool = False

    def as_json(self) -> dict[str, Any]:
        """Tell it."""
        return {
            "account": self.account,
            "began_at": as_text(self.began_at),
            "findings": self.findings,
            "done": self.told.done,
            "written": dict(self.told.written),
            "left_out": dict(self.told.left_out),
            "bytes": self.sent,
            "ended_at": as_text(self.ended_at),
            "whole": self.whole,
        }


class Exports:
    """The export of this node: one at a time, as it reads whole volumes into memory."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self.last: Export | None = None

    def begin(self, export: Export) -> bool:
        """Take the place; False while another export runs."""
        with self._guard:
            if self.last is not None and self.last.ended_at is None:
                return False
            self.last = export
            return True


@router.get("/api/training-data", tags=["findings"])
def training_data(request: Request, node: NodeOf, actor: Admin) -> dict[str, Any]:
    """Tell how much there is to learn from, how people agree, and how far the last export is."""
    with node.database.reading() as session:
        findings, rows = reviewed_findings(session), agreement(session)
    last = _exports(request).last
    return {
        "findings": findings,
        "targets": [
            {"target": one.target, "accepted": one.accepted, "edited": one.edited,
             "rejected": one.rejected, "accepted_share": one.share, "mean_dice": one.mean_dice}
            for one in rows
        ],
        "export": None if last is None else last.as_json(),
    }  # fmt: skip


@router.get(
    "/api/training-data.zip",
    tags=["findings"],
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}}},
)
def training_data_archive(request: Request, node: NodeOf, actor: Admin) -> StreamingResponse:
    """Send images and masks of all judged findings in the form that `learning` reads.

    Patients are groups that cannot be traced back without the node's own key; the images themselves
    are those of patients. The archive is written while it is sent: /api/training-data tells how far
    it is. One export runs at a time.
    """
    with node.database.reading() as session:
        findings = reviewed_findings(session)
    if not findings:
        raise HTTPException(409, "Nobody has judged a finding yet, so there is nothing to export.")
    export = Export(actor.name, node.now(), findings)
    if not _exports(request).begin(export):
        raise HTTPException(409, "An export is running already; wait until it has ended.")
    try:
        with node.database.session() as session:
            note(session, request, "reviews.export", target="training data", findings=findings)
    except BaseException:
        export.ended_at = node.now()
        raise

    def ended() -> None:
        export.ended_at = node.now()
        with node.database.session() as session:
            note(
                session, request, "reviews.export_end", target="training data",
                outcome="success" if export.whole else "refused",
                written=export.told.written.total(), bytes=export.sent,
            )  # fmt: skip

    name = f"training-data-{export.began_at:%Y%m%d-%H%M%S}.zip"
    return StreamingResponse(
        _archive(node, export, ended),
        media_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _exports(request: Request) -> Exports:
    exports: Exports = request.app.state.exports
    return exports


class _Outlet:
    """A file that only grows, and gives away what was written to it."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        pass

    def taken(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def _archive(node: Node, export: Export, ended: Callable[[], None]) -> Generator[bytes]:
    """Give the pieces of the archive; ends the export however it goes."""
    try:
        with tempfile.TemporaryDirectory(prefix="training-", dir=node.home.work) as name:
            folder, outlet = Path(name), _Outlet()
            stream: Any = outlet
            # Volumes and pictures are compressed already.
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
                for _ in export_in_steps(node, folder, export.told):
                    yield from _moved(folder, archive, outlet, export)
                yield from _moved(folder, archive, outlet, export)
            yield _counted(outlet.taken(), export)
        export.whole = True
    finally:
        ended()


def _moved(
    folder: Path, archive: zipfile.ZipFile, outlet: _Outlet, export: Export
) -> Iterator[bytes]:
    """Take all files of a folder into the archive."""
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        entry = zipfile.ZipInfo.from_file(path, str(path.relative_to(folder)))
        with path.open("rb") as file, archive.open(entry, "w", force_zip64=True) as inside:
            for piece in _pieces(file):
                inside.write(piece)
                yield _counted(outlet.taken(), export)
        path.unlink()
    yield _counted(outlet.taken(), export)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _counted(piece: bytes, export: Export) -> bytes:
    export.sent += len(piece)
    return piece
