"""A simulated CT phantom: a body with inserts of known size, place and density.

Every number comes from the seed, so that a phantom can be named by it. The inserts' volumes are
known in closed form, which makes the phantom a ruler for masks and measurements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.float32]
Labels = NDArray[np.uint8]

AIR, LUNG, FAT, SOFT_TISSUE = -1000.0, -820.0, -100.0, 40.0


@dataclass(frozen=True, slots=True)
class Insert:
    """A body of known form inside the phantom.

    Attributes
    ----------
    form
        ``"cylinder"`` (axis along the frames) or ``"ellipsoid"``.
    density
        HU.
    centre
        mm from the corner of the first voxel: along frames, rows, columns.
    half
        Half axes in mm in the same order; for a cylinder the first is half its length.
    """

    form: str
    density: float
    centre: tuple[float, float, float]
    half: tuple[float, float, float]

    @property
    def volume(self) -> float:
        """Exact volume in mm3."""
        a, b, c = self.half
        if self.form == "cylinder":
            return 2.0 * a * math.pi * b * c
        return 4.0 / 3.0 * math.pi * a * b * c


@dataclass(frozen=True, slots=True)
class Phantom:
    """A simulated series and its truth.

    Attributes
    ----------
    volume
        HU, ``(frames, rows, columns)``, float32.
    labels
        0 outside, i for insert i (1-based), the same shape; a voxel belongs to an insert that
        contains its centre.
    inserts
        The inserts, in the order of their labels.
    spacing
        mm between frames, rows, columns.
    """

    volume: Volume
    labels: Labels
    inserts: tuple[Insert, ...]
    spacing: tuple[float, float, float]


class _Grid:
    """Coordinates in mm of the voxel centres, one open axis each."""

    def __init__(self, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
        self.shape = shape
        self.extent = tuple(n * s for n, s in zip(shape, spacing, strict=True))
        axes = [(np.arange(n) + 0.5) * s for n, s in zip(shape, spacing, strict=True)]
        self.z, self.y, self.x = np.ix_(*axes)

    def ellipse(self, y: float, x: float, ry: float, rx: float) -> NDArray[np.bool_]:
        """Cells of one frame inside an ellipse, ``(1, rows, columns)``."""
        inside: NDArray[np.bool_] = ((self.y - y) / ry) ** 2 + ((self.x - x) / rx) ** 2 <= 1.0
        return inside

    def inside(self, insert: Insert) -> NDArray[np.bool_]:
        """Voxels whose centre an insert contains."""
        (cz, cy, cx), (rz, ry, rx) = insert.centre, insert.half
        plane = ((self.y - cy) / ry) ** 2 + ((self.x - cx) / rx) ** 2
        along = (self.z - cz) / rz
        if insert.form == "cylinder":
            whole: NDArray[np.bool_] = (plane <= 1.0) & (np.abs(along) <= 1.0)
        else:
            whole = plane + along**2 <= 1.0
        return whole


def generate_phantom(
    seed: int,
    shape: tuple[int, int, int] = (40, 256, 256),
    spacing: tuple[float, float, float] = (3.0, 1.4, 1.4),
    inserts: int | None = None,
    radius: tuple[float, float] = (0.14, 0.26),
    length: tuple[float, float] = (0.2, 0.38),
    density: tuple[float, float] = (140.0, 200.0),
) -> Phantom:
    """Draw a phantom.

    Parameters
    ----------
    seed
        Decides everything; the same seed gives the same phantom.
    shape
        Frames, rows, columns.
    spacing
        mm between frames, rows, columns. The body fills the field of view whatever its size.
    inserts
        How many; ``None`` draws 0 to 3.
    radius
        Smallest and largest radius of an insert, as a part of the body's radius front to back.
    length
        Smallest and largest half length along the frames, as a part of all frames.
    density
        Lowest and highest HU of an insert.
    """
    draw = np.random.default_rng(seed)
    grid = _Grid(shape, spacing)
    volume, centre, radii = _body(draw, grid)
    count = int(draw.choice(4, p=(0.15, 0.4, 0.3, 0.15))) if inserts is None else inserts
    labels = np.zeros(shape, np.uint8)
    placed: list[Insert] = []
    for _ in range(200):
        if len(placed) == count:
            break
        candidate = _draw_insert(draw, grid, centre, radii, (radius, length, density))
        cells = grid.inside(candidate)
        room = ndimage.binary_dilation(cells.any(axis=0), iterations=3)
        if not cells.any() or labels[:, room].any():
            continue
        placed.append(candidate)
        labels[cells] = len(placed)
        volume[cells] = candidate.density
    return Phantom(_scan(draw, volume), labels, tuple(placed), spacing)


def _body(
    draw: np.random.Generator, grid: _Grid
) -> tuple[Volume, tuple[float, float], tuple[float, float]]:
    """Draw skin, fat, tissue, organs, lungs, spine and table."""
    _, height, width = grid.extent
    volume = np.full(grid.shape, AIR, np.float32)
    cy, cx = (0.5 + draw.uniform(-0.04, 0.04)) * height, (0.5 + draw.uniform(-0.03, 0.03)) * width
    ry, rx = draw.uniform(0.26, 0.4) * height, draw.uniform(0.38, 0.46) * width
    fat = draw.uniform(0.03, 0.12)
    _paint(volume, grid.ellipse(cy, cx, ry, rx), FAT + draw.uniform(-15, 15))
    inner_y, inner_x = ry * (1 - fat * 1.3), rx * (1 - fat)
    _paint(volume, grid.ellipse(cy, cx, inner_y, inner_x), SOFT_TISSUE + draw.uniform(-15, 20))
    for _ in range(int(draw.integers(1, 6))):
        _paint_organ(draw, grid, volume, (cy, cx), (inner_y, inner_x))
    if draw.random() < 0.35:
        for side in (-1, 1):
            where = grid.ellipse(
                cy - 0.1 * ry, cx + side * 0.48 * rx, ry * draw.uniform(0.45, 0.6), rx * 0.34
            )
            _paint(volume, where, LUNG + draw.uniform(-60, 60))
    spine_y, spine_r = cy + 0.62 * ry, 0.13 * rx
    _paint(volume, grid.ellipse(spine_y, cx, spine_r * 1.1, spine_r), draw.uniform(300, 800))
    _paint(volume, grid.ellipse(spine_y, cx, spine_r * 0.5, spine_r * 0.5), draw.uniform(120, 350))
    if draw.random() < 0.6:
        top = cy + ry + 0.02 * height
        across = np.abs(grid.x - cx) < 0.4 * width
        table = (grid.y > top) & (grid.y < top + 0.02 * height) & across
        _paint(volume, table, draw.uniform(-150, 120))
    return volume, (cy, cx), (inner_y, inner_x)


def _paint(volume: Volume, where: NDArray[np.bool_], density: float) -> None:
    """Fill cells of every frame (``where`` of one frame) or of some."""
    volume[np.broadcast_to(where, volume.shape)] = density


def _paint_organ(
    draw: np.random.Generator,
    grid: _Grid,
    volume: Volume,
    centre: tuple[float, float],
    radii: tuple[float, float],
) -> None:
    """Add an ellipsoid of an organ's density: what an insert must not be taken for."""
    (cy, cx), (ry, rx) = centre, radii
    angle, far = draw.uniform(0, 2 * math.pi), draw.uniform(0, 0.55)
    organ = Insert(
        form="ellipsoid",
        density=draw.uniform(5, 85),
        centre=(
            draw.uniform(0, grid.extent[0]),
            cy + far * ry * math.sin(angle),
            cx + far * rx * math.cos(angle),
        ),
        half=(
            draw.uniform(0.3, 1.2) * grid.extent[0],
            draw.uniform(0.08, 0.3) * ry,
            draw.uniform(0.08, 0.3) * rx,
        ),
    )
    volume[grid.inside(organ) & (volume > FAT + 40)] = organ.density


