"""The demo: one study through a whole node to a PACS, on this machine; ``make demo``.

Three application entities take part: a scanner that sends the study, the node, and the PACS that
gets the results. The demo only watches; everything that it shows is read from the node's database
and from the objects that the node sent.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from db.states import END_STATES
from deploy.demo_pacs import LOOPBACK, start_pacs
from deploy.job_display import findings_table, results_table, stages_table, state_text
from deploy.node_process import NodeProcess, NodeStartError

if TYPE_CHECKING:
    from deploy.demo_pacs import OrthancPacs, OwnPacs

__all__ = ["DemoError", "run", "watch", "write_configuration"]

SCANNER = "DEMO-SCANNER"
NODE = "UNIBIOMED"
MARK = ".unibiomed-demo"
_ENDS = frozenset(str(state) for state in END_STATES)


class DemoError(Exception):
    """The demo did not reach its end; the text is a sentence."""


def run(study: Path | None, home: Path, *, model: Path | None, seconds: float) -> None:
    """Run the demo.

    Parameters
    ----------
    study
        A folder of DICOM files; None for the simulated CT phantom.
    home
        The demo's folder; what an earlier demo left there is removed.
    model
        Folder of the weights; None for the shipped ones.
    seconds
        Deadline from the first image to the last delivered job.

    Raises
    ------
    DemoError
        Something did not work, or the study was not delivered.
    """
    from deploy.sending import SendError, files_under, send_folder

    console = Console()
    home = _empty(home.expanduser().resolve())
    try:
        files = _phantom(home) if study is None else files_under(study.expanduser())
    except SendError as error:
        raise DemoError(str(error)) from error
    try:
        with start_pacs(home / "pacs") as pacs:
            console.print(f"PACS     {pacs.name}, {pacs.ae_title} at {LOOPBACK}:{pacs.port}")
            node_home = home / "node"
            chosen = {"model": {"folder": str(model.expanduser().resolve())}} if model else None
            write_configuration(node_home, pacs, chosen)
            with NodeProcess(node_home) as node:
                console.print(f"node     {node.address}, home {node_home}", soft_wrap=True)
                sent = send_folder(
                    files[0].parent if study is None else study.expanduser(),
                    node.address,
                    SCANNER,
                    console.print,
                )
                console.print(f"scanner  {SCANNER} sent {sent.stored} of {sent.total} objects\n")
                jobs = watch(node, console, seconds)
            _show(console, jobs, node_home, files, home, pacs)
    except (SendError, NodeStartError, RuntimeError) as error:
        raise DemoError(str(error)) from error
    _judge(jobs, node_home)


# ---------------------------------------------------------------------- setting up


def _empty(home: Path) -> Path:
    """Make the demo's folder anew; refuse to remove a folder that is none of its own."""
    if home.exists() and any(home.iterdir()):
        if not (home / MARK).exists():
            raise DemoError(f"{home} is not empty and was not made by the demo; name another one.")
        shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True)
    (home / MARK).touch()
    return home


def _phantom(home: Path) -> list[Path]:
    from deploy.phantom_study import demo_phantom, write_phantom_study

    return write_phantom_study(demo_phantom(), home / "phantom")


