"""Memory for decoded pixels: bounded, and never in the way of a job that runs alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from workflows.lease_keeper import DeadlineError
from workflows.pixel_room import PixelRoom, quarter_of_memory


def nothing() -> None:
    """Find nothing wrong."""


class Watched:
    """Jobs in threads, and the most bytes that they held together."""

    def __init__(self, room: PixelRoom) -> None:
        self.room = room
        self.held = 0
        self.most = 0
        self.guard = threading.Lock()

    @contextmanager
    def noted(self, size: int) -> Iterator[None]:
        with self.guard:
            self.held += size
            self.most = max(self.most, self.held)
        yield
        with self.guard:
            self.held -= size

    def work(self, size: int) -> None:
        for _ in range(200):
            with self.room.taken(size, nothing), self.noted(size):
                pass


def test_jobs_never_hold_more_than_there_is_and_all_get_their_turn() -> None:
    watched = Watched(PixelRoom(10))
    jobs = [threading.Thread(target=watched.work, args=(size,)) for size in (3, 4, 6, 7)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(30)
        assert not job.is_alive()
    assert 7 <= watched.most <= 10


def test_what_is_larger_than_all_room_has_it_for_itself() -> None:
    room = PixelRoom(10)

    def too_late() -> None:
        raise DeadlineError

    with room.taken(50, nothing), pytest.raises(DeadlineError), room.taken(1, too_late):
        raise AssertionError("there was no room")
    with room.taken(9, nothing), room.taken(1, too_late):
        pass


def test_the_default_is_a_share_of_the_machine() -> None:
    assert quarter_of_memory() == pytest.approx(psutil.virtual_memory().total / 4, rel=0.01)
