"""Person names in the form in which they are compared (PS3.5 6.2.1, PS3.4 C.2.2.2)."""

from __future__ import annotations

import unicodedata

_GROUPS = 3
_FIRST_MARK, _LAST_MARK = "\u0300", "\u036f"


def folded_name(name: str) -> str:
    """Fold a person name for comparison: no case, no Latin accents, no padding, no empty ends.

    ``"Müller^Jürgen^^^ "`` and ``"MULLER^JURGEN"`` become the same. Component groups (alphabetic,
    ideographic, phonetic) stay apart, at most three of them. Wildcards stay as they are, so a
    pattern is folded by the same function.
    """
    groups = [
        "^".join(component.strip() for component in group.split("^")).rstrip("^")
        for group in name.split("=")[:_GROUPS]
    ]
    joined = "=".join(groups).rstrip("=")
    if joined.isascii():
        return joined.lower()
    # Only the marks of Latin, Greek and Cyrillic letters: a Japanese voicing mark is no accent.
    parts = unicodedata.normalize("NFKD", joined.casefold())
    plain = "".join(c for c in parts if not _FIRST_MARK <= c <= _LAST_MARK)
    return unicodedata.normalize("NFKC", plain).casefold()
