"""The job state machine, in one place for those who use it.

The database owns a job: its state, lease, heartbeat, fencing token and attempts. Workers use
`claim`, `heartbeat`, `advance`, `postpone` and `finish`; the sweep uses `due`, `announced` and
`release_expired`; people use `hurry`, `reopen` and `finish` with a job's identifier.
"""

from db.leases import (
    Lease,
    LostLease,
    advance,
    claim,
    finish,
    guard,
    heartbeat,
    postpone,
)
from db.listing import JobPage, job_as_json, jobs_of_study, list_jobs
from db.pairs import Pair, enqueue, pairing_key, queued_priorities, sources_of
from db.resting import (
    Due,
    Released,
    announced,
    due,
    explain,
    forget_workers,
    has_expired,
    hurry,
    release_expired,
    reopen,
    untaken,
)
from db.stages import note_event
from db.states import (
    END_STATES,
    LIVE_STATES,
    RESTING_STATES,
    IllegalTransition,
    JobState,
    allowed,
)

__all__ = [
    "END_STATES",
    "LIVE_STATES",
    "RESTING_STATES",
    "Due",
    "IllegalTransition",
    "JobPage",
    "JobState",
    "Lease",
    "LostLease",
    "Pair",
    "Released",
    "advance",
    "allowed",
    "announced",
    "claim",
    "due",
    "enqueue",
    "explain",
    "finish",
    "forget_workers",
    "guard",
    "has_expired",
    "heartbeat",
    "hurry",
    "job_as_json",
    "jobs_of_study",
    "list_jobs",
    "note_event",
    "pairing_key",
    "postpone",
    "queued_priorities",
    "release_expired",
    "reopen",
    "sources_of",
    "untaken",
]
