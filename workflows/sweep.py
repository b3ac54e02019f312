"""The safety net: free jobs whose worker fell silent, and announce jobs that nobody took up.

Runs each few seconds. It also looks at the studies that wait, because a waiting job becomes due
like any other. A job that was announced is left alone for a while, so that a long backlog does
not fill the queue with copies of itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from db.clock import follow_clock, is_set_back
from db.jobs import (
    JobState,
    announced,
    due,
    explain,
    has_expired,
    release_expired,
    untaken,
)
from workflows.dispatch import Dispatch
from workflows.node import Node

_LOG = logging.getLogger(__name__)

_MOST_AT_ONCE: Final = 5000
_AHEAD: Final = timedelta(minutes=5)
"""Clocks of several hosts may differ by less; a job written later than this was before a change."""
_UNTAKEN_SECONDS: Final = 120.0
"""How long nobody may take up a job while no worker infers; loading a model takes a while."""
_MOST_EXPLAINED: Final = 500
"""Below the number of parameters that a statement may have."""
Send = Callable[[Sequence[Dispatch]], list[Dispatch]]
"""Sends messages and returns those that the broker took."""


def sweep(node: Node, send: Send) -> int:
    """Free and announce what is due.

    Parameters
    ----------
    node
        The node.
    send
        Publishes; what it does not return is announced again by the next sweep.

    Returns
    -------
    int
        Messages sent.
    """
    now = node.now()
    ahead = now + _AHEAD
    with node.database.reading() as session:
        set_back = is_set_back(session, ahead)
        expired = has_expired(session, now)
    if set_back:
        _follow_clock(node, now, ahead)
    if expired:
        _free(node, now)
    with node.database.reading() as session:
        found = due(
            session,
            now,
            announce_again_seconds=node.settings.jobs.resend_seconds,
            limit=_MOST_AT_ONCE,
        )
    if not found:
        return 0
    if any(one.state is JobState.QUEUED for one in found):
        _explain_untaken(node, now)
    aging = node.settings.jobs.aging_seconds
    dispatches = [Dispatch.of(one, now, aging) for one in found]
    return announce(node, sorted(dispatches, key=lambda one: one.priority), send)


def _follow_clock(node: Node, now: datetime, ahead: datetime) -> None:
    lease_ends = now + timedelta(seconds=node.settings.jobs.lease_seconds)
    with node.database.session() as session:
        count = follow_clock(session, now, ahead, lease_ends)
    _LOG.warning("the clock was set back; %d jobs that would have slept are looked at now", count)


def _free(node: Node, now: datetime) -> None:
    with node.database.session() as session:
        released = release_expired(session, now, node.settings.jobs.attempts)
    for job_id, state in released:
        level = logging.ERROR if state is JobState.FAILED else logging.WARNING
        _LOG.log(level, "job %d lost its worker; it is %s now", job_id, state)


def _explain_untaken(node: Node, now: datetime) -> None:
    """Tell of a worker that ends again and again before it takes up a job: only its log knows."""
    with node.database.reading() as session:
        job_ids = untaken(session, now - timedelta(seconds=_UNTAKEN_SECONDS))[:_MOST_EXPLAINED]
    if not job_ids:
        return
    reason = (
        f"no worker for the model has taken this up for {_UNTAKEN_SECONDS:g} s; see "
        f"{node.home.log}/worker-gpu.log"
    )
    with node.database.session() as session:
        explain(session, job_ids, reason)
    _LOG.error("%d jobs: %s", len(job_ids), reason)


def announce(node: Node, dispatches: Sequence[Dispatch], send: Send) -> int:
    """Send messages and note which were taken, so that the sweep does not send them again."""
    if not dispatches:
        return 0
    taken = send(dispatches)
    # What should only be looked at later is left to the sweep too: a worker that holds such a
    # message may be killed before its time has come.
    job_ids = [one.job_id for one in taken if one.job_id is not None and not one.after_seconds]
    if job_ids:
        with node.database.session() as session:
            announced(session, job_ids, node.now())
    return len(taken)
