"""Scripts, styles and pictures of the pages: under an address that changes with what they say.

A browser keeps them for good and asks for none of them again; after an update the address is
another one. Were it the same, each page would begin with a question for each of thirty files.
"""

from __future__ import annotations

import hashlib
import mimetypes
from functools import cache
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = ["KEPT_FOR_GOOD", "Assets", "files_under", "folder_address"]

_FOLDER: Final = Path(__file__).parent / "static"
KEPT_FOR_GOOD: Final = "public, max-age=31536000, immutable"
_METHODS: Final = ("GET", "HEAD")


@cache
def _contents() -> dict[str, bytes]:
    return {
        path.relative_to(_FOLDER).as_posix(): path.read_bytes()
        for path in sorted(_FOLDER.rglob("*"))
        if path.is_file()
    }


@cache
def folder_address() -> str:
    """Return the address of the folder: ``/static/`` and a digest of all files in it."""
    digest = hashlib.sha256()
    for name, content in _contents().items():
        digest.update(f"{name} {len(content)} ".encode())
        digest.update(content)
    return f"/static/{digest.hexdigest()[:16]}"


def files_under(folder: str, suffix: str) -> list[str]:
    """Return the names of the files in a folder with a suffix, as they stand in addresses."""
    names = (name for name in _contents() if name.startswith(f"{folder}/"))
    return [name for name in names if name.endswith(suffix)]


class Assets:
    """Serves the files from memory; to be mounted at `folder_address`."""

    def __init__(self) -> None:
        self._answers = {
            f"{folder_address()}/{name}": Response(
                content,
                media_type=mimetypes.guess_type(name)[0],
                headers={"Cache-Control": KEPT_FOR_GOOD},
            )
            for name, content in _contents().items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        answer = self._answers.get(scope["path"])
        if answer is None:
            raise HTTPException(404)
        if scope["method"] not in _METHODS:
            raise HTTPException(405)
        await answer(scope, receive, send)
