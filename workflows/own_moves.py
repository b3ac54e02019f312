"""What the node has moved to itself: noted by who asks for it, recognised by the listener."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from db import own_moves
from dicom_node.errors import FinalError, RetriableError
from dicom_node.peers import ANY_AE_TITLE
from dicom_node.services.association import Destination
from dicom_node.services.events import MovedInstance
from dicom_node.services.retrieve_scu import Retrieved, Wanted, move
from workflows.node import Node
from workflows.settings import NodeSettings

_LATE: Final = timedelta(hours=1)
"""What comes so long after its move was given up is refused, and no new study."""


def move_here(
    node: Node,
    source: Destination,
    wanted: Wanted,
    folder: Path,
    *,
    senders: Collection[str],
    longest_seconds: float,
    job_id: int | None = None,
) -> Retrieved:
    """Have something sent to the node's listener, which puts it into a folder and tells nobody.

    Parameters
    ----------
    node
        Its listener must run, and `source` know it by its AE title.
    source
        Whom to ask.
    wanted
        What for.
    folder
        In the node's work; it must be there.
    senders
        AE titles under which it may come.
    longest_seconds
        For all of it.
    job_id
        Whom it is for.

    Raises
    ------
    dicom_node.errors.RetriableError, FinalError
        As `dicom_node.services.retrieve_scu.move`. What comes afterwards is refused.
    """
    ours = node.settings.node.ae_title
    with node.database.session() as session:
        begun = own_moves.begin(
            session,
            study_instance_uid=wanted.study,
            folder=folder.relative_to(node.home.work).as_posix(),
            senders=senders,
            originator=ours,
            now=node.now(),
            # It is given up before; this is for a process that dies meanwhile.
            until=node.now() + timedelta(seconds=2 * longest_seconds),
            job_id=job_id,
        )
        number, message_id = begun.id, begun.message_id
    try:
        return move(
            source, ours, wanted, ours, message_id=message_id, longest_seconds=longest_seconds
        )
    finally:
        with node.database.session() as session:
            own_moves.end(session, number, node.now())


def what_to_tell_it(node: Node) -> str:
    """Say what a PACS must know to move something here."""
    settings = node.settings.node
    return (
        f"As destination of a C-MOVE it must know {settings.ae_title}, with this node's host and "
        f"port {settings.port}."
    )


def take_away(folder: Path) -> None:
    """Remove a folder that something may still be coming to; there need be none.

    By another name first: what comes then finds no folder, and is refused, where it would else be
    put into one that is just being emptied.
    """
    aside = folder.with_name(f"{folder.name}.gone")
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(FileNotFoundError):
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def senders_of(settings: NodeSettings, destination: str, ae_title: str) -> tuple[str, ...]:
    """Return the AE titles under which a destination sends what it is asked to move."""
    priors = settings.priors
    return (priors.destination == destination and priors.sent_by) or (ae_title,)


def may_any_store(settings: NodeSettings, ae_titles: Collection[str]) -> bool:
    """Whether one of these AE titles is listed as a peer that may store here."""
    return any(peer.ae_title in ae_titles and "store" in peer.allow for peer in settings.peers)


class ExpectedInstances:
    """Tells where an instance belongs whose sender says that a C-MOVE asked for it.

    To say so is no way past the rules: it has to be a move of this node's that is under way, for
    that very study, from a peer that is listed by that AE title. All else is received as ever.

    Parameters
    ----------
    node
        Whose database and work.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    def folder_for(self, moved: MovedInstance) -> Path | None:
        """Return where to keep what was asked for; None for all else.

        Raises
        ------
        FinalError
            The node asked for it, and has given it up within the last hour.
        RetriableError
            The database cannot tell now.
        """
        node, claimed = self._node, moved.originator
        if moved.peer is None or moved.peer.ae_title == ANY_AE_TITLE:
            return None
        try:
            with node.database.reading() as session:
                found = own_moves.find(session, moved.study_instance_uid, claimed.message_id)
                if found is None or moved.calling_ae_title not in found.senders:
                    return None
                # pynetdicom, and what is built on it, names itself as the one who asked.
                if claimed.ae_title not in (found.originator, moved.calling_ae_title):
                    return None
                ended_at = min(found.until, found.ended_at or found.until)
                folder = node.home.work / found.folder
        except SQLAlchemyError as error:
            raise RetriableError(
                f"the node's database cannot tell where it belongs ({type(error).__name__})"
            ) from error
        if node.now() < ended_at:
            return folder
        if node.now() - ended_at < _LATE:
            raise FinalError("the C-MOVE that it belongs to was given up")
        return None
