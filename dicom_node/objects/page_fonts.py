"""The fonts of a report's page: one for most scripts of Europe, one for East Asian letters.

The first lacks Chinese, Japanese and Korean letters: those that a page shows are embedded besides.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont

from dicom_node.objects.rendering import font

PAGE_FONT: Final = "report"
_EAST_ASIAN: Final = "report-east-asian"


def register_fonts(texts: Iterable[str]) -> None:
    """Make the fonts known in which these texts are to be written."""
    if PAGE_FONT not in pdfmetrics.getRegisteredFontNames():
        path = font(12).path
        usable = isinstance(path, str) and Path(path).is_file()
        # Reportlab's own Vera where the font of the pictures is no file.
        pdfmetrics.registerFont(TTFont(PAGE_FONT, path if usable else "Vera.ttf"))
    known = pdfmetrics.getFont(PAGE_FONT).face.charToGlyph
    lacking = {letter for text in texts for letter in text if ord(letter) not in known}
    if not lacking:
        return
    # Only here: most pages need neither the large font nor what cuts it.
    from dicom_node.objects.east_asian_font import true_type_of

    data, found = true_type_of(lacking)
    if found:
        # In place of the one before, which would stay: each page has the letters that it shows.
        if _EAST_ASIAN in pdfmetrics.getRegisteredFontNames():
            pdfmetrics.getFont(_EAST_ASIAN).unregister()
        pdfmetrics.registerFont(TTFont(_EAST_ASIAN, io.BytesIO(data)))


def marked(text: str) -> str:
    """Return text as a paragraph's markup, each letter in a registered font that has it.

    What neither font has stays in the first, which shows a box.
    """
    first = pdfmetrics.getFont(PAGE_FONT).face.charToGlyph
    second = {}
    if _EAST_ASIAN in pdfmetrics.getRegisteredFontNames():
        second = pdfmetrics.getFont(_EAST_ASIAN).face.charToGlyph

    def is_second(letter: str) -> bool:
        return ord(letter) not in first and ord(letter) in second

    runs = ((other, escape("".join(letters))) for other, letters in groupby(text, is_second))
    return "".join(f'<font name="{_EAST_ASIAN}">{run}</font>' if other else run
                   for other, run in runs)  # fmt: skip
