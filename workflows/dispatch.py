"""Which job should be looked at next, and by which task.

A message carries nothing but a number: what to do stands in the database. A message that is
lost, late or doubled therefore does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, NamedTuple

from db.jobs import Due, JobState

TASKS: Final[Mapping[JobState, str]] = MappingProxyType(
    {
        JobState.WAITING: "unibiomed.consider_study",
        JobState.QUEUED: "unibiomed.interpret_job",
        JobState.ENCODING: "unibiomed.encode_job",
        JobState.DELIVERING: "unibiomed.deliver_job",
    }
)
"""The task for each state in which a job rests."""
SWEEP_TASK: Final = "unibiomed.sweep"
RETENTION_TASK: Final = "unibiomed.clean_up"
ECHO_TASK: Final = "unibiomed.echo_destinations"
NOTICE_TASK: Final = "unibiomed.send_notices"
AUDIT_TASK: Final = "unibiomed.send_audit"
COMMITMENT_TASK: Final = "unibiomed.report_commitments"
WORKLIST_TASK: Final = "unibiomed.perform_worklists"

QUEUES: Final[Mapping[str, str]] = MappingProxyType(
    {
        TASKS[JobState.WAITING]: "io",
        TASKS[JobState.QUEUED]: "gpu",
        TASKS[JobState.ENCODING]: "io",
        TASKS[JobState.DELIVERING]: "deliver",
        SWEEP_TASK: "io",
        RETENTION_TASK: "io",
        ECHO_TASK: "deliver",
        NOTICE_TASK: "io",
        AUDIT_TASK: "io",
        COMMITMENT_TASK: "deliver",
        WORKLIST_TASK: "deliver",
    }
)
"""The queue of each task. Deliveries have their own: a PACS that takes the call and never answers
holds up other deliveries, and nothing else."""
ROUTINE: Final = 6


_URGENT: Final = 3


def aged(priority: int, waited: timedelta, aging_seconds: float) -> int:
    """Return the priority of a job that has waited so long.

    For each `aging_seconds` it counts as one step of three more urgent, up to urgent: however many
    urgent studies come, routine ones have their turn, and stat stays before all.
    """
    steps = max(0, int(waited.total_seconds() // aging_seconds))
    return max(min(priority, _URGENT), priority - 3 * steps)


class Dispatch(NamedTuple):
    """One message to send.

    Attributes
    ----------
    job_id
        The job; None where only the study is known, before it has jobs.
    state
        The state in which it rests.
    study_id
        Its study.
    priority
        0 first.
    after_seconds
        Not before so many seconds have passed.
    raised
        Whether it has come a step forward by waiting since it was announced last: the message that
        lies in the queue is worth less than this one.
    """

    job_id: int | None
    state: JobState
    study_id: int
    priority: int = ROUTINE
    after_seconds: float = 0.0
    raised: bool = False

    @classmethod
    def of(cls, due: Due, now: datetime, aging_seconds: float) -> Dispatch:
        """Return the message for a job that is due."""
        priority = aged(due.priority, now - due.since, aging_seconds)
        told = due.announced_at
        raised = told is not None and priority < aged(due.priority, told - due.since, aging_seconds)
        return cls(due.job_id, due.state, due.study_id, priority, raised=raised)

    @property
    def task(self) -> str:
        """Name of the task."""
        return TASKS[self.state]

    @property
    def argument(self) -> int:
        """The number that the message carries."""
        if self.state is JobState.WAITING or self.job_id is None:
            return self.study_id
        return self.job_id
