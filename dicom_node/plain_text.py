"""Text of strangers as one harmless line, for pages, terminals, logs and mails."""

from __future__ import annotations

import unicodedata
from typing import Final

_BIDI: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")


def one_line(text: str) -> str:
    """Return text on one line that turns nothing round and commands no terminal.

    Line breaks and tabs become spaces; other control characters (a terminal takes ESC and C1 as
    orders) and changes of direction become U+FFFD, so that something is seen to have been there.
    """
    spaced = text.replace("\r\n", " ").replace("\n", " ").replace("\t", " ")
    return "".join(
        "\ufffd" if character in _BIDI or unicodedata.category(character) in ("Cc", "Zl", "Zp")
        else character
        for character in spaced
    )  # fmt: skip
