from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dashboard.frames import FramePlace, FrameUnavailableError, PackedFrame, pack, read_frame
from dashboard.pictures import Overlay, draw_picture
from dashboard.stacks import stack_of_source
from dicom_node.objects.pixels import read_pixels
from dicom_node.objects.series import read_sources
from tests.factories import write_ct_series, write_image, write_mr_series, write_pet_series
from tests.factories.multi_frame import write_cine, write_enhanced


def unpacked(packed: PackedFrame) -> NDArray[Any]:
    """Read the body as `frames.js` does."""
    described = packed.described
    body = zlib.decompress(packed.body) if packed.encoding else packed.body
    values = np.frombuffer(body, np.dtype(described["type"]).newbyteorder("<"))
    size = (described["rows"], described["columns"])
    return values.reshape(size if described["samples"] == 1 else (*size, described["samples"]))


def place(path: Path) -> FramePlace:
    return FramePlace(path, 0, "1.2.3", "ab" * 32)


@pytest.mark.parametrize(
    ("write", "unit", "kind"),
    [(write_ct_series, "HU", "int16"), (write_mr_series, "arbitrary", "uint8"),
     (write_pet_series, "SUVbw", "float32")],
)  # fmt: skip
def test_the_browser_gets_the_values_that_the_model_gets(
    tmp_path: Path, write: Any, unit: str, kind: str
) -> None:
    draw = np.random.default_rng(3)
    volume = draw.integers(0, 200, (3, 20, 30)).astype(float)
    if unit == "HU":
        volume -= 100
    paths = write(tmp_path, volume / 10 if unit == "SUVbw" else volume)
    whole = read_pixels(read_sources(paths)[0][0])
    for index, path in enumerate(paths):
        packed = pack(read_frame(place(path)))
        assert packed.described["unit"] == unit
        assert packed.described["type"] == kind
        assert packed.described["position"] is not None
        assert np.array_equal(unpacked(packed), whole.values[index])


def test_colours_stay_as_they_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = write_image(tmp_path / "endoscopy.dcm", pixels, kind="ES")
    packed = pack(read_frame(place(path)))
    assert (packed.described["samples"], packed.described["position"]) == (3, None)
    assert np.array_equal(unpacked(packed), pixels)


def test_a_deleted_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FrameUnavailableError, match="retention in node"):
        read_frame(place(tmp_path / "gone.dcm"))


def test_a_picture_shows_the_mask_in_its_colour(tmp_path: Path) -> None:
    (path,) = write_ct_series(tmp_path, np.zeros((1, 32, 32)))
    mask = np.zeros((32, 32), np.bool_)
    mask[8:16, 8:16] = True
    drawn = draw_picture(read_frame(place(path)), [Overlay(mask, (255, 0, 0))], 64)
    from io import BytesIO

    from PIL import Image

    picture = np.asarray(Image.open(BytesIO(drawn.body)).convert("RGB")).astype(int)
    assert picture.shape == (64, 64, 3)
    reddish = picture[..., 0] > picture[..., 1] + 40
    assert reddish[24, 24] and reddish[17:31, 17:31].all()
    assert not reddish[:14].any() and not reddish[34:].any()


@pytest.mark.parametrize("kind", ["cine", "enhanced"])
def test_frames_of_a_multi_frame_image_are_read_one_by_one(tmp_path: Path, kind: str) -> None:
    draw = np.random.default_rng(7)
    if kind == "cine":
        pixels = draw.integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
        path = write_cine(tmp_path / "cine.dcm", pixels)
    else:
        stored = draw.integers(0, 2000, (5, 20, 30), dtype=np.uint16)
        path = write_enhanced(tmp_path / "enhanced.dcm", stored)
    (source,), _ = read_sources([path])
    whole = read_pixels(source)
    stack = stack_of_source("cine", source, [])
    assert len(stack.places) == 5
    for index in (3, 0, 4):
        ((found, frame),) = stack.read(index)
        assert found == index
        assert np.array_equal(unpacked(pack(frame)), whole.values[index])
        if source.geometry is not None:
            assert frame.position == pytest.approx(source.geometry.positions[index])
    assert stack.keys == [(source.sop_instance_uids[0], n) for n in source.frame_numbers]
