"""Receive rate of the node beside DCMTK storescp and Orthanc, in one run on this machine.

    python benchmarks/receive.py [--repeats 3] [--instances 300] [--bare] [--both] [--json FILE]

Sends synthetic CT instances (512 x 512, 16 bit) by DCMTK's dcmsend over 127.0.0.1, on 1, 4 and 16
associations, to each receiver in turn, and prints the medians as a table in Markdown.
TCP_NODELAY=1 for all (without it Debian's DCMTK and Orthanc wait for Nagle's algorithm), 128 KiB
PDUs. Orthanc and the node make each file durable before they answer (SyncStorageArea is Orthanc's
default), storescp does not: it shows what the machine can do. With ``--no-sync`` nobody waits for
the disk, with ``--both`` there is a table of each.

What one receiver left to be written is written before the next one's turn, and nothing is deleted
between: for five minutes ext4 steps over each deleted inode when it makes a file nearby, which once
cost us more than all the rest, by chance of the folder.

The node is the whole listener with its database where ``workflows.listener`` is there; with
``--bare`` (or without workflows) it is the Storage SCP with the archive alone.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
DCMSEND = "/usr/bin/dcmsend"
STORESCP = "/usr/bin/storescp"
ORTHANC = next((p for p in ("/usr/sbin/Orthanc", "/usr/bin/Orthanc") if Path(p).exists()), "")
# Ahead of a program that shall not wait for the disk.
WITHOUT_SYNC = "import os; os.fsync = os.fdatasync = lambda descriptor: None"
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1", "PYTHONPATH": str(ROOT)}
AE_TITLE = "RECEIVER"


@dataclass(frozen=True)
class Result:
    """One transfer; CPU seconds and peak memory are the receiver's own."""

    receiver: str
    associations: int
    seconds: float
    megabytes: float
    instances: int
    cpu_seconds: float
    peak_mib: float
    sync: bool


def make_instances(folder: Path, count: int, series: int) -> list[Path]:
    """Write one CT series of ``count`` instances; the sender's files."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(series)
    pixels = random.integers(0, 4096, (512, 512), dtype=np.uint16)
    files = []
    for number in range(count):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = UID(f"2.25.77{series:03d}1{number:06d}")
        dataset.StudyDate = dataset.SeriesDate = "20260102"
        dataset.StudyTime = dataset.SeriesTime = "101500"
        dataset.AccessionNumber = "1"
        dataset.Modality = "CT"
        dataset.Manufacturer = "Simulated"
        dataset.PatientName = "Benchmark^Receive"
        dataset.PatientID = f"B{series}"
        dataset.PatientBirthDate = "19700101"
        dataset.PatientSex = "O"
        dataset.StudyInstanceUID = UID(f"2.25.77{series:03d}2")
        dataset.SeriesInstanceUID = UID(f"2.25.77{series:03d}3")
        dataset.StudyID = dataset.SeriesNumber = "1"
        dataset.InstanceNumber = str(number + 1)
        dataset.ImagePositionPatient = [0, 0, number]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.FrameOfReferenceUID = UID(f"2.25.77{series:03d}4")
        dataset.SliceThickness = "1"
        dataset.PixelSpacing = [0.7, 0.7]
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PixelRepresentation = 0
        dataset.RescaleIntercept, dataset.RescaleSlope = "-1024", "1"
        dataset.PixelData = np.roll(pixels, number).tobytes()
        files.append(folder / f"{number:06d}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def process_cost(pid: int) -> tuple[float, float]:
    """Return CPU seconds and peak MiB of a process and its children, ended ones too."""
    seconds = peak = 0.0
    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    seconds += sum(int(stat[i]) for i in (11, 12, 13, 14)) / os.sysconf("SC_CLK_TCK")
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            peak = int(line.split()[1]) / 1024
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            for child in (task / "children").read_text().split():
                more, memory = process_cost(int(child))
                seconds += more
                peak += memory
    return seconds, peak


def accepts(port: int, calling: str) -> bool:
    """Whether a C-ECHO is answered."""
    echo = ["/usr/bin/echoscu", "-to", "2", "-aet", calling, "-aec", AE_TITLE]
    done = subprocess.run(
        [*echo, "127.0.0.1", str(port)], env=ENVIRONMENT, capture_output=True, check=False
    )
    return done.returncode == 0


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[int]:
    """Run a receiver; yields its process ID once it answers a C-ECHO."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=out, stderr=out, cwd=log.parent)
    try:
        until = time.monotonic() + 60
        while not accepts(port, "SENDER"):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} does not answer:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def storescp(folder: Path, port: int, *, sync: bool) -> list[str]:
    """Return DCMTK's storescp: no fsync, whatever ``sync`` says, and no index."""
    folder.mkdir(parents=True)
    options = ["--fork", "-pdu", "131072", "-aet", AE_TITLE, "-od", str(folder)]
    return [STORESCP, *options, str(port)]


