"""One thing that ``unibiomed-node peers test`` tries, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried; `ok` is None when it could not be tried."""

    what: str
    ok: bool | None
    sentence: str
