"""The pages: prose from templates, tables from the code."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Final

from jinja2 import Environment, StrictUndefined

from deploy.statement import associations, configuration, integration, queries, results, web
from dicom_node.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_NOTICE: Final = "<!-- Made by `unibiomed-node conformance`: change deploy/statement instead. -->\n"
PAGES: Final[Mapping[str, str]] = {"conformance.md": "conformance.md", "ihe.md": "ihe.md"}
"""Name of the page to its template."""


def page(name: str) -> str:
    """Return a page as Markdown, the same for the same code.

    Parameters
    ----------
    name
        A key of `PAGES`.
    """
    text = (resources.files("deploy") / "statement" / "pages" / PAGES[name]).read_text("utf-8")
    # Markdown for people who run the node, of the node's own tables: nothing here is hostile.
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    made = environment.from_string(text).render(
        associations=associations,
        configuration=configuration,
        integration=integration,
        queries=queries,
        results=results,
        web=web,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
    )
    return _NOTICE + made
