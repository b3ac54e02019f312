"""Read the configuration again while the node runs, at the word of an administrator.

The word is a file that ``unibiomed-node reload`` touches once the configuration has passed its
check. Every process looks at it by itself, so that it reaches all of them, on every host that has
the node's folder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from dicom_node.errors import FinalError
from workflows.configuration import Configuration, load_configuration
from workflows.home import Home
from workflows.yaml_positions import ConfigurationError

_LOG = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")


class Reloading:
    """Notices the word to read the configuration again.

    Parameters
    ----------
    home
        The node's folder.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._seen = self._stamp()

    def is_asked(self) -> bool:
        """Whether the word was given since the last time it was heard."""
        stamp = self._stamp()
        asked, self._seen = stamp != self._seen, stamp
        return asked

    def read(self, use: Callable[[Configuration], ResultT]) -> ResultT | None:
        """Return what `use` makes of the configuration; None, and all stays, with a mistake."""
        try:
            made = use(load_configuration(self._home))
        except ConfigurationError as error:
            _LOG.error("the configuration stays as it was: %s", error)
            return None
        except FinalError as error:
            _LOG.error("the configuration stays as it was: %s", error.sentence)
            return None
        _LOG.info("configuration read again")
        return made

    def _stamp(self) -> int:
        try:
            return self._home.reload_stamp.stat().st_mtime_ns
        except FileNotFoundError:
            return 0


def ask_to_reload(home: Home) -> None:
    """Have all processes of the node read the configuration again."""
    home.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    home.reload_stamp.unlink(missing_ok=True)
    home.reload_stamp.touch()
