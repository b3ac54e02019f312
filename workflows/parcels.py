"""What one attempt to deliver works with: results on their way, and what it came to."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from pathlib import Path

from db.jobs import Lease
from db.models import DeliveryState
from db.results import results_of
from dicom_node.errors import FinalError, RejectedError, RetriableError
from workflows.another_form import RefusedClass
from workflows.lease_keeper import LeaseKeeper
from workflows.node import Node


@dataclass(frozen=True, slots=True)
class Parcel:
    """One result on its way to one destination."""

    delivery_id: int
    kind: str
    sop_instance_uid: str
    series_instance_uid: str
    path: Path
    state: DeliveryState
    sentence: str
    sent_at: datetime | None = None


class NotCalledError(RetriableError):
    """Nobody was called, as another job got no answer: that is told already."""


@dataclass(slots=True)
class Outcome:
    """What an attempt came to: reasons to try again, to try a few times more, and not to.

    Attributes
    ----------
    not_called
        Who was left out, as another job got no answer there.
    refused_classes
        Objects that were refused for their class: another form may be taken.
    """

    again: list[str] = field(default_factory=list)
    not_called: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    never: list[str] = field(default_factory=list)
    refused_classes: list[RefusedClass] = field(default_factory=list)
    after_seconds: float | None = None

    def wait_for(self, seconds: float | None) -> None:
        """Heed that a destination asks not to be called again so soon."""
        if seconds is not None:
            self.after_seconds = max(seconds, self.after_seconds or 0.0)

    def settle(self) -> None:
        """Raise what the attempt came to, unless all is well.

        Raises
        ------
        RetriableError, NotCalledError
            Something may succeed later, whatever else was refused.
        RejectedError
            Some destination rejects us, which its administrator may mend.
        FinalError
            All that can be sent is sent; the rest is refused for good.
        """
        if self.again:
            sentence = _joined(self.again, self.not_called, self.rejected)
            raise RetriableError(sentence, self.after_seconds)
        if self.not_called:
            kind = RetriableError if self.rejected else NotCalledError
            raise kind(_joined(self.not_called, self.rejected), self.after_seconds)
        if self.rejected:
            raise RejectedError(_joined(self.rejected))
        if self.never:
            raise FinalError(_joined(self.never))


def _joined(*sentences: list[str]) -> str:
    return "; ".join(dict.fromkeys(chain.from_iterable(sentences)))


def parcels_for(node: Node, lease: Lease, destination: str) -> list[Parcel]:
    """List what goes to a destination, in the order of sending."""
    with node.database.reading() as session:
        return [
            Parcel(
                delivery.id,
                result.kind,
                result.sop_instance_uid,
                result.series_instance_uid,
                node.archive.absolute(result.path),
                delivery.state,
                delivery.sentence,
                delivery.sent_at,
            )
            for result in results_of(session, lease.job_id)
            for delivery in result.deliveries
            if delivery.destination == destination
        ]


def pause(keeper: LeaseKeeper, seconds: float) -> None:
    """Wait, but not longer than the lease allows."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        keeper.check()
        time.sleep(min(left, 0.5))
    keeper.check()
