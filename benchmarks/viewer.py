"""How soon the slices of a job are seen: ``python benchmarks/viewer.py FOLDER``.

The first run makes a node under FOLDER and has it interpret simulated CT series of 512 x 512 (once;
a second run measures what is there). Then Debian's Chromium, driven by Playwright, opens the jobs
on the running node. First slice: from the start of the navigation to the drawn slice, of a job that
nobody has looked at since the node's start, in a browser that has never been there before and whose
person typed a password, in one that was let in without any page of the node (single sign-on), and
in one that comes from the list. Next slice: from the turn of the wheel to the drawn slice, ten
slices each second; and a jump to a slice that was not fetched ahead.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from db.accounts import add_user
from db.models_access import Role
from deploy.demo import SCANNER, write_configuration
from deploy.demo_pacs import start_pacs
from deploy.node_database import changing
from deploy.node_process import NodeProcess
from deploy.phantom_study import demo_phantom, write_phantom_study
from deploy.sending import send_folder

SIDE = 512
PASSWORD = "a long password for a test"
CHROMIUM = "/usr/bin/chromium"
ENDS = {"delivered", "failed", "not_applicable"}
# In the page: when a picture was drawn, each time.
WATCH = """
  window.drawnAt = [];
  document.addEventListener("drawn", () => drawnAt.push(performance.now()), true);
"""
STEP = """async (steps) => {
  const viewer = document.querySelector("[data-viewer-root]").viewer;
  const drawn = new Promise((resolve) => {
    const look = () => {
      if (viewer.frames.peek(wanted) !== viewer.shownFrame) return;
      viewer.picture.canvas.removeEventListener("drawn", look);
      resolve(performance.now());
    };
    viewer.picture.canvas.addEventListener("drawn", look);
  });
  const wanted = (viewer.index + steps + viewer.count) % viewer.count;
  const began = performance.now();
  viewer.show(wanted);
  return (await drawn) - began;
}"""


def send_studies(home: Path, node: NodeProcess, count: int) -> None:
    """Send series made large, and wait until all are interpreted."""
    phantom = demo_phantom()
    factor = SIDE // phantom.volume.shape[1]
    large = replace(
        phantom,
        volume=phantom.volume.repeat(factor, axis=1).repeat(factor, axis=2),
        spacing=(phantom.spacing[0], phantom.spacing[1] / factor, phantom.spacing[2] / factor),
    )
    noise = np.random.default_rng(7)
    for number in range(count):
        # Noise as of a scanner: without it, a slice packs to a tenth of what a real one does.
        volume = large.volume + noise.normal(0, 12, large.volume.shape).astype(np.float32)
        folder = home.parent / "sent" / str(number)
        write_phantom_study(replace(large, volume=volume), folder)
        send_folder(folder, node.address, SCANNER, print)
    while len(jobs := node.jobs()) < count or {job["state"] for job in jobs} - ENDS:
        time.sleep(0.5)


def open_window(browser: Any, **options: Any) -> Any:
    """Open a window of a browser that was never there."""
    window = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    window.add_init_script(WATCH)
    return window.new_page()


def log_in(browser: Any, url: str) -> Any:
    """Open a window of a browser that was never there, and log in."""
    page = open_window(browser)
    page.goto(url + "/login")
    page.wait_for_load_state("networkidle")  # nobody types a password in less
    page.fill("[name=name]", "bench")
    page.fill("[name=password]", PASSWORD)
    page.click("main form button")
    page.wait_for_url(url + "/")
    return page


def first_slice(page: Any, address: str) -> float:
    """Open a job; milliseconds from the start of the navigation to the drawn slice."""
    page.goto(address)
    page.wait_for_function("() => window.drawnAt.length > 0")
    milliseconds: float = page.evaluate("drawnAt[0]")
    return milliseconds


def measure(browser: Any, url: str, jobs: list[int]) -> dict[str, list[float]]:
    """Open all jobs, each for the first time, and go through one."""
    found: dict[str, list[float]] = {
        name: []
        for name in (
            "first slice, a browser that was never there: by its login page",
            "first slice, a browser that was never there: by single sign-on",
            "first slice, on the way from the list", "first slice, the job opened again",
            "next slice, ten a second", "next slice, a jump to one not fetched",
        )
    }  # fmt: skip
    new, signed_on, known, again, following, jump = found.values()
    page = log_in(browser, url)
    session = page.context.storage_state()
    # By turns: what else the machine does meanwhile falls on all of them.
    for job, other, third in zip(jobs[::3], jobs[1::3], jobs[2::3], strict=False):
        stranger = log_in(browser, url)
        new.append(first_slice(stranger, f"{url}/jobs/{job}"))
        stranger.context.close()
        stranger = open_window(browser, storage_state=session)
        signed_on.append(first_slice(stranger, f"{url}/jobs/{other}"))
        stranger.context.close()
        page.goto(url + "/jobs")
        page.wait_for_load_state("networkidle")
        known.append(first_slice(page, f"{url}/jobs/{third}"))
    again.extend(first_slice(page, f"{url}/jobs/{job}") for job in jobs)
    for job in jobs:
        first_slice(page, f"{url}/jobs/{job}?slice=1")
        page.wait_for_load_state("networkidle")
        jump.append(page.evaluate(STEP, 30))
        for _ in range(8):
            page.wait_for_timeout(100)
            following.append(page.evaluate(STEP, 1))
    return found


def main() -> None:
    """Prepare what is not there, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=24)
    parser.add_argument("--prepare", action="store_true", help="make the jobs, do not measure")
    wanted = parser.parse_args()
    home = wanted.folder.resolve() / "node"
    is_new = not home.exists()
    with start_pacs(wanted.folder.resolve() / "pacs") as pacs:
        write_configuration(home, pacs)
        if is_new:
            with NodeProcess(home) as node:
                send_studies(home, node, wanted.jobs)
                with changing(home) as session:
                    add_user(session, "bench", Role.OPERATOR, datetime.now(UTC), password=PASSWORD)
        if wanted.prepare:
            return
        with NodeProcess(home) as node:
            from playwright.sync_api import sync_playwright

            jobs = [job["id"] for job in node.jobs() if job["state"] == "delivered"]
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
                )
                found = measure(browser, node.ready["dashboard"], jobs)
                browser.close()
    print("| slice | median | p95 | worst |\n|---|---|---|---|")
    for name, times in found.items():
        high = statistics.quantiles(times, n=20, method="inclusive")[-1]
        print(f"| {name} | {statistics.median(times):.0f} | {high:.0f} | {max(times):.0f} |")


if __name__ == "__main__":
    main()
