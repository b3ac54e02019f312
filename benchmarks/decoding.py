"""Seconds of decoding a series in this process and in several, in one run on this machine.

    python benchmarks/decoding.py [--slices 200] [--repeats 3] [--write FILE]

A noisy 12-bit CT series of 512 x 512 is simulated and stored in each of some transfer syntaxes.
It is decoded by one process and by as many as the machine has cores, alternately; what counts is
the wall time from the first frame asked for to the last one had, the start of the processes
included, as a job waits for it. What both give is compared with what was stored.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dicom_node.objects.frame_decoding import processes_for, stored_frames  # noqa: E402
from dicom_node.objects.series import Source, read_sources  # noqa: E402
from tests.factories import write_ct_series  # noqa: E402

SYNTAXES = (JPEG2000Lossless, JPEGLSLossless, RLELossless, ExplicitVRLittleEndian)
SIDE = 512


def noisy(slices: int) -> np.ndarray:
    """Return a body in air with noise, in Hounsfield units."""
    rng = np.random.default_rng(1)
    rows, columns = np.indices((SIDE, SIDE)) - SIDE / 2
    body = np.where((rows / 200) ** 2 + (columns / 230) ** 2 < 1, 40.0, -1000.0)
    return (body + rng.normal(0.0, 15.0, (slices, SIDE, SIDE))).astype(np.int16)


def seconds(source: Source, processes: int, expected: int) -> float:
    """Return the wall time of decoding all frames; holds that their sum is what was stored."""
    began = time.perf_counter()
    total = sum(int(frame.values.sum(dtype=np.int64)) for frame in stored_frames(
        source, processes=processes))  # fmt: skip
    taken = time.perf_counter() - began
    if total != expected:
        raise SystemExit(f"decoded {total}, stored {expected}")
    return taken


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args(arguments)
    cores = len(os.sched_getaffinity(0))
    lines = [
        f"| transfer syntax | one process | {cores} processes | gain | chosen |",
        "| --- | --- | --- | --- | --- |",
    ]
    load = os.getloadavg()[0]
    values = noisy(options.slices)
    with tempfile.TemporaryDirectory() as name:
        (plain,), _ = read_sources(write_ct_series(Path(name) / "plain", values))
        expected = sum(int(one.values.sum(dtype=np.int64)) for one in stored_frames(plain))
        for syntax in SYNTAXES:
            folder = Path(name) / str(syntax)
            (source,), _ = read_sources(write_ct_series(folder, values, transfer_syntax=syntax))
            taken: dict[int, list[float]] = {1: [], cores: []}
            for _ in range(options.repeats):
                for count in taken:
                    taken[count].append(seconds(source, count, expected))
            one, many = (statistics.median(taken[count]) for count in (1, cores))
            chosen = "several" if processes_for(source) > 1 else "one"
            lines.append(
                f"| {UID(syntax).name} | {one:.2f} s | {many:.2f} s | {one / many:.2f} | {chosen} |"
            )
            print(lines[-1], flush=True)
    said = (
        "# Decoding in several processes\n\n"
        f"Made by `benchmarks/decoding.py`: {options.slices} slices of {SIDE} x {SIDE} of a noisy "
        f"12-bit CT; the median of {options.repeats} repeats, wall time with the start of the "
        f"processes. {cores} cores, a load of {load:.1f} at the start, Python "
        f"{platform.python_version()}. The last column is what the node chooses for this series.\n"
        "\n"
    )
    if options.write:
        options.write.write_text(said + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
