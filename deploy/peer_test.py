"""Try a connection as an administrator would: C-ECHO both ways, an object stored and read back."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydicom.dataset import Dataset

from deploy.peer_read_back import object_to_store, read_back
from deploy.peer_step import Step
from dicom_node.errors import DicomNodeError
from dicom_node.peers import Peers
from workflows.callers import Call, calls_in
from workflows.carriers import Carrier, DimseCarrier, carrier_of
from workflows.home import Home
from workflows.network import called_peer, peers_of
from workflows.settings import NodeSettings, load

__all__ = ["Step", "UnknownPeerError", "try_peer"]

_LOOK_SECONDS = 0.25


class UnknownPeerError(Exception):
    """There is no such peer or destination; the text names those that there are."""


def try_peer(
    folder: Path, name: str, *, store: bool, wait_seconds: float, say: Callable[[str], None]
) -> Iterator[Step]:
    """Yield the steps as they are done.

    Parameters
    ----------
    folder
        The node's home.
    name
        Of a destination or of a peer; a peer of the destination's AE title counts as the same.
    store
        Whether a test object is stored there; it stays there.
    wait_seconds
        How long to wait for a call from the other side.
    say
        Receives what the person at the terminal should do meanwhile.

    Raises
    ------
    UnknownPeerError
        There is no such name.
    workflows.yaml_positions.ConfigurationError
        ``node.yaml`` has a mistake.
    """
    home = Home(folder.expanduser().resolve())
    settings = load(home.node_yaml)
    there, peers = _look_up(settings, name)
    if there is None:
        yield Step("C-ECHO to it", None, "its address is not known; give the peer host and port")
    else:
        answer, what = there.verify(), f"{there.echo_name} to it"
        yield Step(what, answer.ok, f"{answer.sentence} ({answer.seconds * 1000:.0f} ms)")
        if store and answer.ok:
            yield from _store_and_read_back(home, there)
    if not peers.entries:
        yield Step("its call to us", None, f"{name} is no peer: it may not call this node")
        return
    yield _called(home, settings, peers, wait_seconds, say)


def _look_up(settings: NodeSettings, name: str) -> tuple[Carrier | None, Peers]:
    """Return how to call it, and the entries by which it may call."""
    destination = settings.destination(name)
    title = getattr(destination, "ae_title", None)
    entries = [
        peer
        for peer in peers_of(settings).entries
        if peer.name == name or (title is not None and peer.ae_title == title)
    ]
    if destination is None and not entries:
        known = [one.name for one in settings.destinations]
        known += [one.name for one in settings.peers]
        raise UnknownPeerError(
            f"There is no {name!r} in node.yaml; there are: {', '.join(known) or 'none yet'}."
        )
    there: Carrier | None = None
    if destination is not None:
        there = carrier_of(destination, settings)
    else:
        named = (peer for peer in settings.peers if peer.name == name)
        place = next((one for peer in named if (one := called_peer(peer, settings.tls))), None)
        there = None if place is None else DimseCarrier(place, settings.node.ae_title)
    return there, Peers(entries)


def _store_and_read_back(home: Home, there: Carrier) -> Iterator[Step]:
    dataset = object_to_store()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.dcm"
        dataset.save_as(path, enforce_file_format=True)
        try:
            status = there.send([path], lambda _: None)[0]
        except DicomNodeError as error:
            yield Step("test object stored", False, error.sentence)
            return
        patient = f"patient {dataset.PatientID}, study {dataset.StudyInstanceUID}; delete it there"
        yield Step("test object stored", status.is_stored, f"{status.sentence} ({patient})")
        if status.is_stored:
            yield _found(there, dataset)
            yield read_back(home, there, path)


def _found(there: Carrier, dataset: Dataset) -> Step:
    """Look whether it is found by its UIDs."""
    what, uid = "test object found", str(dataset.SOPInstanceUID)
    try:
        found = there.holds(str(dataset.StudyInstanceUID), {str(dataset.SeriesInstanceUID): [uid]})
    except DicomNodeError as error:
        return Step(what, False, error.sentence)
    how = there.find_name
    said = f"found by {how}" if uid in found else f"its {how} does not know the object"
    return Step(what, uid in found, said)


def _called(
    home: Home,
    settings: NodeSettings,
    peers: Peers,
    wait_seconds: float,
    say: Callable[[str], None],
) -> Step:
    """Look whether the peer calls, waiting for it; else tell when it last did."""
    what = "its call to us"
    began = datetime.now(UTC)
    before = _last_call(home, peers)
    if wait_seconds > 0:
        titles = " or ".join(sorted({peer.ae_title for peer in peers.entries}))
        say(
            f"Now let {titles} send a C-ECHO to {settings.node.ae_title}, port "
            f"{settings.node.port} (waiting {wait_seconds:g} s; --wait 0 leaves this out)."
        )
    until = time.monotonic() + wait_seconds
    while time.monotonic() < until:
        call = _last_call(home, peers)
        if call is not None and datetime.fromisoformat(call.at) >= began:
            return Step(what, True, f"{call.calling_ae_title} called from {call.host}")
        time.sleep(_LOOK_SECONDS)
    if before is not None:
        return Step(what, None, f"not now; it called last at {before.at} from {before.host}")
    refused = "; unibiomed-node peers list tells whether it was refused"
    return Step(what, None if wait_seconds == 0 else False, f"it has never called{refused}")


def _last_call(home: Home, peers: Peers) -> Call | None:
    calls = [
        call
        for call in calls_in(home.callers_json)
        if peers.find(call.calling_ae_title, call.host) is not None
    ]
    return max(calls, key=lambda call: datetime.fromisoformat(call.at), default=None)
