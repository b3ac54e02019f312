"""Peers of pynetdicom that end at once when they are told to."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from pynetdicom import AE
from pynetdicom.events import EventHandlerType
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import ThreadedAssociationServer

LOOPBACK: Final = "127.0.0.1"
_LOOKS_FOR_THE_END_SECONDS: Final = 0.02


def listening(
    entity: AE,
    handlers: Sequence[EventHandlerType],
    *,
    port: int = 0,
    contexts: Sequence[PresentationContext] | None = None,
) -> ThreadedAssociationServer:
    """Let an entity listen as `AE.start_server` does, which looks for the end twice a second only.

    Half a second at the end of each test that has a peer is a minute of the suite.
    """
    server = entity.make_server(
        (LOOPBACK, port),
        contexts=None if contexts is None else list(contexts),
        evt_handlers=list(handlers),
        server_class=ThreadedAssociationServer,
    )
    entity._servers.append(server)
    threading.Thread(
        target=server.serve_forever,
        kwargs={"poll_interval": _LOOKS_FOR_THE_END_SECONDS},
        daemon=True,
    ).start()
    return server
