"""Colours of segments: those of their targets, and never two that a reader takes for one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from highdicom.color import CIELabColor
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.objects.colours import LEAST_DISTANCE, Colour, cielab, told_apart
from dicom_node.objects.encoding import encode
from dicom_node.objects.segmentation import build_segmentation
from dicom_node.objects.segmentation_reading import read_segmentation
from dicom_node.objects.segments import segments_of
from dicom_node.objects.terminology import describe, table
from tests.dicom_node.objects.example_results import (
    IDENTIFIERS,
    NODE,
    finding,
    interpretation,
    make_source,
)


def least_distance(places: Iterable[tuple[float, ...]]) -> float:
    return min(math.dist(one, other) for one, other in itertools.combinations(places, 2))


def written(names: list[str], folder: Path) -> tuple[list[tuple[float, ...]], list[Colour]]:
    """Return the CIELab values in a SEG of these targets, and what the viewer makes of them."""
    source = make_source("CT", folder)
    mask = np.ones(source.shape, bool)
    built = build_segmentation(
        source, interpretation([finding(name, mask) for name in names]), IDENTIFIERS, NODE
    )
    assert built is not None
    file = folder / "segmentation.dcm"
    file.write_bytes(encode(built))
    labs: list[tuple[float, ...]] = []
    for item in built.SegmentSequence:
        colour = CIELabColor.from_dicom_value(tuple(item.RecommendedDisplayCIELabValue))
        labs.append((colour.l_star, colour.a_star, colour.b_star))
    return labs, [segment.colour for segment in read_segmentation(file).segments]


def test_sixty_segments_are_told_apart_in_the_object_and_in_the_viewer(tmp_path: Path) -> None:
    names = list(table())[:60]
    labs, shown = written(names, tmp_path)
    assert len(labs) == 60 and least_distance(labs) >= LEAST_DISTANCE - 0.1  # of 16 bits
    assert least_distance(map(cielab, shown)) >= LEAST_DISTANCE - 0.1
    mask = np.ones((1, 2, 2), bool)
    segments = segments_of(interpretation([finding(name, mask) for name in names]))
    assert [segment.term.colour for segment in segments] == shown


def test_left_and_right_are_told_apart_and_the_first_keeps_its_colour(tmp_path: Path) -> None:
    side = describe("left breast tumor").colour
    assert describe("right breast tumor").colour == side
    names = ["left breast tumor", "right breast tumor", "liver"]
    labs, (left, right, liver) = written(names, tmp_path)
    assert left == side != right and liver == describe("liver").colour
    # As near to the other side's colour as can be told from it.
    assert LEAST_DISTANCE - 0.1 <= math.dist(labs[0], labs[1]) < LEAST_DISTANCE + 15


colours = st.tuples(*[st.integers(0, 255)] * 3)


@given(st.lists(colours, max_size=60))
def test_any_sixty_colours_become_distinct_and_stay_the_same(wanted: list[Colour]) -> None:
    got = told_apart(wanted)
    assert got == told_apart(wanted) and len(got) == len(wanted)
    if len(wanted) > 1:
        assert least_distance(map(cielab, got)) >= LEAST_DISTANCE
        assert got[0] == wanted[0]


def test_more_segments_than_there_is_room_for_still_have_a_colour_each() -> None:
    got = told_apart([(200, 60, 60)] * 400)
    assert len(got) == 400 and len(set(got)) == 400
