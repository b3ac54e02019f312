"""Broken and hostile messages for the receive path, a million of them.

    python benchmarks/fuzz.py [--inputs 1000000] [--seed 1]

Each input is what an established association may get: the presentation data values of a few
messages (C-STORE with its data set, C-ECHO, C-FIND), cut, flipped, spliced and with lying lengths.
It goes through what reads bytes of the network by hand: messages, command sets, data set headers,
and on to pynetdicom's DIMSE decoder. Whole associations over TCP are `benchmarks/soak.py`'s.

Ends with 1 at an exception that is none of the answers foreseen, at an input that takes more than
five seconds, and when the process grew by more than 5 % after the first tenth of the inputs.
"""

from __future__ import annotations

import argparse
import logging
import random
import signal
import struct
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom import AE, build_context

from dicom_node.durable import ByteSource
from dicom_node.services.header import MalformedDataSetError, read_header
from dicom_node.services.messages import MalformedMessageError, StoreMessages
from dicom_node.services.reactor import DirectAssociation
from dicom_node.services.reception import Answer, StoreRequest

CT = "1.2.840.10008.5.1.4.1.1.2"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
# Lengths and numbers at which parsers break.
EDGES = (0, 1, 2, 3, 7, 8, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
LONGEST_SECONDS = 5
GROWTH = 1.05


class HungError(Exception):
    """An input took too long."""


class HeaderSink:
    """Takes a data set into memory and reads its header, as the archive's reception does."""

    def __init__(self, request: StoreRequest, answers: Counter[str]) -> None:
        self._request = request
        self._answers = answers
        self._data = bytearray()

    def write(self, data: ByteSource) -> None:
        """Take bytes."""
        self._data += data

    def finish(self) -> Answer:
        """Read the header."""
        data = bytes(self._data)
        try:
            read_header(
                lambda offset, count: data[offset : offset + count],
                len(data),
                self._request.transfer_syntax_uid,
            )
        except MalformedDataSetError:
            self._answers["data set refused"] += 1
            return Answer(0xC000, "cannot understand")
        self._answers["data set read"] += 1
        return Answer(0)

    def abandon(self) -> None:
        """Forget it."""


class Deaf:
    """Stands for the connection: what is answered goes nowhere."""

    def send(self, data: bytes) -> None:
        """Drop bytes."""


def element(number: int, value: bytes) -> bytes:
    """Return an element of a command set."""
    return struct.pack("<HHI", 0, number, len(value)) + value


def command(field: int, sop_class: str, *, has_data: bool) -> bytes:
    """Return a command set."""
    parts = [
        element(0x0002, sop_class.encode() + b"\0" * (len(sop_class) % 2)),
        element(0x0100, struct.pack("<H", field)),
        element(0x0110, struct.pack("<H", 7)),
        element(0x0700, b"\0\0"),
        element(0x0800, struct.pack("<H", 0 if has_data else 0x0101)),
    ]
    if field == 1:
        parts.append(element(0x1000, b"1.2.3.4\0"))
        # As a sub-operation of a C-MOVE says it.
        parts += [element(0x1030, b"UNIBIOMED "), element(0x1031, struct.pack("<H", 7))]
    body = b"".join(parts)
    return element(0, struct.pack("<I", len(body))) + body


def encoded(dataset: Dataset) -> bytes:
    """Return a data set in Explicit VR Little Endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return bytes(buffer.getvalue())


def image() -> Dataset:
    """Return a small image with a sequence in it."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "DCM", "one"
    dataset = Dataset()
    dataset.SpecificCharacterSet = ["ISO_IR 100", "ISO 2022 IR 87"]
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT, "1.2.3.4"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    dataset.PatientName, dataset.PatientID, dataset.Modality = "Fuzz^One", "F1", "CT"
    dataset.AnatomicRegionSequence = [item]
    dataset.Rows = dataset.Columns = 4
    dataset.BitsAllocated = 16
    dataset.PixelData = bytes(32)
    dataset["PixelData"].VR = "OW"
    return dataset


@cache
def encoded_image() -> bytes:
    """Return the data set of a small image."""
    return encoded(image())


def pdv(context: int, control: int, data: bytes) -> bytes:
    """Return a presentation data value item (PS3.8 9.3.5.1)."""
    return struct.pack(">IBB", len(data) + 2, context, control) + data


def seeds() -> list[bytes]:
    """Return the valid bodies of P-DATA-TF PDUs that inputs are made of."""
    data = encoded_image()
    store = pdv(1, 3, command(1, CT, has_data=True))
    query = Dataset()
    query.QueryRetrieveLevel, query.PatientName, query.StudyInstanceUID = "STUDY", "A*", ""
    return [
        store + pdv(1, 2, data),
        store + pdv(1, 0, data[:100]) + pdv(1, 0, data[100:101]) + pdv(1, 2, data[101:]),
        store + pdv(1, 2, data) + store + pdv(1, 2, data),
        pdv(3, 3, command(0x30, VERIFICATION, has_data=False)),
        pdv(5, 3, command(0x20, FIND, has_data=True)) + pdv(5, 2, encoded(query)),
        pdv(5, 3, command(0x0FFF, FIND, has_data=False)),
    ]


def one_input(random_: random.Random, valid: list[bytes]) -> bytes:
    """Return an input: broken as a whole, or whole with a broken command or data set in it."""
    kind = random_.randrange(3)
    if kind == 0:
        return mutated(random_, random_.choice(valid), valid)
    store, data = command(1, CT, has_data=True), encoded_image()
    if kind == 1:
        field, uid = random_.choice(((1, CT), (0x30, VERIFICATION), (0x20, FIND)))
        store = mutated(random_, command(field, uid, has_data=field != 0x30), valid)
    else:
        data = mutated(random_, data, [data])
    cut = random_.randrange(len(data) + 1)
    return pdv(1, 3, store) + pdv(1, 0, data[:cut]) + pdv(1, 2, data[cut:])


def mutated(random_: random.Random, seed: bytes, valid: list[bytes]) -> bytes:
    """Return bytes after one to six changes."""
    data = bytearray(seed)
    for _ in range(random_.randint(1, 6)):
        if not data:
            break
        place = random_.randrange(len(data))
        kind = random_.randrange(8)
        if kind == 0:
            data[place] ^= 1 << random_.randrange(8)
        elif kind == 1:
            data[place] = random_.randrange(256)
        elif kind == 2:
            del data[place:]
        elif kind == 3:
            del data[place : place + random_.randint(1, 16)]
        elif kind == 4:
            data[place:place] = random_.randbytes(random_.randint(1, 16))
        elif kind == 5:
            order = random_.choice("<>")
            data[place : place + 4] = struct.pack(f"{order}I", random_.choice(EDGES))
        elif kind == 6:
            data[place : place + 2] = struct.pack("<H", random_.choice(EDGES) & 0xFFFF)
        else:
            other = random_.choice(valid)
            data[place:] = other[random_.randrange(len(other)) :]
    return bytes(data)


class Target:
    """An established association without a network."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        contexts = {}
        for context_id, uid in ((1, CT), (3, VERIFICATION), (5, FIND)):
            context = build_context(uid, EXPLICIT)
            context.context_id = context_id
            contexts[context_id] = context
        association: Any = DirectAssociation(
            AE(),
            max_pdu=1 << 17,
            patience=1,
            idle_patience=1,
            open_sink=lambda _, request: HeaderSink(request, self.answers),
        )
        association._accepted_cx = contexts
        self._association: Any = association
        self._association.connection = Deaf()

    def feed(self, body: bytes) -> None:
        """Give it one body, as a new message would come."""
        messages = StoreMessages(self._association)
        try:
            messages.take(memoryview(body))
            self.answers["taken"] += 1
        except MalformedMessageError:
            self.answers["answered with A-ABORT"] += 1
        messages.abandon()
        dimse = self._association.dimse
        dimse.message = None
        while not dimse.msg_queue.empty():
            dimse.msg_queue.get(block=False)
            self.answers["given to pynetdicom"] += 1


@contextmanager
def time_limit() -> Iterator[None]:
    """Raise HungError when an input takes too long."""

    def hung(*_: object) -> None:
        raise HungError

    before = signal.signal(signal.SIGALRM, hung)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(inputs: int, seed: int, progress: bool = False) -> Counter[str]:
    """Feed so many inputs.

    Raises
    ------
    RuntimeError
        At the first input that breaks something: its number, seed and bytes, and how.
    """
    random_ = random.Random(seed)
    valid = seeds()
    target = Target()
    process = psutil.Process()
    size = 0
    began = time.monotonic()
    with time_limit():
        for number in range(inputs):
            body = one_input(random_, valid)
            signal.setitimer(signal.ITIMER_REAL, LONGEST_SECONDS)
            try:
                target.feed(body)
            # Whatever it is, it would have ended an association that deserved an answer.
            except Exception as error:
                raise RuntimeError(
                    f"input {number} of seed {seed} ({body.hex()}): {error!r}"
                ) from error
            if number == inputs // 10:
                size = process.memory_info().rss
            if progress and number % 50_000 == 0:
                rate = number / (time.monotonic() - began + 1e-9)
                print(f"{number} inputs, {rate:.0f}/s", file=sys.stderr, flush=True)
    grown = process.memory_info().rss / max(size, 1)
    if grown > GROWTH:
        raise RuntimeError(f"the process grew to {grown:.2f} times its size")
    target.answers["memory, % of that after a tenth"] = round(100 * grown)
    return target.answers


def main() -> int:
    """Run and print what the inputs came to."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    # Each refused input is worth a line in a log, not here.
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    try:
        answers = run(arguments.inputs, arguments.seed, progress=True)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    for answer, count in answers.most_common():
        print(f"{count:10d}  {answer}")
    return 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
