"""The one place where an error in a stage becomes a state of its job.

Everything below raises; nothing below decides what a failure means for the job. No error leaves
here, because a worker serves other jobs too.
"""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db.jobs import JobState, Lease, LostLease, claim, finish, postpone
from db.models import Job
from db.session import is_passing
from db.states import RESTING_STATE_OF
from dicom_node.errors import FinalError, RejectedError, RetriableError
from inference.errors import (
    CheckpointError,
    DeviceLostError,
    FinalInferenceError,
    NotCoveredError,
    RetriableInferenceError,
)
from workflows.dispatch import Dispatch
from workflows.errors import NotApplicableError
from workflows.lease_keeper import DeadlineError, LeaseKeeper
from workflows.node import Node
from workflows.parcels import NotCalledError
from workflows.settings import RetrySettings

_LOG = logging.getLogger(__name__)

Work = Callable[[Lease, LeaseKeeper], list[Dispatch]]
ResultT = TypeVar("ResultT")


def pause_seconds(attempts: int, retries: RetrySettings) -> float:
    """Return how long to wait before the next attempt.

    Doubles with each attempt up to a limit; the random part keeps jobs that failed together from
    coming back together.

    Parameters
    ----------
    attempts
        How often this step was tried before, from 0.
    retries
        The settings.
    """
    # 2**64 is far beyond any limit and still a float.
    doubled = retries.first_seconds * 2.0 ** min(attempts, 64)
    return min(retries.longest_seconds, doubled) * random.uniform(0.75, 1.25)


def attend(
    node: Node,
    job_id: int,
    frm: JobState,
    work: Work,
    *,
    abandon: Callable[[], None] | None = None,
) -> list[Dispatch]:
    """Claim a job, do one step of it, and turn whatever goes wrong into a state.

    Parameters
    ----------
    node
        What the step works with.
    job_id, frm
        The job, and the state in which it should rest.
    work
        The step; returns what should be done next. It moves the job on itself.
    abandon
        See `LeaseKeeper`.

    Returns
    -------
    list of Dispatch
        What should be looked at next; empty when the job was not there to be claimed.
    """
    jobs = node.settings.jobs
    with node.database.session() as session:
        lease = claim(session, job_id, node.owner, frm, jobs.lease_seconds, node.now())
    if lease is None:
        _LOG.debug("job %d does not rest in %s: nothing to do", job_id, frm)
        return []
    began = time.monotonic()
    try:
        with LeaseKeeper(
            node.database,
            lease,
            lease_seconds=jobs.lease_seconds,
            deadline_seconds=jobs.deadline_seconds,
            abandon=abandon,
        ) as keeper:
            following = work(lease, keeper)
        seconds = time.monotonic() - began
        after = ", ".join(dict.fromkeys(str(one.state) for one in following)) or "nothing"
        _LOG.info("job %d: %s took %.2f s, next %s", job_id, frm, seconds, after)
        return following
    except LostLease as error:
        _LOG.warning("%s", error)
    except RetriableError as error:
        level = logging.DEBUG if isinstance(error, NotCalledError) else logging.WARNING
        return _again(node, lease, error.sentence, after_seconds=error.after_seconds, level=level)
    except SQLAlchemyError as error:
        if is_passing(error):
            return _again(node, lease, "the node's database did not answer in time")
        _unexpected(node, lease, error)
    except DeadlineError:
        _fail(
            node,
            lease,
            f"this step took longer than {jobs.deadline_seconds:g} s (jobs.deadline_seconds in "
            "node.yaml); raise the limit or leave such studies out by a rule, then retry the job",
        )
    except NotApplicableError as error:
        _end(node, lease, JobState.NOT_APPLICABLE, error.sentence)
    except NotCoveredError as error:
        _end(node, lease, JobState.NOT_APPLICABLE, str(error))
    except RejectedError as error:
        return _again(node, lease, error.sentence, most=node.settings.retries.rejected_attempts)
    except FinalError as error:
        _fail(node, lease, error.sentence)
    except DeviceLostError as error:
        again = _again(node, lease, str(error), most=jobs.attempts)
        if abandon is not None:
            # Whatever comes next would fail in this process, and end job after job.
            abandon()
        return again
    except RetriableInferenceError as error:
        return _again(node, lease, str(error))
    except CheckpointError as error:
        # The studies are whole; only the node is not set up. They wait until it is.
        return _again(
            node,
            lease,
            f"the model cannot be used: {error} Mend model.folder in node.yaml, and start the node "
            "again",
        )
    except FinalInferenceError as error:
        _fail(node, lease, str(error))
    except MemoryError:
        # Beside fewer neighbours it may fit; a source that never fits is given up soon.
        return _again(
            node,
            lease,
            "the worker's memory ran out; give the node more, or lower model.prepared_memory or "
            "workers.io in node.yaml",
            most=jobs.attempts,
        )
    except OSError as error:
        # A full or failing disk, too many open files, a share that is away: not this study's fault.
        _LOG.warning("job %d: %s", lease.job_id, type(error).__name__, exc_info=True)
        return _again(node, lease, _system_words(error))
    # The boundary: whatever else goes wrong is this job's failure and not the worker's.
    except Exception as error:
        _unexpected(node, lease, error)
    return []


