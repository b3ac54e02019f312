"""The OHIF viewer, unmodified, in front of Orthanc: nginx serves it, Chromium shows it.

What it loaded is read from its own state (``window.services``), not guessed from the picture: a
garbled mask has the right number of pixels and the right centre.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.child_process import ChildProcess
from deploy.demo_pacs import LOOPBACK, OrthancPacs, free_port
from tests.e2e.browsing import SCREENSHOTS, find_chromium
from tests.e2e.conftest import DICOM_WEB_PLUGIN

VERSION = "3.13.2"
NGINX = Path("/usr/sbin/nginx")
START_SECONDS = 30.0
SHOW_MILLISECONDS = 60_000.0
ImageKey = tuple[str, int]

_NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{ worker_connections 256; }}
http {{
  types {{
    text/html html; text/css css; application/javascript js mjs; application/json json;
    application/wasm wasm; image/svg+xml svg; image/png png; font/woff2 woff2;
  }}
  access_log off;
  client_max_body_size 0;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen {host}:{port};
    root {viewer};
    add_header Cross-Origin-Opener-Policy same-origin;
    add_header Cross-Origin-Embedder-Policy require-corp;
    location / {{ try_files $uri $uri/ /index.html; }}
    location = /app-config.js {{ alias {folder}/app-config.js; }}
    location /dicom-web/ {{
      proxy_pass http://{host}:{orthanc};
      proxy_set_header Host $http_host;
    }}
  }}
}}
"""
_SOURCE = {
    "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
    "sourceName": "pacs",
    "configuration": {
        "friendlyName": "PACS",
        "name": "pacs",
        "qidoRoot": "/dicom-web",
        "wadoRoot": "/dicom-web",
        "wadoUriRoot": "/dicom-web",
        "qidoSupportsIncludeField": False,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "enableStudyLazyLoad": True,
        "supportsFuzzyMatching": False,
        "supportsWildcard": True,
        "omitQuotationForMultipartRequest": True,
        "bulkDataURI": {"enabled": True},
    },
}
_CONFIGURATION = {
    "routerBasename": None,
    "extensions": [],
    "modes": [],
    "showStudyList": True,
    "maxNumberOfWebWorkers": 1,
    "showErrorDetails": "always",
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "pacs",
    "dataSources": [_SOURCE],
}


def find_ohif() -> Path:
    """Return the folder that ``tests/outside_peers.sh`` puts the viewer's files into; or skip."""
    named = os.environ.get("UNIBIOMED_TEST_OHIF")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(named) if named else cache / "unibiomed-node-tests" / f"ohif-{VERSION}"
    if not (folder / "dist" / "index.html").is_file():
        pytest.skip(f"needs OHIF {VERSION} in {folder} (see tests/outside_peers.sh)")
    return folder / "dist"


class OhifServer(ChildProcess):
    """OHIF's files and an Orthanc's DICOMweb on one loopback address.

    Parameters
    ----------
    folder
        For nginx' configuration, log and temporary files.
    pacs
        A running Orthanc with its DICOMweb plug-in.
    """

    def __init__(self, folder: Path, pacs: OrthancPacs) -> None:
        super().__init__(folder / "nginx.log", stop_seconds=10.0)
        self.pacs = pacs
        self.url = ""
        self._folder = folder
        self._viewer = find_ohif()
        for needed in (NGINX, DICOM_WEB_PLUGIN):
            if not needed.exists():
                pytest.skip(f"needs {needed} (see tests/outside_peers.sh)")
        find_chromium()

    def start(self) -> None:
        """Start nginx and wait until it serves the viewer."""
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        configuration = self._folder / "nginx.conf"
        configuration.write_text(
            _NGINX.format(
                folder=self._folder,
                viewer=self._viewer,
                host=LOOPBACK,
                port=port,
                orthanc=self.pacs.http_port,
            )
        )
        (self._folder / "app-config.js").write_text(
            f"window.config = {json.dumps(_CONFIGURATION)};\n"
        )
        # `-e`: until it has read its configuration, nginx would write to the system's log.
        command = [str(NGINX), "-e", str(self.log), "-c", str(configuration)]
        pid_file = self._folder / "nginx.pid"
        if not self.launch(command, self._folder, pid_file.exists, START_SECONDS):
            pytest.fail(f"nginx did not start:\n{self.last_lines(5)}")


@dataclass(frozen=True)
class LoadedSegment:
    """A segment as the viewer names and paints it."""

    label: str
    colour: tuple[int, int, int]


