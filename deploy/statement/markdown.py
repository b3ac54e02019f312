"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dicom_node.uid_names import name_of_uid


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; a cell may hold Markdown, but neither line breaks nor bars."""
    lines = [_line(head), "|" + "---|" * len(head)]
    return "\n".join([*lines, *(_line([_cell(one) for one in row]) for row in rows)])


def code(text: object) -> str:
    """Return a text as it is written in a file or on the wire."""
    return f"`{text}`"


def name_of(uid: str, otherwise: str = "") -> str:
    """Return the standard's name of a UID."""
    name = name_of_uid(uid)
    return otherwise if name == uid else name.removesuffix(" SOP Class")


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