def write_configuration(
    home: Path, pacs: OrthancPacs | OwnPacs, changes: dict[str, Any] | None = None
) -> None:
    """Write the ``node.yaml`` of a node that takes studies from anybody on this machine.

    Parameters
    ----------
    home
        The node's home.
    pacs
        Where its results go.
    changes
        Sections of ``node.yaml`` in place of the ones used here.
    """
    import yaml

    settings: dict[str, Any] = {
        "node": {"ae_title": NODE, "host": LOOPBACK, "port": 0},
        "storage": {"reserve": "200 MiB"},
        "completion": {"quiet_seconds": 5.0, "after_release_seconds": 0.5},
        "jobs": {"sweep_seconds": 0.5},
        "dashboard": {"port": 0},
        "peers": [{"name": "demo scanner", "ae_title": SCANNER, "host": LOOPBACK}],
        "destinations": [
            {"name": "pacs", "ae_title": pacs.ae_title, "host": LOOPBACK, "port": pacs.port}
        ],
    }
    for section, values in (changes or {}).items():
        merged = isinstance(values, dict) and isinstance(settings.get(section), dict)
        settings[section] = {**settings[section], **values} if merged else values
    home.mkdir(parents=True, exist_ok=True)
    (home / "node.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


# ---------------------------------------------------------------------- watching


def watch(node: NodeProcess, console: Console, seconds: float) -> list[dict[str, Any]]:
    """Show the jobs of a node as they go from stage to stage, until all have ended.

    Parameters
    ----------
    node
        The node.
    console
        Where to show them; a terminal is redrawn, a file gets a line for each new stage.
    seconds
        The deadline.

    Returns
    -------
    list of dict
        The jobs (`db.reports.job_report`), the oldest first.

    Raises
    ------
    DemoError
        Time was up; the text says what the jobs wait for.
    """
    end = time.monotonic() + seconds
    seen: dict[int, str] = {}
    jobs: list[dict[str, Any]] = []
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while time.monotonic() < end:
            jobs = node.jobs()
            if console.is_terminal:
                live.update(_progress(jobs), refresh=True)
            else:
                _tell_changes(console, jobs, seen)
            if jobs and all(job["state"] in _ENDS for job in jobs):
                return jobs
            time.sleep(0.2)
    waits = "; ".join(f"job {job['id']} is {job['state']}: {job['wait_reason']}" for job in jobs)
    raise DemoError(f"Not delivered within {seconds:.0f} s. {waits or 'No study arrived.'}")


def _progress(jobs: Sequence[dict[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for job in jobs:
        done = [Text(stage["stage"], style="dim") for stage in job["stages"][:-1]]
        part = f" {job['progress']:.0%}" if job["progress"] else ""
        now = state_text(job["state"]) + Text(part)
        trail = Text(" → ").join([*done[-6:], now])
        reason = "" if job["state"] in _ENDS else job["wait_reason"]
        table.add_row(f"job {job['id']}", trail, Text(reason, style="dim"))
    return table


def _tell_changes(console: Console, jobs: Sequence[dict[str, Any]], seen: dict[int, str]) -> None:
    for job in jobs:
        if seen.get(job["id"]) != job["state"]:
            seen[job["id"]] = job["state"]
            reason = job["error"] or job["wait_reason"]
            console.print(f"job {job['id']}: {job['state']}" + (f" ({reason})" if reason else ""))


# ---------------------------------------------------------------------- the end


def _show(
    console: Console,
    jobs: Sequence[dict[str, Any]],
    node_home: Path,
    files: Sequence[Path],
    home: Path,
    pacs: OrthancPacs | OwnPacs,
) -> None:
    """Show each job's stages, findings, proven objects, and draw its picture."""
    for job in jobs:
        heading = f"Job {job['id']}: {job['modality'] or 'study'}, {job['state']}"
        console.rule(Text(heading, style="bold"), align="left")
        if job["error"] or job["wait_reason"]:
            console.print(Text(job["error"] or job["wait_reason"], style="yellow"))
        console.print(stages_table(job["stages"]))
        if job["findings"]:
            console.print()
            console.print(findings_table(job["findings"]))
        if job["results"]:
            console.print()
            console.print(results_table(job["results"]))
            picture = _draw(job, node_home, files, home)
            console.print(f"\nPicture of the masks: {picture}", soft_wrap=True)
    proven = sum(result["confirmed"] for job in jobs for result in job["results"])
    console.print(f"\n{pacs.name} confirmed {proven} objects.", style="bold")


def _draw(job: dict[str, Any], node_home: Path, files: Sequence[Path], home: Path) -> Path:
    from deploy.picture import draw_findings, read_segments
    from dicom_node.objects.series import read_sources

    wanted = job["series_instance_uid"]
    sources, _ = read_sources(list(files))
    fitting = [source for source in sources if source.series_instance_uid == wanted]
    segmentations = [
        node_home / "archive" / result["file"]
        for result in job["results"]
        if result["kind"] == "segmentation"
    ]
    segments = read_segments(segmentations[0]) if segmentations else []
    shown = {uid for segment in segments for uid, _ in segment.masks}
    source = next((one for one in fitting if shown & set(one.sop_instance_uids)), fitting[0])
    path = home / f"masks-job-{job['id']}.png"
    draw_findings(source, segments, job, path)
    return path


def _judge(jobs: Sequence[dict[str, Any]], node_home: Path) -> None:
    """Fail unless every job that had something to do was delivered, and at least one was.

    Raises
    ------
    DemoError
        Naming what was not delivered and why.
    """
    failed = [job for job in jobs if job["state"] in ("failed", "cancelled")]
    delivered = [job for job in jobs if job["state"] == "delivered"]
    if failed:
        job = failed[0]
        raise DemoError(
            f"Job {job['id']} {job['state']}: {job['error']} (logs in {node_home / 'log'})"
        )
    if not delivered:
        reasons = "; ".join(job["error"] or job["wait_reason"] for job in jobs)
        raise DemoError(f"Nothing was delivered: {reasons or 'there was no job'}")
