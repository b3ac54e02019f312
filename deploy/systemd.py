"""Tell systemd when the node is ready and when it stops: sd_notify(3), protocol of ``Type=notify``.

``systemctl start`` then returns once the node takes studies, or fails with the reason.
"""

from __future__ import annotations

import os
import socket

__all__ = ["notify"]


def notify(*assignments: str) -> bool:
    """Send assignments such as ``READY=1`` to whoever started the node.

    Parameters
    ----------
    assignments
        What changed, by the names of sd_notify(3). One line each: a line break would begin
        another assignment.

    Returns
    -------
    bool
        Whether it was told. False without systemd, and where systemd does not listen any more:
        the node goes on without it.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    lines = "\n".join(" ".join(assignment.split()) for assignment in assignments)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
        try:
            # A leading @ stands for the zero byte of an abstract address (unix(7)).
            told.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            told.sendall(lines.encode())
        except OSError:
            return False
    return True
