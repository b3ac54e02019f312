"""How the node is launched: the command line, the all-in-one node, the demo and the doctor."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _installed_version

__all__ = ["version"]


def version() -> str:
    """Return the node's version, as installed.

    Returns
    -------
    str
        The version of the distribution ``unibiomed-node``, or ``"0+unknown"`` when the code runs
        from a folder that was never installed.
    """
    try:
        return _installed_version("unibiomed-node")
    except PackageNotFoundError:
        return "0+unknown"
