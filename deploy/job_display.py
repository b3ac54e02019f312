"""Jobs, findings, results and the doctor's verdicts as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from dicom_node.plain_text import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from deploy.doctor import Examined

__all__ = [
    "doctor_table",
    "findings_table",
    "job_page",
    "jobs_table",
    "measured",
    "results_table",
    "stages_table",
    "state_text",
]

_COLOURS = {
    "delivered": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "not_applicable": "yellow",
    "superseded": "dim",
}


_OBJECTS = {
    "segmentation": "SEG",
    "measurement_report": "SR TID 1500",
    "grounded_report": "SR TID 2000",
    "structure_set": "RT Structure Set",
    "secondary_capture": "Secondary Capture",
    "report_document": "PDF",
    "key_objects": "Key Objects",
}


def state_text(state: str) -> Text:
    """Return a state's name in its colour."""
    return Text(state, style=_COLOURS.get(state, "cyan"))


def jobs_table(jobs: Iterable[dict[str, Any]]) -> Table:
    """Return the list of jobs (`db.reports.job_list`)."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("job", justify="right")
    for title in ("state", "modality", "rule", "received", "took"):
        table.add_column(title, no_wrap=True)
    table.add_column("what it waits for, or why it ended", overflow="fold")
    for job in jobs:
        table.add_row(
            str(job["id"]),
            state_text(job["state"]),
            Text(one_line(job["modality"])),
            Text(one_line(job["rule"])),
            _clock(job["received_at"]),
            _took(job["received_at"], job["finished_at"]),
            Text(one_line(job["error"] or job["wait_reason"])),
        )
    return table


def job_page(report: dict[str, Any]) -> Sequence[RenderableType]:
    """Return all of one job (`db.reports.job_report`), part by part."""
    head = Table.grid(padding=(0, 2))
    facts = {
        "job": str(report["id"]),
        "state": state_text(report["state"]),
        "study": report["study_instance_uid"],
        "series": report["series_instance_uid"],
        "rule": report["rule"],
        "model": f"{report['model']['name']} {report['model']['version']}".strip(),
        "waits for": report["wait_reason"],
        "error": report["error"],
        "notes": "\n".join(report["notes"]),
        "conflicts": _conflicts(report["conflicts"]),
    }
    for name, fact in facts.items():
        if fact:
            head.add_row(Text(name, style="dim"), fact if isinstance(fact, Text) else _lines(fact))
    parts: list[RenderableType] = [head, Text(""), stages_table(report["stages"])]
    if report["findings"]:
        parts += [Text(""), findings_table(report["findings"])]
    if report["results"]:
        parts += [Text(""), results_table(report["results"])]
    return parts


def _lines(text: str) -> Text:
    return Text("\n".join(one_line(line) for line in text.split("\n")))


def _conflicts(count: int) -> str:
    """Say that objects of the study came with the same UID and other bytes."""
    if not count:
        return ""
    objects = "1 object" if count == 1 else f"{count} objects"
    return (
        f"{objects} of this study came again under the same SOP Instance UID with other bytes: the "
        "first is used, the others are kept beside it in the archive (~ in their names)"
    )


def stages_table(stages: Iterable[dict[str, Any]]) -> Table:
    """Return the stages a job went through, with their seconds."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage", no_wrap=True)
    table.add_column("seconds", justify="right")
    table.add_column("attempt", justify="right")
    table.add_column("note", overflow="fold")
    for stage in stages:
        seconds = stage["seconds"]
        table.add_row(
            state_text(stage["stage"]),
            "" if seconds is None else f"{seconds:.2f}",
            str(stage["attempt"]),
            Text(one_line(stage["note"])),
        )
    return table


def findings_table(findings: Iterable[dict[str, Any]]) -> Table:
    """Return the findings with what was measured."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("finding", overflow="fold", ratio=3)
    table.add_column("presence", no_wrap=True)
    table.add_column("probability", justify="right")
    table.add_column("measurements", overflow="fold", ratio=2)
    for finding in findings:
        table.add_row(
            Text(one_line(finding["text"])),
            Text(str(finding["presence"])),
            f"{finding['confidence']:.2f}",
            Text(one_line(measured(finding["measurements"]))),
        )
    return table


def measured(measurements: dict[str, Any]) -> str:
    """Return the measurements of a finding as one line with units."""
    parts = []
    if (volume := measurements.get("volume_cm3")) is not None:
        parts.append(f"volume {volume:.2f} cm3")
    elif (area := measurements.get("area_mm2")) is not None:
        parts.append(f"area {area:.0f} mm2")
    for name in ("long_axis", "short_axis"):
        axis = measurements.get(name)
        if isinstance(axis, dict) and axis.get("length_mm") is not None:
            parts.append(f"{name.replace('_', ' ')} {axis['length_mm']:.1f} mm")
        elif isinstance(axis, dict) and axis.get("length_px") is not None:
            parts.append(f"{name.replace('_', ' ')} {axis['length_px']:.0f} px")
    if (mean := measurements.get("mean")) is not None:
        unit = measurements.get("unit") or ""
        parts.append(f"mean {mean:.1f} {unit}".rstrip())
    return ", ".join(parts)


def results_table(results: Iterable[dict[str, Any]]) -> Table:
    """Return the objects that were written, and whether each destination has them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("object", "SOP Instance UID", "sent to", "proven by"):
        table.add_column(title, no_wrap=True)
    for result, count in _counted(results):
        proof = result.get("confirmed_by", "") if result.get("confirmed") else "-"
        table.add_row(
            Text(_OBJECTS.get(result["kind"], result["kind"])),
            Text(result["sop_instance_uid"] if count == 1 else f"{count} objects"),
            Text(result.get("destination") or "-"),
            Text(proof, style="green" if result.get("confirmed") else "dim"),
        )
    return table


def _counted(results: Iterable[dict[str, Any]]) -> list[tuple[dict[str, Any], int]]:
    """Count objects of one kind that fare alike: captures come by the dozen."""
    alike: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for result in results:
        fate = (result.get(key) for key in ("kind", "destination", "confirmed", "confirmed_by"))
        alike.setdefault(tuple(fate), []).append(result)
    return [(same[0], len(same)) for same in alike.values()]


def doctor_table(examined: Iterable[Examined]) -> Table:
    """Return the doctor's verdicts, with the mend of what is not in order."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "checked"):
        table.add_column(title, no_wrap=True)
    table.add_column("found", overflow="fold")
    marks = {"good": Text("✓", "green"), "note": Text("!", "yellow"), "broken": Text("✗", "red")}
    for one in examined:
        found = Text(one.found)
        if one.mend:
            found.append(f"\n→ {one.mend}", style="bold")
        table.add_row(marks[one.verdict], one.subject, found)
    return table


def _clock(moment: str | None) -> str:
    """Return an ISO time in this machine's zone, without the year."""
    if moment is None:
        return ""
    return datetime.fromisoformat(moment).astimezone().strftime("%d %b %H:%M:%S")


def _took(begun: str | None, ended: str | None) -> str:
    if begun is None:
        return ""
    end = datetime.now(UTC) if ended is None else datetime.fromisoformat(ended)
    seconds = (end - datetime.fromisoformat(begun)).total_seconds()
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