def _draw_insert(
    draw: np.random.Generator,
    grid: _Grid,
    centre: tuple[float, float],
    radii: tuple[float, float],
    ranges: tuple[tuple[float, float], tuple[float, float], tuple[float, float]],
) -> Insert:
    """Draw an insert inside the body, in front of the spine."""
    depth = grid.extent[0]
    (cy, cx), (ry, rx) = centre, radii
    angle, far = draw.uniform(0, 2 * math.pi), math.sqrt(draw.uniform(0, 0.4))
    size = draw.uniform(*ranges[0]) * ry
    form = "cylinder" if draw.random() < 0.5 else "ellipsoid"
    long = draw.uniform(*ranges[1]) * depth
    return Insert(
        form=form,
        density=draw.uniform(*ranges[2]),
        centre=(
            # Wholly inside the scanned range, or its exact volume would be no truth.
            draw.uniform(long + 0.03 * depth, 0.97 * depth - long),
            cy - 0.1 * ry + far * ry * math.sin(angle) * 0.8,
            cx + far * rx * math.cos(angle),
        ),
        half=(long, size * draw.uniform(0.75, 1.3), size * draw.uniform(0.75, 1.3)),
    )


def _scan(draw: np.random.Generator, volume: Volume) -> Volume:
    """Add what a scanner adds: blur in the plane and noise with a grain."""
    blurred = ndimage.gaussian_filter(volume, sigma=(0.0, *[draw.uniform(0.4, 0.9)] * 2))
    noise = draw.standard_normal(volume.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, sigma=(0.0, 0.6, 0.6))
    scanned: Volume = blurred + noise * np.float32(draw.uniform(6, 22) / max(noise.std(), 1e-6))
    return np.clip(np.round(scanned), -1024, 3071).astype(np.float32)
