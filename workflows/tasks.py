"""The Celery application: ``celery -A workflows.tasks:app worker --queues io``.

The queues are ``io``, ``deliver`` and ``gpu``: `workflows.dispatch.QUEUES`.

Configured from the folder in the environment variable UNIBIOMED_HOME. Each task carries one
number and does one step; what it is about stands in the database. A stage turns what goes wrong
into a state of its job, so tasks do not fail; what a task could not write, the sweep finds.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from celery import Celery
from celery.signals import (
    after_setup_logger,
    celeryd_after_setup,
    task_postrun,
    worker_ready,
    worker_shutting_down,
)
from sqlalchemy.exc import SQLAlchemyError

from db.jobs import JobState
from db.session import is_passing
from workflows import consider, delivery, queue, retention, stages
from workflows.audit_sending import send_audit
from workflows.committing import report_commitments
from workflows.dispatch import (
    AUDIT_TASK,
    COMMITMENT_TASK,
    ECHO_TASK,
    NOTICE_TASK,
    QUEUES,
    RETENTION_TASK,
    SWEEP_TASK,
    TASKS,
    WORKLIST_TASK,
    Dispatch,
)
from workflows.echoing import echo_destinations
from workflows.notices import send_notices
from workflows.performing import perform_worklists
from workflows.process import WorkerProcess
from workflows.sweep import announce
from workflows.sweep import sweep as sweep_once
from workflows.worker_report import WorkerReport

_LOG = logging.getLogger(__name__)
_STOP_SECONDS: Final = 15.0
"""What a stopping gpu worker gives the running jobs; its supervisor waits a little longer."""

process = WorkerProcess()
app = Celery("unibiomed")
# Read when first needed: importing this file asks nothing of the environment.
app.add_defaults(lambda: queue.options(process.configuration))


def send(dispatches: Sequence[Dispatch]) -> list[Dispatch]:
    """Publish messages; return those that the broker took."""
    return queue.send(app, dispatches)


@contextlib.contextmanager
def _left_for_later() -> Iterator[None]:
    """Leave what the database does not answer now to the sweep, or to the next round."""
    try:
        yield
    except SQLAlchemyError as error:
        if not is_passing(error):
            raise


def _step(task: Callable[[int], Sequence[Dispatch]]) -> Callable[[int], None]:
    """Send what follows a step at once."""

    @functools.wraps(task)
    @_left_for_later()
    def run(number: int) -> None:
        announce(process.node, task(number), send)

    return run


@app.task(name=TASKS[JobState.WAITING])
@_step
def consider_study(study_id: int) -> Sequence[Dispatch]:
    """Look whether a study is complete, and let it become jobs."""
    return consider.consider_study(process.node, study_id)


@app.task(name=TASKS[JobState.QUEUED])
@_step
def interpret_job(job_id: int) -> Sequence[Dispatch]:
    """Do preparing and inferring."""
    return stages.interpret_job(process.node, job_id, process.engine, abandon=process.leave)


@app.task(name=TASKS[JobState.ENCODING])
@_step
def encode_job(job_id: int) -> Sequence[Dispatch]:
    """Do encoding and validating."""
    return stages.encode_job(process.node, job_id)


@app.task(name=TASKS[JobState.DELIVERING])
@_step
def deliver_job(job_id: int) -> Sequence[Dispatch]:
    """Do delivering and confirming."""
    return delivery.deliver_job(process.node, job_id)


@app.task(name=SWEEP_TASK)
@_left_for_later()
def sweep() -> None:
    """Free expired leases and announce what is due."""
    sweep_once(process.node, functools.partial(queue.send_within_depth, app))


@app.task(name=RETENTION_TASK)
@_left_for_later()
def clean_up() -> None:
    """Delete what is older than the settings say."""
    retention.clean_up(process.node)


@app.task(name=COMMITMENT_TASK)
@_left_for_later()
def commit() -> None:
    """Report to peers what the node commits to."""
    report_commitments(process.node)


@app.task(name=WORKLIST_TASK)
@_left_for_later()
def perform() -> None:
    """Do the work of worklists elsewhere."""
    perform_worklists(process.node)


@app.task(name=ECHO_TASK)
@_left_for_later()
def echo() -> None:
    """Ask the destinations whether they are there."""
    echo_destinations(process.node)


@app.task(name=NOTICE_TASK)
@_left_for_later()
def tell() -> None:
    """Send the notices about jobs that ended."""
    send_notices(process.node)


@app.task(name=AUDIT_TASK)
@_left_for_later()
def send_trail() -> None:
    """Send the audit trail to the site's collectors."""
    send_audit(process.node)


@after_setup_logger.connect(weak=False)
def log_jobs_not_messages(**_: object) -> None:
    """Leave out Celery's lines about each message: the sweep alone makes 50 000 a day."""
    for name in ("celery.worker.strategy", "celery.app.trace", "celery.beat"):
        logging.getLogger(name).setLevel(logging.WARNING)


@celeryd_after_setup.connect(weak=False)
def load_model_early(instance: Any, **_: object) -> None:
    """Let the worker that interprets load the model before the first job comes."""
    if "gpu" in instance.app.amqp.queues.consume_from:
        process.engine.start()
        process.answering.start()


@task_postrun.connect(weak=False)
def write_counts(**_: object) -> None:
    """Write down what the task counted, in the process that did it."""
    process.write_counts()


@worker_ready.connect(weak=False)
def report(sender: Any, **_: object) -> None:
    """Tell of this worker from now on; here, since a thread does not outlive the pool's fork."""
    queues = sorted(sender.app.amqp.queues.consume_from)
    WorkerReport(process.node, queues[0]).start()
    if QUEUES[ECHO_TASK] in queues:
        # The clock first sends it after its interval; until then nobody would know who is there.
        echo.apply_async(priority=9)


@worker_shutting_down.connect(weak=False)
def hand_jobs_back(**_: object) -> None:
    """Give running jobs a moment; then let them go back to the queue, for another worker."""
    if "engine" not in vars(process):
        return
    timer = threading.Timer(_STOP_SECONDS, process.engine.stop)
    timer.daemon = True
    timer.start()
