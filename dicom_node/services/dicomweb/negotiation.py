"""What the client can take: the Accept header and parameter (PS3.18 8.7, RFC 9110 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from dicom_node.services.dicomweb.multipart import MediaType, media_type

# Commas outside quotes.
_COMMA: Final = re.compile(r",(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)")
_MOST: Final = 50
ANY: Final = MediaType("*/*", {})
DICOM: Final = "application/dicom"
OCTETS: Final = "application/octet-stream"
DICOM_JSON: Final = "application/dicom+json"
PICTURES: Final = ("image/jpeg", "image/png")
JSON_TYPES: Final = frozenset({DICOM_JSON, "application/json"})


class Acceptable:
    """The media types that a client takes, the best liked first.

    Parameters
    ----------
    texts : iterable of str
        Accept headers and query parameters; none of them: anything goes.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        entries = [
            media_type(entry.strip())
            for text in texts
            # Without this, many quotes would cost the square of the time.
            for entry in _COMMA.split(text[:4096])[:_MOST]
            if entry.strip()
        ]
        liked = [entry for entry in entries if _quality(entry) > 0]
        self.entries = sorted(liked, key=_quality, reverse=True) if entries else [ANY]

    def json(self) -> bool:
        """Whether DICOM JSON (PS3.18 annex F) is acceptable."""
        return any(_matches(entry.name, JSON_TYPES) for entry in self.entries)

    def multipart(self, of: str) -> MediaType | None:
        """Return the entry that takes multipart/related of a type, or None."""
        for entry in self.entries:
            part = entry.parameters.get("type", "*/*").lower()
            if entry.name in ("multipart/related", "multipart/*", "*/*") and _matches(part, {of}):
                return entry
        return None

    def single(self, *names: str) -> str | None:
        """Return the first of these media types that is acceptable as the whole answer."""
        for entry in self.entries:
            for name in names:
                if _matches(entry.name, {name}):
                    return name
        return None

    def parts(self) -> list[MediaType]:
        """Return the types of parts that are taken, each with its transfer syntax parameter."""
        found = []
        for entry in self.entries:
            if entry.name in ("multipart/related", "multipart/*", "*/*"):
                part = entry.parameters.get("type", "*/*").lower()
                found.append(MediaType(part, entry.parameters))
        return found


def _matches(pattern: str, names: Iterable[str]) -> bool:
    if pattern == "*/*":
        return True
    main, _, sub = pattern.partition("/")
    return any(pattern == name or (sub == "*" and name.partition("/")[0] == main) for name in names)


def _quality(entry: MediaType) -> float:
    try:
        return float(entry.parameters.get("q", "1"))
    except ValueError:
        return 1.0
