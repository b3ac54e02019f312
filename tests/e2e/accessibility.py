"""axe-core, unmodified, on the node's pages: contrast and semantics of WCAG 2.2, A and AA."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

VERSION = "4.14.1"
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
_RUN = "options => axe.run(document, options).then(found => found.violations)"


def find_axe() -> Path | None:
    """Return the script that `tests/outside_peers.sh` fetches; None where it is not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    named = os.environ.get("UNIBIOMED_TEST_AXE")
    folder = Path(named) if named else cache / "unibiomed-node-tests" / f"axe-core-{VERSION}"
    script = folder / "axe.min.js"
    return script if script.exists() else None


def violations(page: Any, *, contrast_alone: bool = False) -> list[str]:
    """Return what stands against WCAG on a page: rule, element, and what is wrong."""
    script = find_axe()
    if script is None:
        return []
    page.evaluate(script.read_text(encoding="utf-8"))
    kind, values = ("rule", ["color-contrast"]) if contrast_alone else ("tag", _TAGS)
    options = {"runOnly": {"type": kind, "values": values}, "resultTypes": ["violations"]}
    return [
        f"{page.url}: {rule['id']}: {node['target']}: {node['failureSummary']}"
        for rule in page.evaluate(_RUN, options)
        for node in rule["nodes"]
    ]