def _unexpected(node: Node, lease: Lease, error: Exception) -> None:
    _LOG.exception("job %d failed unexpectedly", lease.job_id)
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    _fail(
        node,
        lease,
        f"an unexpected error ({name}) in the node's software; the log of the worker {lease.owner} "
        f"in {node.home.log} has the details. Please report it; retry the job after an update",
    )


def _system_words(error: OSError) -> str:
    """Say what the operating system refused, and where."""
    where = f" ({error.filename})" if isinstance(error.filename, str) else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{error.strerror or type(error).__name__}{where}" + ("; free space" if full else "")


def _again(
    node: Node,
    lease: Lease,
    sentence: str,
    most: int | None = None,
    after_seconds: float | None = None,
    level: int = logging.WARNING,
) -> list[Dispatch]:
    """Put the job back for a later attempt, unless there were enough.

    ``most`` limits how often in a row it may end so; what went before, as a PACS that was away for
    a day, is not counted. ``after_seconds`` is the least pause, as a destination asked for it.
    The log is told what is news, at a level; see `db.leases.postpone`. An end is always a warning.
    """

    def write(session: Session) -> tuple[list[Dispatch], int, str]:
        retries, now = node.settings.retries, node.now()
        job = session.get_one(Job, lease.job_id)
        spent = job.attempts + 1 >= retries.attempts
        if most is not None:
            spent |= job.strikes + 1 >= most
        if spent and job.state is not JobState.WAITING:
            reason = f"given up after {job.attempts + 1} attempts: {sentence}"
            finish(session, lease, JobState.FAILED, reason, now=now)
            return [], logging.WARNING, reason
        seconds = max(pause_seconds(job.attempts, retries), after_seconds or 0.0)
        resting = RESTING_STATE_OF[job.state]
        tries = job.attempts + 1
        is_news = postpone(
            session,
            lease,
            resting,
            sentence,
            now + timedelta(seconds=seconds),
            now=now,
            strike=most is not None,
        )
        news = (sentence if tries == 1 else f"{sentence} (try {tries})") if is_news else ""
        if seconds > node.settings.jobs.sweep_seconds:
            return [], level, news  # the sweep will find it
        return [Dispatch(job.id, resting, job.study_id, job.priority, seconds)], level, news

    following, loudness, news = _written(node, lease, write) or ([], level, sentence)
    if news:
        _LOG.log(loudness, "job %d: %s", lease.job_id, news)
    return following


def _fail(node: Node, lease: Lease, sentence: str) -> None:
    _LOG.error("job %d failed: %s", lease.job_id, sentence)
    _end(node, lease, JobState.FAILED, sentence)


def _end(node: Node, lease: Lease, state: JobState, sentence: str) -> None:
    def write(session: Session) -> None:
        finish(session, lease, state, sentence, now=node.now())

    _written(node, lease, write)


def _written(node: Node, lease: Lease, write: Callable[[Session], ResultT]) -> ResultT | None:
    """Write an outcome; if that is not possible, the lease runs out and the sweep takes over."""
    try:
        with node.database.session() as session:
            return write(session)
    except LostLease as error:
        _LOG.warning("%s", error)
    except SQLAlchemyError as error:
        if not is_passing(error):
            raise
        _LOG.error("job %d: outcome not written, its lease will run out", lease.job_id)
    return None
