"""Chinese, Japanese and Korean letters for the pages of a report.

The glyphs are those of Noto Sans CJK (SIL Open Font License), which comes as a Python distribution.
A page embeds just the ones that it shows, so that every reader shows them, whatever fonts it has.
Their outlines are cubic; PDF writing needs quadratic ones (TrueType), so they are approximated.
"""

from __future__ import annotations

import io
from collections.abc import Collection

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.cu2quPen import Cu2QuPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from noto_cjk_sans_jp_regular import FONT_PATH

# The largest error of an outline, in thousandths of the letter's height.
_TOLERANCE = 1.0


def true_type_of(letters: Collection[str]) -> tuple[bytes, frozenset[str]]:
    """Return a TrueType font of some letters, and those of them that it has.

    Parameters
    ----------
    letters
        Single characters. The same ones give the same bytes again.
    """
    with FONT_PATH.open("rb") as file, TTFont(file, lazy=True) as font:
        names = font.getBestCmap()
        known = sorted(letter for letter in set(letters) if ord(letter) in names)
        glyphs, metrics = font.getGlyphSet(), font["hmtx"]
        order = list(dict.fromkeys([".notdef", *(names[ord(letter)] for letter in known)]))
        outlines = {}
        for name in order:
            pen = TTGlyphPen(None)
            glyphs[name].draw(Cu2QuPen(pen, _TOLERANCE, reverse_direction=True))
            outlines[name] = pen.glyph()
        builder = FontBuilder(font["head"].unitsPerEm, isTTF=True)
        builder.setupGlyphOrder(order)
        builder.setupCharacterMap({ord(letter): names[ord(letter)] for letter in known})
        builder.setupGlyf(outlines)
        builder.setupHorizontalMetrics({name: metrics[name] for name in order})
        across = font["hhea"]
        builder.setupHorizontalHeader(ascent=across.ascent, descent=across.descent)
    builder.setupNameTable(
        {"familyName": "Noto Sans CJK JP", "styleName": "Regular", "psName": "NotoSansCJKjp"}
    )
    builder.setupOS2()
    builder.setupPost(keepGlyphNames=False)
    # Without the clock: a retry must give the same bytes.
    builder.font["head"].created = builder.font["head"].modified = 0
    builder.font.recalcTimestamp = False
    buffer = io.BytesIO()
    builder.save(buffer)
    return buffer.getvalue(), frozenset(known)
