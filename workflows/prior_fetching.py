"""How priors come: by C-GET, or by a C-MOVE to the node itself (PS3.4 C.4.2 and C.4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dicom_node.errors import FinalError, RetriableError
from dicom_node.services.retrieve_scu import Retrieved, Wanted, get
from workflows.destination_settings import AeDestinationSettings
from workflows.network import destination_of
from workflows.node import Node
from workflows.own_moves import may_any_store, move_here, senders_of, what_to_tell_it


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of one study.

    Attributes
    ----------
    way
        C-GET or C-MOVE.
    remark
        What is wrong with it; empty if nothing.
    """

    images: int
    way: str
    remark: str = ""


class PriorSource:
    """A destination that earlier studies are fetched from.

    Parameters
    ----------
    node
        Its settings say by which way.
    source
        The destination.
    job_id
        Whose priors they are.
    """

    def __init__(self, node: Node, source: AeDestinationSettings, job_id: int) -> None:
        self._node = node
        self._job_id = job_id
        self._there = destination_of(source, node.settings.tls)
        self._moves = node.settings.priors.by == "move"
        self._senders = senders_of(node.settings, source.name, source.ae_title)

    def fetch(self, study_instance_uid: str, folder: Path) -> Fetched:
        """Fetch a study into a folder that is there.

        Raises
        ------
        dicom_node.errors.RetriableError, FinalError
            It is not offered, refused, or did not come in time.
        """
        wanted = Wanted(study_instance_uid)
        if not self._moves:
            try:
                got = get(self._there, self._node.settings.node.ae_title, wanted, folder)
                return self._judged(got, "C-GET", study_instance_uid, folder)
            except (RetriableError, FinalError) as error:
                # Some offer it, and abort when it is asked for: Orthanc 1.10 where it is forbidden.
                if self._node.settings.priors.by == "get":
                    raise
                self._require_admission(f"{error.sentence}; and by C-MOVE it ")
                self._moves = True
        self._require_admission(f"{self._there} ")
        got = move_here(
            self._node,
            self._there,
            wanted,
            folder,
            senders=self._senders,
            longest_seconds=self._node.settings.priors.longest_seconds,
            job_id=self._job_id,
        )
        return self._judged(got, "C-MOVE", study_instance_uid, folder)

    def _require_admission(self, who: str) -> None:
        """Raise unless it may bring here what it is asked to move."""
        if not may_any_store(self._node.settings, self._senders):
            raise FinalError(
                f"{who}could not bring anything here: list {' or '.join(self._senders)} under "
                "peers in node.yaml, with allow: [echo, store]"
            )

    def _judged(self, got: Retrieved, way: str, study: str, folder: Path) -> Fetched:
        """Hold what came against what the other side says of it."""
        images = sum(1 for _ in folder.glob("*.dcm"))
        lost = got.failed + max(0, got.completed - images)
        remark = ""
        if images == 0 and got.completed == 0 and got.failed == 0:
            remark = f"its {way} brought nothing of study {study}"
        elif images == 0 and got.completed and way == "C-MOVE":
            remark = (
                f"it says that it moved {got.completed} images of study {study}, and none came "
                f"here as moved: {what_to_tell_it(self._node)} Or it leaves out Move Originator "
                "(0000,1030) and (0000,1031): then they were taken in like any new study, and "
                "priors.destination should be null"
            )
        elif lost:
            remark = f"{lost} images of study {study} did not come"
            if images == 0 and way == "C-MOVE":
                remark += f". {what_to_tell_it(self._node)}"
        return Fetched(images, way, remark)
