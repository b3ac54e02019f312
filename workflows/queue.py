"""Celery on Redis: the application and its options.

The database owns the jobs, so the queue may lose or double messages. Still it should seldom do
so: each option below says what it is for.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from workflows.configuration import Configuration
from workflows.dispatch import (
    AUDIT_TASK,
    COMMITMENT_TASK,
    ECHO_TASK,
    NOTICE_TASK,
    QUEUES,
    RETENTION_TASK,
    SWEEP_TASK,
    WORKLIST_TASK,
    Dispatch,
)

_LOG = logging.getLogger(__name__)

# Kombu lets through what Redis says itself: out of memory, its disk full, too few replicas.
_BROKER_ERRORS: Final = (BrokerError, KombuError, RedisError, OSError)
_PRIORITY_STEPS: Final = [0, 3, 6, 9]
_BROKER_SECONDS: Final = 5.0
"""Deadline of one call to the broker."""
_DEPTH: Final = 100
"""Messages in one queue beyond which the sweep adds none."""
_RETENTION_SECONDS: Final = 3600.0
_ECHO_SECONDS: Final = 120.0
_NOTICE_SECONDS: Final = 10.0
_AUDIT_SECONDS: Final = 5.0


def silence_of(configuration: Configuration) -> str | None:
    """Return why the broker does not answer, within seconds; None when it does."""
    app = Celery("unibiomed")
    app.conf.update(options(configuration))
    app.conf.broker_transport_options["socket_timeout"] = _BROKER_SECONDS
    try:
        with app.connection_for_write() as connection:
            _ = connection.default_channel
    except _BROKER_ERRORS as error:
        return str(error)[:200]
    return None


def options(configuration: Configuration) -> dict[str, Any]:
    """Return the settings of the Celery application."""
    jobs = configuration.settings.jobs
    # The hard end of a task in the io pool: later than the deadline that a stage keeps itself,
    # and earlier than the moment at which the broker would hand the message out again.
    hard_limit = jobs.deadline_seconds + jobs.lease_seconds
    return {
        "broker_url": configuration.broker_url,
        "broker_transport_options": {
            "visibility_timeout": int(hard_limit + 600),
            # Messages of a worker that was killed come back within seconds instead of minutes:
            # kombu looks each `interval` times `throttle` seconds (defaults 10 x 10).
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "priority_steps": _PRIORITY_STEPS,
            "sep": ":",
            "queue_order_strategy": "priority",
            "socket_timeout": _BROKER_SECONDS + 25.0,
            "socket_connect_timeout": _BROKER_SECONDS,
            "socket_keepalive": not configuration.broker_url.startswith("redis+socket"),
            "health_check_interval": 30,
            # Of calls outside a worker's own connection; without an end they would hang.
            "max_retries": 2,
            "interval_start": 0.05,
            "interval_step": 0.1,
            "interval_max": 0.2,
        },
        # A worker waits for a broker that restarts, but not for ever: then its supervisor sees it
        # end and says so.
        "broker_connection_timeout": _BROKER_SECONDS,
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": 60,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # Publishing fails fast: the sweep sends again what could not be sent.
        "task_publish_retry": True,
        "task_publish_retry_policy": {
            "max_retries": 2,
            "interval_start": 0.05,
            "interval_step": 0.1,
            "interval_max": 0.2,
        },
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "result_backend": None,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "task_time_limit": int(hard_limit),
        "task_queues": _queues(),
        "task_default_queue": "io",
        "task_create_missing_queues": False,
        "task_routes": {task: {"queue": queue} for task, queue in QUEUES.items()},
        "task_default_priority": 6,
        "enable_utc": True,
        "timezone": "UTC",
        "worker_send_task_events": False,
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
        "beat_schedule": _schedule(configuration),
        "beat_max_loop_interval": max(1, int(jobs.sweep_seconds)),
    }


def _queues() -> list[Any]:
    # Exchange and key are named: Celery binds a queue without them to the default queue's, and
    # each message would then lie in both queues.
    make: Any = Queue  # kombu has no hints
    exchange: Any = Exchange
    return [
        make(name, exchange=exchange(name, type="direct"), routing_key=name)
        for name in dict.fromkeys(QUEUES.values())
    ]


def _schedule(configuration: Configuration) -> dict[str, Any]:
    """Return what beat sends. Messages that nobody took before the next one are dropped."""
    sweep_seconds = configuration.settings.jobs.sweep_seconds
    return {
        "sweep": {
            "task": SWEEP_TASK,
            "schedule": sweep_seconds,
            "options": {"expires": sweep_seconds, "priority": 0},
        },
        "clean up": {
            "task": RETENTION_TASK,
            "schedule": _RETENTION_SECONDS,
            "options": {"expires": _RETENTION_SECONDS, "priority": 9},
        },
        "report commitments": {
            "task": COMMITMENT_TASK,
            "schedule": sweep_seconds,
            "options": {"expires": sweep_seconds, "priority": 6},
        },
        "worklists": {
            "task": WORKLIST_TASK,
            "schedule": sweep_seconds,
            "options": {"expires": sweep_seconds, "priority": 6},
        },
        "echo": {
            "task": ECHO_TASK,
            "schedule": _ECHO_SECONDS,
            "options": {"expires": _ECHO_SECONDS, "priority": 9},
        },
        "notices": {
            "task": NOTICE_TASK,
            "schedule": _NOTICE_SECONDS,
            "options": {"expires": _NOTICE_SECONDS, "priority": 9},
        },
        "audit": {
            "task": AUDIT_TASK,
            "schedule": _AUDIT_SECONDS,
            "options": {"expires": _AUDIT_SECONDS, "priority": 9},
        },
    }


def send_within_depth(app: Celery, dispatches: Sequence[Dispatch]) -> list[Dispatch]:
    """Publish at most as many messages as let each queue be `_DEPTH` long; for the sweep.

    Nobody knows whether an announced job's message was lost or only waits behind others. In a
    short queue it costs nothing to send it again; in a long one the workers have enough to do.
    """
    room: dict[str, int] = {}
    chosen = []
    try:
        with app.connection_for_write() as connection:
            for name in dict.fromkeys(QUEUES[dispatch.task] for dispatch in dispatches):
                declared = connection.default_channel.queue_declare(name)
                room[name] = _DEPTH - int(declared.message_count)
    except _BROKER_ERRORS as error:
        _LOG.warning("the broker is away (%s)", error)
        return []
    for dispatch in dispatches:
        name = QUEUES[dispatch.task]
        if room[name] > 0 or dispatch.raised:
            room[name] -= 1
            chosen.append(dispatch)
    return send(app, chosen)


def send(app: Celery, dispatches: Sequence[Dispatch]) -> list[Dispatch]:
    """Publish messages; return those that the broker took.

    A broker that is away fails no stage: its work is in the database, and the sweep announces it
    again.
    """
    taken = []
    for dispatch in dispatches:
        try:
            app.send_task(
                dispatch.task,
                args=(dispatch.argument,),
                priority=dispatch.priority,
                countdown=dispatch.after_seconds or None,
                ignore_result=True,
            )
        except _BROKER_ERRORS as error:
            _LOG.warning("the broker is away (%s); the sweep will send again", error)
            break
        taken.append(dispatch)
    return taken
