"""The states of a job and the ways between them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType


class JobState(enum.StrEnum):
    """One set of stage names, used in code, database, dashboard, metrics, logs and documents."""

    RECEIVED = "received"
    WAITING = "waiting"
    QUEUED = "queued"
    PREPARING = "preparing"
    INFERRING = "inferring"
    ENCODING = "encoding"
    VALIDATING = "validating"
    DELIVERING = "delivering"
    CONFIRMING = "confirming"
    DELIVERED = "delivered"
    NOT_APPLICABLE = "not_applicable"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


END_STATES: frozenset[JobState] = frozenset(
    {
        JobState.DELIVERED,
        JobState.NOT_APPLICABLE,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.SUPERSEDED,
    }
)
"""States that no worker leaves; a person reopens a failed, cancelled or not applicable job."""

LIVE_STATES: frozenset[JobState] = frozenset(JobState) - END_STATES

RESTING_STATES: frozenset[JobState] = frozenset(
    {JobState.WAITING, JobState.QUEUED, JobState.ENCODING, JobState.DELIVERING}
)
"""States in which a job lies without a lease until a worker claims it."""

DISCARDED_STATES: frozenset[JobState] = END_STATES - {JobState.DELIVERED}
"""Ends that leave nothing at a destination: the same pair may be made again."""

RESTING_STATE_OF: Mapping[JobState, JobState] = MappingProxyType(
    {
        JobState.RECEIVED: JobState.WAITING,
        JobState.WAITING: JobState.WAITING,
        JobState.QUEUED: JobState.QUEUED,
        JobState.PREPARING: JobState.QUEUED,
        JobState.INFERRING: JobState.QUEUED,
        JobState.ENCODING: JobState.ENCODING,
        JobState.VALIDATING: JobState.ENCODING,
        JobState.DELIVERING: JobState.DELIVERING,
        JobState.CONFIRMING: JobState.DELIVERING,
    }
)
"""Where a live job starts again when its worker is lost or asks for another attempt."""

_FORWARD: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        JobState.RECEIVED: frozenset({JobState.WAITING}),
        JobState.WAITING: frozenset({JobState.QUEUED, JobState.NOT_APPLICABLE}),
        JobState.QUEUED: frozenset({JobState.PREPARING, JobState.NOT_APPLICABLE}),
        JobState.PREPARING: frozenset({JobState.INFERRING, JobState.NOT_APPLICABLE}),
        JobState.INFERRING: frozenset({JobState.ENCODING, JobState.NOT_APPLICABLE}),
        JobState.ENCODING: frozenset({JobState.VALIDATING}),
        JobState.VALIDATING: frozenset({JobState.DELIVERING}),
        # Back where a destination takes no object of this class, but may take another form.
        JobState.DELIVERING: frozenset(
            {JobState.CONFIRMING, JobState.DELIVERED, JobState.ENCODING}
        ),
        JobState.CONFIRMING: frozenset({JobState.DELIVERED}),
    }
)
_ALWAYS: frozenset[JobState] = frozenset({JobState.FAILED, JobState.CANCELLED, JobState.SUPERSEDED})
REOPENABLE_STATES: frozenset[JobState] = frozenset(
    {JobState.FAILED, JobState.CANCELLED, JobState.NOT_APPLICABLE}
)
"""Ends that a person may take back, once what was wrong is mended: settings, rules, model, PACS."""


class IllegalTransition(ValueError):  # noqa: N818 - named as the contract names it
    """A job was asked to take a way that does not exist; a mistake in the code that asked."""


def allowed(origin: JobState, target: JobState) -> bool:
    """Say whether a job may go from one state to the other.

    Parameters
    ----------
    origin, target
        The state that the job is in, and the one it should be in next.

    Returns
    -------
    bool
        True for the next stage, for an end, for the way back to the resting state of the same
        step, and for the resting states that a person may reopen an ended job in.
    """
    if origin in REOPENABLE_STATES:
        return target in RESTING_STATES
    if origin in END_STATES:
        return False
    return target in _FORWARD[origin] or target in _ALWAYS or target is RESTING_STATE_OF[origin]


def require_allowed(origin: JobState, target: JobState) -> None:
    """Raise `IllegalTransition` unless `allowed`.

    Raises
    ------
    IllegalTransition
        When there is no such way.
    """
    if not allowed(origin, target):
        raise IllegalTransition(f"a job cannot go from {origin} to {target}")