def orthanc(folder: Path, port: int, *, sync: bool) -> list[str]:
    """Return Orthanc, as Debian ships it: SQLite index, and fsync of each file."""
    folder.mkdir(parents=True)
    settings = {
        "Name": "benchmark",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomAet": AE_TITLE,
        "DicomPort": port,
        "HttpPort": free_port(),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": False,
        "StoreMD5ForAttachments": False,
        "MaximumPduLength": 131072,
        "SyncStorageArea": sync,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    return [ORTHANC, str(folder / "orthanc.json")]


def bare_node(folder: Path, port: int, *, sync: bool) -> list[str]:
    """Return the Storage SCP with its archive, without catalog."""
    folder.mkdir(parents=True)
    start = [sys.executable, __file__, "--serve", str(folder / "archive"), "--port", str(port)]
    return start if sync else [*start, "--no-sync"]


def whole_node(folder: Path, port: int, *, sync: bool) -> list[str]:
    """Return the node's listener with its database, as ``unibiomed-node up`` starts it."""
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    (home / "node.yaml").write_text(
        f"""node: {{ae_title: {AE_TITLE}, host: 127.0.0.1, port: {port}}}
storage: {{reserve: 100 MiB}}
peers: [{{name: sender, ae_title: SENDER}}]
"""
    )
    shutil.copy(ROOT / "workflows" / "default_rules.yaml", home / "rules.yaml")
    # As the supervisor of `unibiomed-node up` does before it starts the listener.
    from db.session import Database

    database = Database(f"sqlite:///{home / 'database.sqlite'}")
    database.upgrade()
    database.dispose()
    environment = f"UNIBIOMED_HOME={home}"
    start = ["-m", "workflows.listener"]
    if not sync:
        start = [
            "-c",
            f"{WITHOUT_SYNC}; from workflows.listener import main; raise SystemExit(main())",
        ]
    return ["/usr/bin/env", environment, sys.executable, *start]


def serve(archive: Path, port: int) -> None:
    """Be the bare receiver until terminated."""
    import signal
    import threading

    from dicom_node.archive import Archive
    from dicom_node.peers import Peer, Peers
    from dicom_node.services.association import ListenerSettings
    from dicom_node.services.storage_scp import StorageScp

    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    peers = Peers([Peer("sender", "SENDER")])
    scp = StorageScp(
        ListenerSettings(ae_title=AE_TITLE, host="127.0.0.1", port=port),
        Archive(archive, reserve_bytes=100 << 20),
        lambda: peers,
        on_stored=lambda _: None,
        on_quarantined=lambda _: None,
        on_released=lambda _: None,
        on_refused=lambda _: None,
    )
    scp.start()
    over.wait()
    scp.stop(5)


def spread_subfolders(folder: Path) -> None:
    """Have ext4 place each subfolder in a block group of its own (chattr +T), where it can.

    So no receiver makes its files among the inodes that an earlier run of this program deleted.
    """
    get_flags, set_flags, top_of_hierarchy = 0x80086601, 0x40086602, 0x00020000
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        flags = struct.unpack("i", fcntl.ioctl(descriptor, get_flags, bytes(4)))[0]
        fcntl.ioctl(descriptor, set_flags, struct.pack("i", flags | top_of_hierarchy))
    except OSError as error:
        print(f"not ext4, folders lie where they fall: {error.strerror}", file=sys.stderr)
    finally:
        os.close(descriptor)


def transfer(
    name: str, pid: int, port: int, folders: list[Path], count: int, *, sync: bool = True
) -> Result:
    """Send one folder per association, all at once."""
    before, _ = process_cost(pid)
    command = [DCMSEND, "-aet", "SENDER", "-aec", AE_TITLE, "-pdu", "131072", "+sd", "+r"]
    began = time.perf_counter()
    senders = [
        subprocess.Popen(
            [*command, "127.0.0.1", str(port), str(folder)],
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for folder in folders
    ]
    for sender in senders:
        _, errors = sender.communicate(timeout=300)
        if sender.returncode:
            raise RuntimeError(f"dcmsend to {name} failed:\n{errors.decode()[-2000:]}")
    seconds = time.perf_counter() - began
    after, peak = process_cost(pid)
    size = sum(file.stat().st_size for folder in folders for file in folder.iterdir())
    return Result(
        name, len(folders), seconds, size / 1e6, count * len(folders), after - before, peak, sync
    )


def table(results: list[Result]) -> str:
    """Return the medians, with ratios to Orthanc and storescp on as many associations."""
    lines = [
        "| receiver | associations | MB/s | instances/s | CPU ms per instance | peak MiB "
        "| x Orthanc | x storescp |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rates: dict[tuple[str, int], float] = {}
    groups: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        groups.setdefault((result.receiver, result.associations), []).append(result)
    for key, group in groups.items():
        rates[key] = statistics.median(r.megabytes / r.seconds for r in group)
    for (name, associations), group in groups.items():
        rate = rates[name, associations]
        ratios = [
            f"{rate / rates[other, associations]:.2f}" if (other, associations) in rates else ""
            for other in ("orthanc", "storescp")
        ]
        instances = statistics.median(r.instances / r.seconds for r in group)
        cpu = statistics.median(1000 * r.cpu_seconds / r.instances for r in group)
        peak = max(r.peak_mib for r in group)
        lines.append(
            f"| {name} | {associations} | {rate:.0f} | {instances:.0f} | {cpu:.2f} | {peak:.0f} "
            f"| {ratios[0]} | {ratios[1]} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="where the receivers keep their files")
    parser.add_argument("--bare", action="store_true", help="also without the catalog")
    waiting = parser.add_mutually_exclusive_group()
    waiting.add_argument("--no-sync", action="store_true", help="nobody waits for the disk")
    waiting.add_argument(
        "--both", action="store_true", help="with waiting for the disk, and without"
    )
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        if arguments.no_sync:
            exec(WITHOUT_SYNC)
        serve(arguments.serve, arguments.port)
        return
    has_listener = (ROOT / "workflows" / "listener.py").exists()
    receivers: dict[str, Callable[..., list[str]]] = {}
    if Path(STORESCP).exists():
        receivers["storescp"] = storescp
    if ORTHANC:
        receivers["orthanc"] = orthanc
    if has_listener:
        receivers["unibiomed"] = whole_node
    if arguments.bare or not has_listener:
        receivers["unibiomed-bare"] = bare_node
    work = Path(tempfile.mkdtemp(prefix="unibiomed-receive-", dir=arguments.folder))
    spread_subfolders(work)
    results: list[Result] = []
    modes = [True, False] if arguments.both else [not arguments.no_sync]
    try:
        folders = [work / "send" / str(n) for n in range(max(arguments.associations))]
        for number, folder in enumerate(folders):
            make_instances(folder, arguments.instances, number)
        # Turn by turn, so that whatever else the machine does hits all receivers alike.
        for sync, repeat in product(modes, range(arguments.repeats)):
            for associations, (name, command) in product(arguments.associations, receivers.items()):
                place = work / f"{name}-{sync}-{repeat}-{associations}"
                port = free_port()
                with running(command(place, port, sync=sync), port, work / f"{name}.log") as pid:
                    os.sync()
                    last = transfer(
                        name, pid, port, folders[:associations], arguments.instances, sync=sync
                    )
                results.append(last)
                print(
                    f"{name:16s} {associations} associations: "
                    f"{last.megabytes / last.seconds:6.0f} MB/s",
                    file=sys.stderr,
                    flush=True,
                )
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for sync in modes:
        print("Waiting for the disk:" if sync else "Without waiting for the disk:", end="\n\n")
        print(table([result for result in results if result.sync is sync]), end="\n\n")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(r) for r in results], indent=1))


if __name__ == "__main__":
    main()
