"""Display colours: one of its own for words without a code, and none twice in one object."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from highdicom.color import CIELabColor
from numpy.typing import NDArray

__all__ = ["LEAST_DISTANCE", "Colour", "cielab", "colour_of_words", "told_apart"]

Colour = tuple[int, int, int]
"""sRGB, 0..255 each."""

LEAST_DISTANCE: Final = 20.0
"""Between two colours of an object, in CIELab (CIE 1976): seen at a glance, also as thin outlines.
Colours for more than 60 segments are that far apart."""
_STEP: Final = 17
_DARKEST, _LIGHTEST, _PALEST = 45.0, 92.0, 25.0


def cielab(colour: Colour) -> tuple[float, float, float]:
    """Return L*, a* and b* of a colour."""
    lab = CIELabColor.from_rgb(*colour)
    return lab.l_star, lab.a_star, lab.b_star


def colour_of_words(words: str) -> Colour:
    """Draw a colour from the words themselves: the same in every job, seldom near another's.

    Hue, chroma (40..70) and lightness (50..80) in CIELab, in which equal steps look equally far,
    so that a mask is seen on dark and on light tissue.
    """
    digest = hashlib.sha256(words.encode("utf-8", "replace")).digest()
    hue = int.from_bytes(digest[:2]) / 65536 * 2 * math.pi
    chroma, lightness = 40 + 30 * digest[2] / 255, 50 + 30 * digest[3] / 255
    lab = CIELabColor(lightness, chroma * math.cos(hue), chroma * math.sin(hue))
    red, green, blue = lab.to_rgb(clip=True)  # screens show less of cyan
    return round(red), round(green), round(blue)


def told_apart(wanted: Sequence[Colour]) -> tuple[Colour, ...]:
    """Give each its colour, or where another one has a colour near it, the next that is free.

    The same colours in the same order get the same answer.

    Parameters
    ----------
    wanted
        Of each segment, in their order; the first of two that are too near to each other keeps it.

    Returns
    -------
    tuple of Colour
        As many, each two at least `LEAST_DISTANCE` apart; where there are too many for that, those
        without a place as far from the others as there is room.
    """
    places = [np.array(cielab(colour)) for colour in wanted]
    given: dict[int, Colour] = {}
    taken: list[NDArray[np.float64]] = []
    for index, (colour, place) in enumerate(zip(wanted, places, strict=True)):
        if all(np.linalg.norm(place - other) >= LEAST_DISTANCE for other in taken):
            given[index] = colour
            taken.append(place)
    if len(given) < len(wanted):
        palette, spots = _palette()
        room = np.min([np.linalg.norm(spots - other, axis=1) for other in taken], axis=0)
        for index, place in enumerate(places):
            if index in given:
                continue
            free = np.flatnonzero(room >= LEAST_DISTANCE)
            near = np.linalg.norm(spots[free] - place, axis=1)
            chosen = int(free[np.argmin(near)] if len(free) else np.argmax(room))
            given[index] = palette[chosen]
            room = np.minimum(room, np.linalg.norm(spots - spots[chosen], axis=1))
    return tuple(given[index] for index in range(len(wanted)))


@functools.cache
def _palette() -> tuple[list[Colour], NDArray[np.float64]]:
    """Return what a screen shows well on dark and on light tissue, and it in CIELab (n, 3)."""
    levels = range(0, 256, _STEP)
    seen = [
        (colour, lab)
        for colour in itertools.product(levels, levels, levels)
        for lab in [cielab(colour)]
        if _DARKEST <= lab[0] <= _LIGHTEST and math.hypot(lab[1], lab[2]) >= _PALEST
    ]
    return [colour for colour, _ in seen], np.array([lab for _, lab in seen])
