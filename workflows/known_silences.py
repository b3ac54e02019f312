"""Destinations that give no answer, as far as the log of this process has told."""

from __future__ import annotations


class KnownSilences:
    """Remembers of which destinations it was told that they are silent.

    Where twenty jobs wait for one PACS, each of them finds that out; the log needs it once for each
    outage.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()

    def begins(self, name: str) -> bool:
        """Note that a destination is silent; says whether that is news."""
        is_news = name not in self._names
        self._names.add(name)
        return is_news

    def ends(self, name: str) -> bool:
        """Note that a destination answered; says whether it was known to be silent."""
        was_known = name in self._names
        self._names.discard(name)
        return was_known
