"""What was read or drawn a moment ago, kept in memory within a bound."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

__all__ = ["ByteCache", "Sized"]


class Sized(Protocol):
    """Something that knows how much memory it holds."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...


ValueT = TypeVar("ValueT", bound=Sized)


class ByteCache(Generic[ValueT]):
    """The values asked for last, as many as fit into a number of bytes.

    Parameters
    ----------
    most_bytes
        Bound on the sum of the values' sizes. A larger value is handed out and not kept.

    Notes
    -----
    Safe to use from several threads. Two threads that ask for the same missing value make it
    once: the second waits, because decoding the same slice twice would slow down both.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._values: OrderedDict[Hashable, ValueT] = OrderedDict()
        self._bytes = 0
        self._guard = threading.Lock()
        self._making: dict[Hashable, threading.Event] = {}

    @property
    def bytes(self) -> int:
        """Bytes held now."""
        return self._bytes

    def get(self, key: Hashable, make: Callable[[], ValueT]) -> ValueT:
        """Return the value of a key; `make` it when it is not there. Errors are not kept."""
        while True:
            with self._guard:
                if key in self._values:
                    self._values.move_to_end(key)
                    return self._values[key]
                made = self._making.get(key)
                if made is None:
                    self._making[key] = threading.Event()
            if made is None:
                return self._make(key, make)
            made.wait()

    def put(self, key: Hashable, value: ValueT) -> None:
        """Keep a value that came with another one."""
        with self._guard:
            self._keep(key, value)

    def forget(self, key: Hashable) -> None:
        """Drop a value, if it is there."""
        with self._guard:
            value = self._values.pop(key, None)
            if value is not None:
                self._bytes -= value.size

    def _make(self, key: Hashable, make: Callable[[], ValueT]) -> ValueT:
        try:
            value = make()
            with self._guard:
                self._keep(key, value)
            return value
        finally:
            with self._guard:
                self._making.pop(key).set()

    def _keep(self, key: Hashable, value: ValueT) -> None:
        if value.size > self.most_bytes or key in self._values:
            return
        self._values[key] = value
        self._bytes += value.size
        while self._bytes > self.most_bytes:
            _, oldest = self._values.popitem(last=False)
            self._bytes -= oldest.size
