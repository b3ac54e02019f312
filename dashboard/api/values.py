"""Values that the routes of the interface share, and how they refuse."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Path, Query
from pydantic import BaseModel

Number = Annotated[int, Path(ge=0, le=2**53)]
Before = Annotated[int | None, Query(ge=0, le=2**53)]
Limit = Annotated[int, Query(ge=1, le=500)]
Word = Annotated[str | None, Query(max_length=256)]


class Problem(BaseModel):
    """Why a request was not answered, in a sentence."""

    title: str
    detail: str


REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "The request cannot be read"},
    401: {"model": Problem, "description": "No login, no token, or a void one"},
    403: {"model": Problem, "description": "The role is not enough, or the request is forged"},
    404: {"model": Problem, "description": "There is no such thing (any more)"},
    409: {
        "model": Problem,
        "description": "It cannot be done now; the sentence says why",
    },
    413: {"model": Problem, "description": "Too large"},
    422: {"model": Problem, "description": "A value is missing or wrong"},
    503: {"model": Problem, "description": "The database or a peer does not answer; try again"},
}
