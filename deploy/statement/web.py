"""Tables of DICOMweb: addresses, rights, media types (PS3.18)."""

from __future__ import annotations

from deploy.statement.markdown import code, table
from dicom_node.services.dicomweb.addresses import ADDRESSES, KINDS
from dicom_node.services.dicomweb.frames import FRAME_TYPES


def addresses_table() -> str:
    """Return all addresses of the server."""
    rows = []
    for one in ADDRESSES:
        kind = KINDS[one.transaction]
        rows.append(
            (
                kind.service,
                f"`{one.method} {one.path.replace(':path', '')}`",
                code(kind.right),
                ", ".join(map(code, kind.takes)),
                ", ".join(map(code, kind.answers)),
                kind.section,
            )
        )
    head = ("service", "request", "right", "takes", "answers", "PS3.18")
    return table(head, rows)


def frames_table() -> str:
    """Return the media types that stored frames are given in (PS3.18 Table 8.7.3-5)."""
    rows = [(code(media), ", ".join(syntaxes)) for media, syntaxes in FRAME_TYPES.items()]
    return table(("media type", "transfer syntaxes"), rows)
