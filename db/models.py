"""The tables: all of them, from the files in which they are described.

Laid out for a million jobs and ten million instances: what is listed, filtered or swept has an
index, and partial indexes keep those of the few live jobs small.
"""

from __future__ import annotations

from db.base import KEPT, Base
from db.models_job import (
    LEASED,
    OPEN_STUDY_JOB,
    STANDING_PAIR,
    Job,
    JobEvent,
    JobInstance,
    JobStage,
)
from db.models_performing import Claim, WorklistContact
from db.models_probe import ProbeRecord
from db.models_received import Instance, Quarantine, Refusal, Series, Study, StudyAssociation
from db.models_result import (
    REJECTION_NOTE,
    DeliveryRecord,
    DeliveryState,
    FindingRecord,
    ResultRecord,
    ResultState,
    Withdrawal,
)

__all__ = [
    "KEPT",
    "LEASED",
    "OPEN_STUDY_JOB",
    "REJECTION_NOTE",
    "STANDING_PAIR",
    "Base",
    "Claim",
    "DeliveryRecord",
    "DeliveryState",
    "FindingRecord",
    "Instance",
    "Job",
    "JobEvent",
    "JobInstance",
    "JobStage",
    "ProbeRecord",
    "Quarantine",
    "Refusal",
    "ResultRecord",
    "ResultState",
    "Series",
    "Study",
    "StudyAssociation",
    "Withdrawal",
    "WorklistContact",
]