class Viewer:
    """A study opened in OHIF.

    Attributes
    ----------
    page
        Playwright's page.
    wrong
        Errors on the page and requests to other hosts.
    """

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.wrong: list[str] = []
        self._url = url
        page.set_default_timeout(SHOW_MILLISECONDS)
        page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        page.on("console", self._console)
        page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.wrong.append(f"console error: {message.text}")

    def _request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https") and parts.netloc != urlsplit(self._url).netloc:
            self.wrong.append(f"request to another host: {request.url}")

    def open(self, study_instance_uid: str, series: int) -> None:
        """Open a study and wait until all its series are known and an image is drawn."""
        self.page.goto(f"{self._url}/viewer?StudyInstanceUIDs={study_instance_uid}")
        self._wait(f"{_SETS}.length >= {series}")
        self._wait("cornerstone.getEnabledElements().some(one => one.viewport.getImageData?.())")

    def show(self, description: str) -> None:
        """Double-click the object whose series has this description; it must open."""
        self.page.locator(
            '[data-cy="study-browser-thumbnail-no-image"]', has_text=description
        ).dblclick()

    def accept(self) -> None:
        """Answer the viewer's question, whether to load what it shows, with yes."""
        self.page.locator('[data-cy="yes-hydrate-btn"]').click()

    def picture(self, name: str) -> None:
        """Keep a screenshot, where a folder for them is named."""
        if SCREENSHOTS:
            self.page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.png"))

    def label_map(self, series_uid: str) -> dict[ImageKey, NDArray[np.uint8]]:
        """Wait for a segmentation; return where it is not empty: image and frame -> label map."""
        self._wait(f"{_set_of(series_uid)}?.isLoaded && {_set_of(series_uid)}.labelMapImages")
        groups = self.page.evaluate(f"({_READ_LABEL_MAP})({_set_of(series_uid)})")
        assert len(groups) == 1, "one group of label maps: no segments overlap"
        found = {}
        for one in groups[0]:
            _, _, place = one["image"].partition("/instances/")
            uid, _, frame = place.partition("/frames/")
            values = np.frombuffer(base64.b64decode(one["values"]), np.uint8)
            found[uid, int(frame or 1)] = values.reshape(one["rows"], one["columns"])
        return found

    def segments(self) -> dict[int, LoadedSegment]:
        """Wait until a segmentation is painted; return its segments by their index."""
        self._wait("services.segmentationService.getSegmentations().length === 1")
        found = self.page.evaluate(_READ_SEGMENTS)
        return {
            int(index): LoadedSegment(one["label"], tuple(one["colour"][:3]))
            for index, one in found.items()
        }

    def measurements(self, series_uid: str) -> list[Mapping[str, Any]]:
        """Wait until a report of measurements is shown; return what was read of it."""
        self._wait(f"{_set_of(series_uid)}?.isLoaded && {_set_of(series_uid)}.measurements")
        found: list[Mapping[str, Any]] = self.page.evaluate(
            f"{_set_of(series_uid)}.measurements.map(one => ({{loaded: one.loaded,"
            " coords: one.coords.map(at => at.GraphicData ?? at.graphicData ?? []),"
            " labels: one.labels, frame: one.frameNumber, image: one.imageId}))"
        )
        return found

    def read(self, text: str) -> None:
        """Wait until the page has a text, whatever its lines; none of it may be cut off."""
        place = self.page.get_by_text(" ".join(text.split()), exact=False).first
        place.wait_for()
        assert place.evaluate("place => place.scrollWidth <= place.clientWidth"), text

    def _wait(self, condition: str) -> None:
        self.page.wait_for_function(f"() => window.services && window.cornerstone && ({condition})")


_SETS = "services.displaySetService.getActiveDisplaySets()"


def _set_of(series_uid: str) -> str:
    return f"{_SETS}.find(one => one.SeriesInstanceUID === '{series_uid}')"


_READ_LABEL_MAP = """set => set.labelMapImages.map(group => group.map(image => {
  const values = Uint8Array.from(image.voxelManager.getScalarData());
  if (!values.some(value => value)) return null;
  let text = '';
  for (const value of values) text += String.fromCharCode(value);
  return {image: image.referencedImageId, rows: image.rows, columns: image.columns,
          values: btoa(text)};
}).filter(one => one))"""
_READ_SEGMENTS = """() => {
  const service = services.segmentationService;
  const {segmentationId, segments} = service.getSegmentations()[0];
  const [viewport] = service.getViewportIdsWithSegmentation(segmentationId);
  return Object.fromEntries(Object.entries(segments).filter(([, one]) => one).map(([index, one]) =>
    [index, {label: one.label,
             colour: [...service.getSegmentColor(viewport, segmentationId, Number(index))]}]));
}"""


@contextmanager
def looking(server: OhifServer) -> Iterator[Viewer]:
    """Open a window of Chromium; fails at its end if the viewer did wrong."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(find_chromium()),
            args=[
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--use-angle=swiftshader",
                "--enable-unsafe-swiftshader",
                f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {LOOPBACK}",
            ],
        )
        try:
            window = browser.new_context(viewport={"width": 1280, "height": 800})
            # Its tour covers the page at the first visit.
            window.add_init_script("localStorage.shownTours = '[\"basicViewerTour\"]'")
            viewer = Viewer(window.new_page(), server.url)
            yield viewer
            assert viewer.wrong == []
        finally:
            browser.close()
